//! A running simulator, as tests and the binary hold it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    auto_consent,
    calls::{Call, Stats},
    catalogue::{CatalogueError, Release, Released, Touch},
    clock::Clock,
    config::Config,
    control::{AccountAction, AccountSnapshot, DeedError},
    core::Core,
    faults::{Rule, RuleState},
    http,
    provider::ProviderMode,
    server,
};

/// Why a simulator could not start, or refused a seed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No API key is configured, so every request would be refused.
    #[error("at least one API key is needed")]
    NoKeys,
    /// Keys of one project name different organizations.
    #[error("project {0} is in two organizations")]
    ProjectInTwoOrgs(String),
    /// An auth config cannot be made.
    #[error("no auth config for toolkit {toolkit}: {why}")]
    Seed {
        /// The toolkit named.
        toolkit: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The built-in catalogue is broken.
    #[error("the built-in catalogue cannot be read")]
    Catalogue(#[source] serde_json::Error),
}

/// What was waited for did not happen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing of the kind happened within {0:?}")]
pub struct TimedOut(pub Duration);

/// A running simulator. It ends when dropped.
pub struct Simulator {
    core: Arc<Core>,
    server: JoinHandle<()>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Simulator {
    /// Starts a simulator on the current tokio runtime. It accepts connections when this returns.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let at = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let public_url = config.public_url.as_ref().map_or_else(
            || format!("http://{}", reachable(address)),
            |url| url.as_str().trim_end_matches('/').to_owned(),
        );
        let auto_consent = config.auto_consent;
        let core = Arc::new(Core::new(config, public_url)?);
        if let Some(delay) = auto_consent {
            tokio::spawn(auto_consent::run(Arc::clone(&core), delay));
        }
        let router = http::router(&core);
        let server = tokio::spawn(server::serve(Arc::clone(&core), listener, router));
        Ok(Self { core, server })
    }

    /// Where it is reached, without a slash at the end: the base URL for clients.
    pub fn url(&self) -> &str {
        &self.core.public_url
    }

    /// Its time.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Ends it: refuses new connections, finishes running requests, closes hanging ones.
    pub async fn stop(mut self) {
        self.core.ending.send_replace(true);
        // A server that panicked has ended as well.
        let _ = (&mut self.server).await;
    }

    /// Every account of every project, deleted ones included.
    pub fn accounts(&self) -> Vec<AccountSnapshot> {
        self.core.snapshots()
    }

    /// One account, deleted or not.
    pub fn account(&self, id: &str) -> Option<AccountSnapshot> {
        self.core.snapshot(id)
    }

    /// Makes a new latest version of a toolkit. Earlier versions stay as they are, for clients that pin them.
    pub fn release_toolkit(&self, slug: &str, release: &Release) -> Result<Released, CatalogueError> {
        self.core.catalogue.release(slug, release, self.core.clock.now())
    }

    /// Moves a toolkit's update time and optionally changes its description, without a new version.
    pub fn touch_toolkit(&self, slug: &str, touch: &Touch) -> Result<(), CatalogueError> {
        let touched = self.core.catalogue.touch(slug, touch, self.core.clock.now());
        touched.map(drop)
    }

    /// A person opens the account's hosted page.
    pub fn open(&self, id: &str) -> Result<AccountSnapshot, DeedError> {
        self.core.act(id, AccountAction::Open)
    }

    /// A person agrees, as `username` at the provider or under a name made from the user id.
    pub fn consent(&self, id: &str, username: Option<&str>) -> Result<AccountSnapshot, DeedError> {
        self.core.act(
            id,
            AccountAction::Consent {
                username: username.map(str::to_owned),
            },
        )
    }

    /// A person declines.
    pub fn deny(&self, id: &str) -> Result<AccountSnapshot, DeedError> {
        self.core.act(id, AccountAction::Deny)
    }

    /// The link runs out, or the credential can no longer be refreshed, whichever the account's status makes of it.
    pub fn expire(&self, id: &str) -> Result<AccountSnapshot, DeedError> {
        self.core.act(id, AccountAction::Expire)
    }

    /// The account is switched off.
    pub fn disable(&self, id: &str) -> Result<AccountSnapshot, DeedError> {
        self.core.act(id, AccountAction::Disable)
    }

    /// Sets how the provider treats an account.
    pub fn set_provider_mode(&self, id: &str, mode: ProviderMode) -> Result<AccountSnapshot, DeedError> {
        self.core.set_provider(id, mode)
    }

    /// Adds a fault rule behind the others. Returns its name.
    pub fn inject(&self, rule: Rule) -> String {
        self.core.faults.inject(rule)
    }

    /// The fault rules and what they did so far.
    pub fn faults(&self) -> Vec<RuleState> {
        self.core.faults.list()
    }

    /// Releases the requests that hang at a rule. `false` if there is no such rule.
    pub fn release(&self, rule: &str) -> bool {
        self.core.faults.release(rule)
    }

    /// Removes every fault rule and releases the requests that hang at them.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }

    /// The calls the log remembers, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_after(0)
    }

    /// The calls after the one numbered `seq`, oldest first.
    pub fn calls_after(&self, seq: u64) -> Vec<Call> {
        self.core
            .calls
            .after(seq, usize::MAX)
            .iter()
            .map(|call| Call::clone(call))
            .collect()
    }

    /// Counts of calls by route and status.
    pub fn stats(&self) -> Stats {
        self.core.calls.stats()
    }

    /// Forgets the calls and the counts; numbering goes on.
    pub fn clear_calls(&self) {
        self.core.calls.clear();
    }

    /// The first call in the log, past or to come, that fits. Waits for at most `timeout` of real time.
    pub async fn wait_for_call(
        &self,
        fits: impl Fn(&Call) -> bool,
        timeout: Duration,
    ) -> Result<Call, TimedOut> {
        let mut news = self.core.calls.subscribe();
        let search = async {
            let mut seen = 0;
            loop {
                news.mark_unchanged();
                for call in self.core.calls.after(seen, usize::MAX) {
                    seen = call.seq;
                    if fits(&call) {
                        return Call::clone(&call);
                    }
                }
                // The log lives in `self`, so the channel cannot close while this waits.
                let _ = news.changed().await;
            }
        };
        tokio::time::timeout(timeout, search)
            .await
            .map_err(|_| TimedOut(timeout))
    }

    /// The first account, now or as soon as there is one, that fits. Waits for at most `timeout` of real time.
    pub async fn wait_for_account(
        &self,
        fits: impl Fn(&AccountSnapshot) -> bool,
        timeout: Duration,
    ) -> Result<AccountSnapshot, TimedOut> {
        let mut changed = self.core.changed.subscribe();
        let search = async {
            loop {
                changed.mark_unchanged();
                if let Some(account) = self.accounts().into_iter().find(|account| fits(account)) {
                    return account;
                }
                // The sender lives in `self`, so the channel cannot close while this waits.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(timeout, search)
            .await
            .map_err(|_| TimedOut(timeout))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.core.ending.send_replace(true);
    }
}

/// An address clients on this machine can use, also where the simulator listens on all of its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
