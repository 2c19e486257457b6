//! What is known about one followed account, and when failures to poll it are worth reporting.

use std::time::Duration;

use tokio::time::Instant;

use super::follows::CADENCES;
use super::schedule::Slot;
use super::{AccountState, PollFailure, Polled};
use crate::composio::{Error, Priority};

/// First pause after a failure; it doubles from there.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a failure, where the error does not ask for a longer one.
const LAST_RETRY: Duration = Duration::from_mins(1);
/// A failure that may pass by itself is reported after this many in a row ...
const PATIENCE_COUNT: u32 = 3;
/// ... or after this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// One account that is followed.
pub(super) struct Entry<O> {
    /// Rarely more than one: two objects that adopted the same account.
    pub owners: Vec<O>,
    pub interval: Duration,
    pub priority: Priority,
    pub since: Instant,
    pub slot: Option<(Priority, Slot)>,
    /// The poll under way.
    pub in_flight: Option<InFlight>,
    /// When the newest poll began.
    pub polled_at: Option<Instant>,
    pub generation: u64,
    pub state: Option<AccountState>,
    /// A poll newer than this generation was asked for, at that time.
    pub asked: Option<(u64, Instant)>,
    /// Polls older than this generation are out of date: a mutation of ours has overtaken them.
    pub min_generation: u64,
    pub get_only: bool,
    pub failure_run: Option<Box<FailureRun>>,
}

#[derive(Clone, Copy)]
pub(super) struct InFlight {
    pub generation: u64,
    pub started: Instant,
}

/// Failures in a row.
pub(super) struct FailureRun {
    pub error: Error,
    pub failures: u32,
    pub since: Instant,
    pub retry_at: Instant,
    pub told: bool,
}

impl<O> Entry<O> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            owners: Vec::new(),
            interval: CADENCES[1],
            priority: Priority::Background,
            since: now,
            slot: None,
            in_flight: None,
            polled_at: None,
            generation: 0,
            state: None,
            asked: None,
            min_generation: 0,
            get_only: false,
            failure_run: None,
        }
    }

    pub(super) fn due(&self) -> Instant {
        match (&self.asked, &self.failure_run, self.polled_at) {
            (Some((_, at)), _, _) => *at,
            (None, Some(failure_run), _) => failure_run.retry_at,
            (None, None, Some(polled_at)) => polled_at + self.interval,
            (None, None, None) => self.since,
        }
    }

    /// How much earlier than due it may be polled in company. While polls fail, the pause is the point.
    pub(super) fn early_by(&self) -> Duration {
        if self.failure_run.is_some() {
            Duration::ZERO
        } else {
            self.interval / 2
        }
    }

    pub(super) fn polled(&self, now: Instant) -> Polled {
        let failure = self
            .failure_run
            .as_ref()
            .filter(|failure_run| failure_run.told)
            .map(|failure_run| PollFailure {
                error: failure_run.error.clone(),
                failures: failure_run.failures,
                retry_in: failure_run.retry_at.saturating_duration_since(now),
            });
        Polled {
            state: self.state.clone(),
            polled_at: self.polled_at,
            generation: self.generation,
            failure,
        }
    }

    /// Counts a failure; says whether the owners should hear of it.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        error: Error,
        retry_in: Option<Duration>,
        jitter: f64,
    ) -> bool {
        let interval = self.interval;
        let failure_run = self.failure_run.get_or_insert_with(|| {
            Box::new(FailureRun {
                error: error.clone(),
                failures: 0,
                since: now,
                retry_at: now,
                told: false,
            })
        });
        failure_run.failures = failure_run.failures.saturating_add(1);
        let pause = backoff(failure_run.failures).mul_f64(jitter);
        failure_run.retry_at = now
            + retry_in.map_or(pause, |wait| {
                if error.is_throttled() {
                    wait
                } else {
                    wait.max(pause)
                }
            });
        let worth_telling = worth_telling(
            &error,
            failure_run.failures,
            now.duration_since(failure_run.since),
            interval,
        );
        let another_kind = kind(&failure_run.error) != kind(&error);
        failure_run.error = error;
        let tell = worth_telling && (!failure_run.told || another_kind);
        failure_run.told |= worth_telling;
        tell
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LAST_RETRY)
}

/// A failure that needs somebody's attention is reported at once, one that may reading only if it does not.
fn worth_telling(error: &Error, failures: u32, lasted: Duration, interval: Duration) -> bool {
    if error.is_throttled() {
        // Intervals stretch when the budget is tight; that is how it works, not failure.
        lasted >= PATIENCE.max(interval)
    } else if error.is_transient() {
        failures >= PATIENCE_COUNT || lasted >= PATIENCE
    } else {
        true
    }
}

/// Errors of one kind are one failure.
fn kind(error: &Error) -> &'static str {
    if error.is_transient() {
        "transient"
    } else {
        error.outcome()
    }
}
