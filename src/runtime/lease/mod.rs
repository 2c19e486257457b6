//! Leader election over a `coordination.k8s.io/v1` Lease: of all replicas, at most one acts.
//!
//! Every write names the resource version it was decided on, so that of two contenders the API server refuses one. The
//! leader stops *by its own clock*, a third of the lease's duration before anybody may take over, whether or not it can
//! reach the API server. Its loss is final: the process is expected to exit and to contend anew.
//!
//! A lease is no fence. A process that is suspended between asking [`Leadership::is_current`] and acting acts late; whatever
//! it calls has to stand that. The guard makes it rare.

mod decision;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::failure::explain;
use super::status::is_conflict;

pub use decision::{Sighting, Verdict, evaluate};

/// Longest time for one request: after a renewal that hangs, the leader has time for another.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Which lease is contended for, by whom.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease; the same for all replicas of one installation.
    pub name: String,
    /// Names this process and no other, not even its predecessor in the same Pod: see [`unique_identity`].
    pub identity: String,
    /// How long others wait for a holder that stopped renewing. At least 3 s; client-go's default is 15 s. The holder
    /// renews after a fifth of it, and stops acting after two thirds without a renewal.
    pub duration: Duration,
}

impl LeaseConfig {
    fn renew_every(&self) -> Duration {
        self.duration / 5
    }

    fn retry_every(&self) -> Duration {
        self.duration / 15
    }

    fn act_for(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// An identity for this process: `name`, for people, with a random part behind it. A restarted container thereby waits
/// for the lease of its predecessor, of which it cannot know whether it is really gone.
pub fn unique_identity(name: &str) -> String {
    // The standard library seeds each hasher from the operating system's randomness.
    format!("{name}_{:016x}", RandomState::new().build_hasher().finish())
}

/// A client for the lease alone. The ordinary one repeats a refused request up to 15 times and may wait for an answer for
/// ever; a leader must know within its deadline that it could not renew.
///
/// # Errors
/// If the configuration's TLS or proxy settings cannot be used.
pub fn client(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.write_timeout = Some(REQUEST_TIMEOUT);
    Client::try_from(config)
}

/// Why this process no longer leads, or never will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// It could not be renewed in time.
    #[error("the lease could not be renewed in time")]
    Expired,
    /// The Lease no longer names this process: another took it, or someone edited or deleted it.
    #[error("the lease no longer names this replica but {holder:?}")]
    Taken {
        /// Who is named instead; empty if nobody.
        holder: String,
    },
    /// It was given up by [`Leadership::release`].
    #[error("the lease was released")]
    Released,
    /// The task that renews it ended unexpectedly.
    #[error("the task that renews the lease is gone")]
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Contending,
    Leading { until: Instant },
    Ended(Loss),
}

/// This process's part in the election. Clones share it; when the last one is dropped, the lease is released.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Absent where there is no election: then this process always leads.
    election: Option<Election>,
}

#[derive(Clone, Debug)]
struct Election {
    state: watch::Receiver<State>,
    /// Asks the task to release.
    stop: Arc<watch::Sender<bool>>,
}

impl Leadership {
    /// Contends for the lease from now on, in a task of its own. Use the [`client`] made for it.
    pub fn contend(client: Client, config: LeaseConfig) -> Self {
        let (report, state) = watch::channel(State::Contending);
        let (stop, stopped) = watch::channel(false);
        let contender = Contender {
            api: Api::namespaced(client, &config.namespace),
            config,
            lease: None,
            seen: None,
            fresh: false,
            report,
        };
        tokio::spawn(contender.run(stopped));
        Self {
            election: Some(Election {
                state,
                stop: Arc::new(stop),
            }),
        }
    }

    /// For an installation that promises to run one replica only: it leads at once and for ever.
    pub fn without_election() -> Self {
        Self { election: None }
    }

    /// Waits until this process leads.
    ///
    /// # Errors
    /// If it never will: released, or the task ended.
    pub async fn acquired(&self) -> Result<(), Loss> {
        match &self.election {
            Some(election) => match election.wait(|state| *state != State::Contending).await {
                State::Ended(loss) => Err(loss),
                State::Contending | State::Leading { .. } => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Waits until this process, having led or not, is out of the election for good. The process should then exit.
    pub async fn lost(&self) -> Loss {
        match &self.election {
            Some(election) => match election.wait(|state| matches!(state, State::Ended(_))).await {
                State::Ended(loss) => loss,
                State::Contending | State::Leading { .. } => Loss::Broken,
            },
            None => std::future::pending().await,
        }
    }

    /// Whether this process leads at `now`, by its own clock: it stays true as long as nobody else can lead. To be asked
    /// before what changes something outside this process.
    pub fn is_current(&self, now: Instant) -> bool {
        self.election.as_ref().is_none_or(
            |election| matches!(*election.state.borrow(), State::Leading { until } if now < until),
        )
    }

    /// Gives the lease up, so that another replica need not wait for its end, and returns when that is done or turned
    /// out to be impossible. Stop all work before: this process no longer leads. Without an election it does nothing.
    pub async fn release(&self) {
        if let Some(election) = &self.election {
            election.stop.send_replace(true);
            // The task drops its end of the channel last of all.
            let mut state = election.state.clone();
            while state.changed().await.is_ok() {}
        }
    }
}

impl Election {
    /// The first state for which `done` holds; [`Loss::Broken`] if the task ends without it.
    async fn wait(&self, done: impl FnMut(&State) -> bool) -> State {
        // The task ends after it reported its loss, unless it panicked.
        self.state
            .clone()
            .wait_for(done)
            .await
            .map_or(State::Ended(Loss::Broken), |state| state.clone())
    }
}

/// The task behind a [`Leadership`], the only writer of its state.
struct Contender {
    api: Api<Lease>,
    config: LeaseConfig,
    /// As last read or written; its resource version goes into the next write.
    lease: Option<Lease>,
    seen: Option<Sighting>,
    /// Whether `lease` is still believed; not after a failure, because the write may have been carried out all the same.
    fresh: bool,
    report: watch::Sender<State>,
}

impl Contender {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            // An error means that every handle is gone, which is a wish to stop as well.
            _ = stopped.wait_for(|stop| *stop) => {}
            loss = self.contend_until_lost() => {
                tracing::error!(%loss, "leadership lost");
                self.report.send_replace(State::Ended(loss));
                return;
            }
        }
        self.report.send_replace(State::Ended(Loss::Released));
        if let Err(error) = self.release().await {
            tracing::warn!(%error, "lease not released; other replicas wait for its end");
        }
    }

    async fn contend_until_lost(&mut self) -> Loss {
        loop {
            match self.step().await {
                Ok(pause) => sleep(pause).await,
                Err(loss) => return loss,
            }
        }
    }

    /// Until when this process leads, if it does.
    fn leading_until(&self) -> Option<Instant> {
        match *self.report.borrow() {
            State::Leading { until } => Some(until),
            State::Contending | State::Ended(_) => None,
        }
    }

    /// One attempt to take or keep the lease; says how long to wait before the next.
    async fn step(&mut self) -> Result<Duration, Loss> {
        let leading_until = self.leading_until();
        let patience = match leading_until {
            Some(until) => until
                .saturating_duration_since(Instant::now())
                .min(REQUEST_TIMEOUT),
            None => REQUEST_TIMEOUT,
        };
        if patience.is_zero() {
            return Err(Loss::Expired);
        }
        let attempt = timeout(patience, self.attempt(leading_until.is_some())).await;
        let pause = match attempt {
            Ok(Ok(Attempt::Holding { until })) => {
                if leading_until.is_none() {
                    tracing::info!(identity = self.config.identity, "leading");
                }
                self.report.send_replace(State::Leading { until });
                return Ok(self.config.renew_every());
            }
            Ok(Ok(Attempt::Yielding { until })) => until
                .saturating_duration_since(Instant::now())
                .min(self.config.renew_every()),
            Ok(Ok(Attempt::Lost { holder })) => return Err(Loss::Taken { holder }),
            Ok(Err(error)) => {
                // Losing a race to write is how contenders find out; it needs no attention.
                if is_lost_race(&error) {
                    tracing::debug!(error = explain(&error), "lease changed meanwhile");
                } else {
                    tracing::warn!(error = explain(&error), "lease not updated");
                }
                self.config.retry_every()
            }
            Err(_elapsed) => {
                tracing::warn!("lease not updated: no answer in time");
                self.config.retry_every()
            }
        };
        self.fresh = false;
        // A leader finds out about its end when it comes, not at the next attempt.
        Ok(leading_until.map_or(pause, |until| {
            pause.min(until.saturating_duration_since(Instant::now()))
        }))
    }

    async fn attempt(&mut self, leading: bool) -> kube::Result<Attempt> {
        if !self.fresh {
            let lease = self.api.get_opt(&self.config.name).await?;
            self.remember(lease);
        }
        let verdict = evaluate(
            self.seen.as_ref(),
            &self.config.identity,
            Instant::now(),
            self.config.duration,
        );
        match verdict {
            // Whoever else was named, even if it gave up since, may have acted in between.
            Verdict::Acquire | Verdict::Yield { .. } if leading => {
                let holder = self
                    .seen
                    .as_ref()
                    .and_then(|seen| seen.spec.holder_identity.clone());
                Ok(Attempt::Lost {
                    holder: holder.unwrap_or_default(),
                })
            }
            Verdict::Yield { until } => Ok(Attempt::Yielding { until }),
            Verdict::Acquire | Verdict::Renew => {
                // Others count from when they see the write, which is after this moment.
                let sent = Instant::now();
                let spec = self.seen.as_ref().map(|seen| &seen.spec);
                let spec = decision::claimed(
                    spec,
                    &self.config.identity,
                    Timestamp::now(),
                    self.config.duration,
                );
                let written = self.write(spec).await?;
                self.remember(Some(written));
                Ok(Attempt::Holding {
                    until: sent + self.config.act_for(),
                })
            }
        }
    }

    /// Writes `spec` on the version last seen; creates the Lease if there was none.
    async fn write(&self, spec: LeaseSpec) -> kube::Result<Lease> {
        let spec = Some(spec);
        if let Some(lease) = &self.lease {
            let lease = Lease {
                spec,
                ..lease.clone()
            };
            self.api
                .replace(&self.config.name, &PostParams::default(), &lease)
                .await
        } else {
            let metadata = ObjectMeta {
                name: Some(self.config.name.clone()),
                ..ObjectMeta::default()
            };
            self.api
                .create(&PostParams::default(), &Lease { metadata, spec })
                .await
        }
    }

    fn remember(&mut self, lease: Option<Lease>) {
        let now = Instant::now();
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        self.seen = spec.map(|spec| Sighting::observe(self.seen.take(), spec, now));
        self.lease = lease;
        self.fresh = true;
    }

    /// Clears the holder, if that is still us; a write of ours that was cut short may have to be read first.
    async fn release(&mut self) -> Result<(), ReleaseError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match tokio::time::timeout_at(deadline, self.try_release()).await {
                Err(_elapsed) => return Err(ReleaseError::TimedOut),
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if is_lost_race(&error) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    async fn try_release(&mut self) -> kube::Result<()> {
        let lease = self.api.get_opt(&self.config.name).await?;
        self.remember(lease);
        match &self.seen {
            Some(seen) if seen.spec.holder_identity.as_ref() == Some(&self.config.identity) => {
                self.write(decision::released(seen.spec.clone(), Timestamp::now()))
                    .await?;
                tracing::info!("lease released");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether somebody else wrote first: the version is no longer the one that was read, or the Lease exists by now.
fn is_lost_race(error: &kube::Error) -> bool {
    is_conflict(error) || matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

enum Attempt {
    Holding { until: Instant },
    Yielding { until: Instant },
    Lost { holder: String },
}

#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    #[error("no answer in time")]
    TimedOut,
    #[error("{}", explain(.0))]
    Refused(#[from] kube::Error),
}

#[cfg(test)]
mod tests;
