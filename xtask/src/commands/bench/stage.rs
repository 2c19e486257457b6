//! Everything a run needs besides the operator: the control plane, the simulated Composio, the objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use composio_sim::{ApiKey, Call, Config, GeneratedCatalogue, Simulator};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use tempfile::TempDir;
use testing::control_plane::binaries::Binaries;
use testing::control_plane::{ControlPlane, Options};
use tokio::time::MissedTickBehavior;

use super::caches::Caches;
use super::exposition;
use super::objects::{Milestone, Objects};
use super::operator::{Launch, Operator};
use super::statistics::number;

/// Calls a minute that Composio allows on its smaller plans.
pub const BUDGET: u32 = 2_000;
/// Time the simulated Composio takes to answer.
pub const LATENCY: Duration = Duration::from_millis(50);

const API_KEY: &str = "ak_benchmark";
/// Another key for whoever measures: of another organization, so that both have a rate limit of their own.
const OTHER_KEY: &str = "ak_measuring";
const NAMESPACE: &str = "bench";
const OPERATOR_NAMESPACE: &str = "composio-operator";
const SERVICE_ACCOUNT: &str = "composio-operator";
/// What the operator may write.
const WRITTEN: [&str; 5] = [
    "redditconnections",
    "composioschemacaches",
    "secrets",
    "configmaps",
    "events",
];
/// Verbs of the API server's metrics that write.
const WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
/// How often a long wait tells how far it has come.
const NEWS_INTERVAL: Duration = Duration::from_secs(10);
/// Waited beyond the time that the budget alone would take.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a run works with. Dropping it ends and removes everything.
pub struct Stage {
    // The order is that of dropping: clients before servers.
    objects: Objects,
    caches: Caches,
    launch: Launch,
    simulator: Simulator,
    control_plane: ControlPlane,
}

impl Stage {
    /// Sets everything up for the operator at `program`, with the CRDs and the roles of the chart under `root`, and a
    /// Composio with these toolkits beside the built-in ones.
    pub async fn set(
        root: &Path,
        program: PathBuf,
        binaries: Binaries,
        generated: Option<GeneratedCatalogue>,
    ) -> Result<Self> {
        say("starting a control plane");
        let options = Options {
            binaries: Some(binaries),
            ..Options::default()
        };
        let control_plane = ControlPlane::start(options).await?;
        let kubeconfig = install(&control_plane, root).await?;
        let config = Config {
            keys: vec![
                ApiKey::new(API_KEY),
                ApiKey::new(OTHER_KEY).project("measuring").org("measuring"),
            ],
            generated,
            latency: LATENCY,
            rate_limit: BUDGET,
            ..Config::default()
        };
        let simulator = Simulator::start(config)
            .await
            .context("cannot start the simulated Composio")?;
        let client = client(&control_plane).await?;
        Ok(Self {
            caches: Caches::new(&client, NAMESPACE),
            objects: Objects::watch(client, NAMESPACE),
            launch: Launch {
                path: program,
                kubeconfig,
                composio: simulator.url().to_owned(),
                api_key: API_KEY.to_owned(),
                directory: TempDir::new().context("cannot create a temporary directory")?,
            },
            simulator,
            control_plane,
        })
    }

    /// The custom resources.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The schema caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// A key for calls that the operator's rate limit does not count.
    pub fn other_key() -> &'static str {
        OTHER_KEY
    }

    /// Composio, and what was asked of it.
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// Number of the newest call to Composio.
    pub fn newest_call(&self) -> u64 {
        self.simulator.calls().last().map_or(0, |call| call.seq)
    }

    /// Every call to Composio, once the log is known to hold them all.
    pub fn all_calls(&self) -> Result<Vec<Call>> {
        let dropped = self.simulator.stats().dropped;
        ensure!(
            dropped == 0,
            "the simulator's call log overflowed: {dropped} calls are missing"
        );
        Ok(self.simulator.calls())
    }

    /// Starts the operator and returns when it is ready. `number` tells several starts apart.
    pub async fn start_operator(&self, number: usize) -> Result<Operator> {
        self.launch.start(number).await
    }

    /// Writes the API server has served so far on what the operator may write.
    pub async fn api_writes(&self) -> Result<ApiWrites> {
        let text = self
            .control_plane
            .kubectl(["get", "--raw=/metrics"])
            .await?
            .ok()?;
        Ok(ApiWrites::read(&text))
    }

    /// Waits until `count` objects have come that far, and tells how it goes.
    pub async fn reach(&self, operator: &Operator, milestone: Milestone, count: usize) -> Result<()> {
        let mut news = tokio::time::interval(NEWS_INTERVAL);
        news.set_missed_tick_behavior(MissedTickBehavior::Delay);
        news.tick().await;
        let telling = async {
            let mut reached = std::pin::pin!(self.objects.reach(milestone, count));
            loop {
                tokio::select! {
                    done = &mut reached => return done,
                    _ = news.tick() => {
                        let so_far = self.objects.sightings().count(milestone);
                        say(&format!("{so_far} of {count} are {}", milestone.as_str()));
                    }
                }
            }
        };
        let what = format!("{count} objects that are {}", milestone.as_str());
        self.within(operator, patience(count), &what, telling).await
    }

    /// Lets time pass, unless something breaks.
    pub async fn pass(&self, operator: &Operator, time: Duration) -> Result<()> {
        let passing = async {
            tokio::time::sleep(time).await;
            Ok(())
        };
        self.within(operator, time + PATIENCE, "time to pass", passing)
            .await
    }

    /// Waits for `future`, but not if a process ends meanwhile, and not for longer than `limit`.
    pub async fn within<T>(
        &self,
        operator: &Operator,
        limit: Duration,
        what: &str,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            done = future => done,
            end = operator.ended() => bail!("{end}"),
            end = self.control_plane.failure() => bail!("{end}"),
            () = tokio::time::sleep(limit) => {
                bail!("waited {limit:?} in vain for {what}; the end of the operator's log:\n{}", operator.log_tail())
            }
        }
    }
}

/// Writes of objects, Secrets, ConfigMaps and events, as in `APPLY redditconnections/status`, by how often the API server
/// was asked for them. Requests that failed or changed nothing count as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ApiWrites(BTreeMap<String, f64>);

impl ApiWrites {
    /// Reads them from the API server's metrics.
    fn read(metrics: &str) -> Self {
        let mut writes = BTreeMap::new();
        for (labels, count) in exposition::samples(metrics, "apiserver_request_total") {
            let get = |label| labels.get(label).unwrap_or_default();
            let (verb, resource) = (get("verb"), get("resource"));
            if WRITTEN.contains(&resource) && WRITES.contains(&verb) {
                let target = match get("subresource") {
                    "" => resource.to_owned(),
                    subresource => format!("{resource}/{subresource}"),
                };
                *writes.entry(format!("{verb} {target}")).or_default() += count;
            }
        }
        Self(writes)
    }

    /// All together.
    pub fn all(&self) -> f64 {
        self.0.values().sum()
    }

    /// Those of one resource, subresources included, or of one subresource, as in `redditconnections/status`.
    pub fn of(&self, resource: &str) -> f64 {
        self.0
            .iter()
            .filter(|(what, _)| {
                let target = what.split_once(' ').map_or("", |(_, target)| target);
                target == resource || target.split('/').next() == Some(resource)
            })
            .map(|(_, count)| count)
            .sum()
    }

    /// Those of all that a connection consists of.
    pub fn of_connections(&self) -> f64 {
        ["redditconnections", "secrets", "events"]
            .map(|resource| self.of(resource))
            .iter()
            .sum()
    }
}

/// The time that so many calls take at the full rate of the budget.
pub fn at_budget(calls: usize) -> Duration {
    Duration::from_secs_f64(number(calls) * 60.0 / f64::from(BUDGET))
}

/// How long to wait for something that takes so many calls, before it counts as failed.
pub fn patience(calls: usize) -> Duration {
    at_budget(calls) * 4 + PATIENCE
}

/// Tells a person what is going on.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}

/// Installs CRDs, roles and service account as the chart does. Returns the kubeconfig of the service account: the
/// operator works with the rights it has in production.
async fn install(control_plane: &ControlPlane, root: &Path) -> Result<PathBuf> {
    for namespace in [OPERATOR_NAMESPACE, NAMESPACE] {
        control_plane
            .kubectl(["create", "namespace", namespace])
            .await?
            .ok()?;
    }
    let crds = root.join("crds");
    control_plane
        .kubectl(["apply".as_ref(), "--filename".as_ref(), crds.as_os_str()])
        .await?
        .ok()?;
    control_plane
        .kubectl([
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ])
        .await?
        .ok()?;
    let chart = root.join("charts/composio-operator");
    let name = format!("serviceAccount.name={SERVICE_ACCOUNT}");
    let mut args = vec![
        "template".as_ref(),
        "composio-operator".as_ref(),
        chart.as_os_str(),
    ];
    args.extend(["--namespace", OPERATOR_NAMESPACE, "--set", &name].map(AsRef::<std::ffi::OsStr>::as_ref));
    for template in ["templates/rbac.yaml", "templates/serviceaccount.yaml"] {
        args.extend(["--show-only", template].map(AsRef::<std::ffi::OsStr>::as_ref));
    }
    let manifests = control_plane.helm(args).await?.ok()?;
    control_plane.kubectl_apply(&manifests).await?.ok()?;
    control_plane
        .service_account_kubeconfig(OPERATOR_NAMESPACE, SERVICE_ACCOUNT)
        .await
}

async fn client(control_plane: &ControlPlane) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::from_yaml(&control_plane.kubeconfig_yaml()?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_by_verb_and_resource() {
        let metrics = r#"
apiserver_request_total{code="200",resource="redditconnections",subresource="status",verb="APPLY"} 7
apiserver_request_total{code="409",resource="redditconnections",subresource="status",verb="APPLY"} 1
apiserver_request_total{code="201",resource="events",subresource="",verb="POST"} 2
apiserver_request_total{code="200",resource="secrets",subresource="",verb="GET"} 40
apiserver_request_total{code="200",resource="leases",subresource="",verb="PUT"} 80
"#;
        let writes = ApiWrites::read(metrics);
        let expected = [("APPLY redditconnections/status", 8.0), ("POST events", 2.0)];
        assert_eq!(
            writes.0,
            expected.map(|(what, count)| (what.to_owned(), count)).into()
        );
        for (resource, count) in [
            ("redditconnections", 8.0),
            ("redditconnections/status", 8.0),
            ("events", 2.0),
            ("secrets", 0.0),
        ] {
            assert!((writes.of(resource) - count).abs() < f64::EPSILON, "{resource}");
        }
        assert!((writes.of_connections() - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_budget_alone_takes_a_minute_for_a_minutes_calls() {
        assert_eq!(at_budget(2_000), Duration::from_mins(1));
        assert_eq!(at_budget(0), Duration::ZERO);
    }
}
