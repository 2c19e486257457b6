//! The state that all parts of a running simulator share.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    calls::CallLog,
    catalogue::Catalogue,
    clock::Clock,
    config::{Assumptions, Config, Scopes, SeedAuthConfig},
    faults::Faults,
    limiter::{FixedWindow, Quota},
    lock,
    simulator::Error,
    state::{Project, accounts::Row, auth_configs::NewAuthConfig},
};

/// A key the simulator accepts.
#[derive(Debug)]
pub(crate) struct Key {
    /// Position of its project.
    pub(crate) project: usize,
    pub(crate) org: String,
    pub(crate) scopes: Scopes,
}

pub(crate) struct Core {
    pub(crate) clock: Clock,
    pub(crate) catalogue: Catalogue,
    pub(crate) assumptions: Assumptions,
    pub(crate) latency: Duration,
    /// Without a slash at the end; hosted links begin with it.
    pub(crate) public_url: String,
    pub(crate) faults: Faults,
    pub(crate) calls: CallLog,
    /// Becomes true when the simulator ends, which also ends hanging requests.
    pub(crate) ending: watch::Sender<bool>,
    /// Moves with every change to any account.
    pub(crate) changed: watch::Sender<u64>,
    keys: HashMap<String, Key>,
    projects: Mutex<Vec<Project>>,
    rate_limit: u32,
    windows: Mutex<HashMap<String, FixedWindow>>,
}

impl Core {
    pub(crate) fn new(config: Config, public_url: String) -> Result<Self, Error> {
        let catalogue = Catalogue::new(config.generated.as_ref()).map_err(Error::Catalogue)?;
        let mut projects: Vec<Project> = Vec::new();
        let mut keys = HashMap::new();
        for key in config.keys {
            let project = projects
                .iter()
                .position(|project| project.name == key.project)
                .unwrap_or_else(|| {
                    projects.push(Project {
                        name: key.project.clone(),
                        org: key.org.clone(),
                        ..Project::default()
                    });
                    projects.len() - 1
                });
            if projects[project].org != key.org {
                return Err(Error::ProjectInTwoOrgs(key.project));
            }
            keys.insert(
                key.key,
                Key {
                    project,
                    org: key.org,
                    scopes: key.scopes,
                },
            );
        }
        if keys.is_empty() {
            return Err(Error::NoKeys);
        }
        let core = Self {
            clock: config.clock,
            catalogue,
            assumptions: config.assumptions,
            latency: config.latency,
            public_url,
            faults: Faults::default(),
            calls: CallLog::new(config.log_capacity),
            ending: watch::Sender::new(false),
            changed: watch::Sender::new(0),
            keys,
            projects: Mutex::new(projects),
            rate_limit: config.rate_limit,
            windows: Mutex::default(),
        };
        for seed in &config.auth_configs {
            core.seed(seed)?;
        }
        core.seed_many(config.auth_config_count.saturating_sub(config.auth_configs.len()))?;
        Ok(core)
    }

    /// Adds an auth config to every project. Returns its id.
    pub(crate) fn seed(&self, seed: &SeedAuthConfig) -> Result<String, Error> {
        let unsuitable = |why| Error::Seed {
            toolkit: seed.toolkit.clone(),
            why,
        };
        let toolkit = self
            .catalogue
            .toolkit(&seed.toolkit)
            .ok_or_else(|| unsuitable("there is no such toolkit"))?;
        if toolkit.no_auth() {
            return Err(unsuitable("it needs no authentication"));
        }
        let schemes = if seed.managed {
            &toolkit.composio_managed_auth_schemes
        } else {
            &toolkit.auth_schemes
        };
        let auth_scheme = seed.auth_scheme.clone().or_else(|| schemes.first().cloned());
        let auth_scheme =
            auth_scheme.ok_or_else(|| unsuitable("Composio has no managed credentials for it"))?;
        let id = seed.id.clone().unwrap_or_else(|| format!("ac_{}", toolkit.slug));
        let mut projects = lock(&self.projects);
        for project in projects.iter_mut() {
            let new = NewAuthConfig {
                id: Some(id.clone()),
                name: Some(seed.name.clone().unwrap_or_else(|| toolkit.slug.clone())),
                toolkit: toolkit.slug.clone(),
                auth_scheme: auth_scheme.clone(),
                managed: seed.managed,
                enabled: seed.enabled,
                credentials: serde_json::Map::new(),
            };
            project.auth_configs.create(new, self.clock.now());
        }
        Ok(id)
    }

    /// Adds that many auth configs to every project, for the toolkits that need one in turn.
    fn seed_many(&self, count: usize) -> Result<(), Error> {
        let mut toolkits = self.catalogue.toolkits();
        toolkits.retain(|toolkit| !toolkit.no_auth());
        let before = lock(&self.projects)
            .first()
            .map_or(0, |project| project.auth_configs.count());
        for (toolkit, number) in toolkits.iter().cycle().zip(before + 1..).take(count) {
            self.seed(&SeedAuthConfig {
                id: Some(format!("ac_{}_{number}", toolkit.slug)),
                name: Some(format!("{} {number}", toolkit.slug)),
                managed: !toolkit.composio_managed_auth_schemes.is_empty(),
                ..SeedAuthConfig::managed(&toolkit.slug)
            })?;
        }
        Ok(())
    }

    pub(crate) fn key(&self, key: &str) -> Option<&Key> {
        self.keys.get(key)
    }

    /// Works on one project at one moment, with everything overdue already expired.
    pub(crate) fn project<T>(&self, index: usize, work: impl FnOnce(&mut Project, Timestamp) -> T) -> T {
        let mut projects = lock(&self.projects);
        // Read under the lock, so that rows are created in the order of their times.
        let now = self.clock.now();
        self.visit(&mut projects[index], now, work)
    }

    /// Works on each project in turn until one yields something.
    pub(crate) fn find_project<T>(
        &self,
        mut work: impl FnMut(&mut Project, Timestamp) -> Option<T>,
    ) -> Option<T> {
        let mut projects = lock(&self.projects);
        let now = self.clock.now();
        projects
            .iter_mut()
            .find_map(|project| self.visit(project, now, &mut work))
    }

    /// Works on the account of that id, deleted ones included.
    pub(crate) fn account<T>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Project, Row, Timestamp) -> T,
    ) -> Option<T> {
        let mut work = Some(work);
        self.find_project(|project, now| {
            let row = project.accounts.find_any(id)?;
            work.take().map(|work| work(project, row, now))
        })
    }

    fn visit<T>(
        &self,
        project: &mut Project,
        now: Timestamp,
        work: impl FnOnce(&mut Project, Timestamp) -> T,
    ) -> T {
        let before = project.accounts.revision();
        project.accounts.expire_overdue(now);
        let result = work(project, now);
        if project.accounts.revision() != before {
            self.changed.send_modify(|revision| *revision += 1);
        }
        result
    }

    /// Counts a request of the organization, or refuses it; `None` if there is no limit.
    pub(crate) fn admit(&self, org: &str) -> Option<Quota> {
        self.window(org, FixedWindow::admit)
    }

    /// The organization's state without counting anything; `None` if there is no limit.
    pub(crate) fn quota(&self, org: &str) -> Option<Quota> {
        self.window(org, FixedWindow::peek)
    }

    fn window(&self, org: &str, ask: impl FnOnce(&mut FixedWindow, Timestamp) -> Quota) -> Option<Quota> {
        if self.rate_limit == 0 {
            return None;
        }
        let mut windows = lock(&self.windows);
        let window = windows
            .entry(org.to_owned())
            .or_insert_with(|| FixedWindow::new(self.rate_limit));
        Some(ask(window, self.clock.now()))
    }

    /// The address of a hosted page.
    pub(crate) fn link_url(&self, token: &str) -> String {
        format!("{}/link/{token}", self.public_url)
    }

    /// Returns once the simulator ends.
    pub(crate) async fn ended(&self) {
        let mut ending = self.ending.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = ending.wait_for(|ending| *ending).await;
    }
}
