//! What is known about one followed account, and when failing polls of it are reported.

use std::time::Duration;

use tokio::time::Instant;

use super::follows::INTERVALS;
use super::schedule::Slot;
use super::{AccountState, PollFailure, Polled};
use crate::composio::{Error, Priority};

/// First pause after a failure; it doubles from there.
const FIRST_RETRY: Duration = Duration::from_secs(4);
/// Longest pause after a failure, where the error does not ask for a longer one.
const LAST_RETRY: Duration = Duration::from_mins(1);
/// A failure that may pass by itself is reported after this many in a row ...
const REPORT_AFTER_FAILURES: u32 = 3;
/// ... or after this long.
const REPORT_AFTER: Duration = Duration::from_secs(30);

/// One account that is followed.
pub(super) struct Entry<O> {
    /// Rarely more than one: several objects may adopt the same account.
    pub owners: Vec<O>,
    pub interval: Duration,
    pub priority: Priority,
    pub since: Instant,
    pub slot: Option<(Priority, Slot)>,
    /// The poll under way.
    pub in_flight: Option<InFlight>,
    /// When the newest successful poll began.
    pub polled_at: Option<Instant>,
    pub generation: u64,
    pub state: Option<AccountState>,
    /// The last poll began before one of our mutations, so that another one is due at this time.
    pub repoll_at: Option<Instant>,
    /// Results of older polls are out of date: they began before one of our mutations.
    pub min_generation: u64,
    /// The list endpoint refuses this id, so that only a GET can read it.
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
    pub reported: bool,
}

impl<O> Entry<O> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            owners: Vec::new(),
            interval: INTERVALS[1],
            priority: Priority::Background,
            since: now,
            slot: None,
            in_flight: None,
            polled_at: None,
            generation: 0,
            state: None,
            repoll_at: None,
            min_generation: 0,
            get_only: false,
            failure_run: None,
        }
    }

    pub(super) fn due(&self) -> Instant {
        match (self.repoll_at, &self.failure_run, self.polled_at) {
            (Some(at), _, _) => at,
            (None, Some(failure_run), _) => failure_run.retry_at,
            (None, None, Some(polled_at)) => polled_at + self.interval,
            (None, None, None) => self.since,
        }
    }

    /// How much earlier than due it may be polled together with others. While polls fail, the pause is kept.
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
            .filter(|run| run.reported)
            .map(|run| PollFailure {
                error: run.error.clone(),
                failures: run.failures,
                retry_in: run.retry_at.saturating_duration_since(now),
            });
        Polled {
            state: self.state.clone(),
            polled_at: self.polled_at,
            generation: self.generation,
            failure,
        }
    }

    /// Records what is now known; returns the owners to wake.
    pub(super) fn remember(&mut self, generation: u64, polled_at: Instant, state: AccountState) -> Vec<O>
    where
        O: Clone,
    {
        let old = self.state.as_ref();
        let is_news = old.is_none_or(|old| !old.same_for_followers(&state));
        let recovered = self.failure_run.take().is_some_and(|run| run.reported);
        self.state = Some(state);
        self.generation = generation;
        self.polled_at = Some(polled_at);
        self.repoll_at = None;
        if is_news || recovered {
            self.owners.clone()
        } else {
            Vec::new()
        }
    }

    /// Counts a failure; returns whether the owners are to be woken.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        error: Error,
        retry_in: Option<Duration>,
        jitter: f64,
    ) -> bool {
        let interval = self.interval;
        let run = self.failure_run.get_or_insert_with(|| {
            Box::new(FailureRun {
                error: error.clone(),
                failures: 0,
                since: now,
                retry_at: now,
                reported: false,
            })
        });
        run.failures = run.failures.saturating_add(1);
        let pause = backoff(run.failures).mul_f64(jitter);
        run.retry_at = now
            + retry_in.map_or(pause, |wait| {
                if error.is_throttled() {
                    wait
                } else {
                    wait.max(pause)
                }
            });
        let is_reportable = is_reportable(&error, run.failures, now.duration_since(run.since), interval);
        let another_kind = kind(&run.error) != kind(&error);
        run.error = error;
        let report = is_reportable && (!run.reported || another_kind);
        run.reported |= is_reportable;
        report
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LAST_RETRY)
}

/// A failure that somebody must act on is reported at once, one that may pass by itself only if it lasts.
fn is_reportable(error: &Error, failures: u32, lasted: Duration, interval: Duration) -> bool {
    if error.is_throttled() {
        // When the budget is used up, polls are meant to become less frequent.
        lasted >= REPORT_AFTER.max(interval)
    } else if error.is_transient() {
        failures >= REPORT_AFTER_FAILURES || lasted >= REPORT_AFTER
    } else {
        true
    }
}

/// A failure that was reported is reported again when the kind of its error changes.
fn kind(error: &Error) -> &'static str {
    if error.is_transient() {
        "transient"
    } else {
        error.outcome()
    }
}
