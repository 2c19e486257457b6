//! What is known about one followed account, and when failures to look at it are worth telling.

use std::time::Duration;

use tokio::time::Instant;

use super::book::CADENCES;
use super::schedule::Slot;
use super::{Look, Sight, Trouble};
use crate::composio::{Error, Priority};

/// First pause after a failure; it doubles from there.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a failure, where the error does not ask for a longer one.
const LAST_RETRY: Duration = Duration::from_mins(1);
/// A failure that may pass by itself is told after this many in a row ...
const PATIENCE_COUNT: u32 = 3;
/// ... or after this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// One account that is followed.
pub(super) struct Entry<O> {
    /// Rarely more than one: two objects that adopted the same account.
    pub owners: Vec<O>,
    pub cadence: Duration,
    pub priority: Priority,
    pub since: Instant,
    pub slot: Option<(Priority, Slot)>,
    /// The look under way.
    pub flight: Option<Flight>,
    /// When the newest look began.
    pub looked_at: Option<Instant>,
    pub generation: u64,
    pub sight: Option<Sight>,
    /// A look newer than this generation was asked for, at that time.
    pub asked: Option<(u64, Instant)>,
    /// Looks older than this generation are out of date: a mutation of ours has overtaken them.
    pub floor: u64,
    pub alone: bool,
    pub streak: Option<Box<Streak>>,
}

#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub generation: u64,
    pub started: Instant,
}

/// Failures in a row.
pub(super) struct Streak {
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
            cadence: CADENCES[1],
            priority: Priority::Background,
            since: now,
            slot: None,
            flight: None,
            looked_at: None,
            generation: 0,
            sight: None,
            asked: None,
            floor: 0,
            alone: false,
            streak: None,
        }
    }

    pub(super) fn due(&self) -> Instant {
        match (&self.asked, &self.streak, self.looked_at) {
            (Some((_, at)), _, _) => *at,
            (None, Some(streak), _) => streak.retry_at,
            (None, None, Some(looked_at)) => looked_at + self.cadence,
            (None, None, None) => self.since,
        }
    }

    /// How much earlier than due it may be looked at in company. While looks fail, the pause is the point.
    pub(super) fn reach(&self) -> Duration {
        if self.streak.is_some() {
            Duration::ZERO
        } else {
            self.cadence / 2
        }
    }

    pub(super) fn look(&self, now: Instant) -> Look {
        let trouble = self
            .streak
            .as_ref()
            .filter(|streak| streak.told)
            .map(|streak| Trouble {
                error: streak.error.clone(),
                failures: streak.failures,
                retry_in: streak.retry_at.saturating_duration_since(now),
            });
        Look {
            sight: self.sight.clone(),
            seen_at: self.looked_at,
            generation: self.generation,
            trouble,
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
        let cadence = self.cadence;
        let streak = self.streak.get_or_insert_with(|| {
            Box::new(Streak {
                error: error.clone(),
                failures: 0,
                since: now,
                retry_at: now,
                told: false,
            })
        });
        streak.failures = streak.failures.saturating_add(1);
        let pause = backoff(streak.failures).mul_f64(jitter);
        streak.retry_at = now
            + retry_in.map_or(pause, |wait| {
                if error.is_throttled() {
                    wait
                } else {
                    wait.max(pause)
                }
            });
        let worth_telling = worth_telling(&error, streak.failures, now.duration_since(streak.since), cadence);
        let another_kind = kind(&streak.error) != kind(&error);
        streak.error = error;
        let tell = worth_telling && (!streak.told || another_kind);
        streak.told |= worth_telling;
        tell
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LAST_RETRY)
}

/// A failure that needs somebody's attention is told at once, one that may pass only if it does not.
fn worth_telling(error: &Error, failures: u32, lasted: Duration, cadence: Duration) -> bool {
    if error.is_throttled() {
        // Cadences stretch when the budget is tight; that is how it works, not trouble.
        lasted >= PATIENCE.max(cadence)
    } else if error.is_transient() {
        failures >= PATIENCE_COUNT || lasted >= PATIENCE
    } else {
        true
    }
}

/// Errors of one kind are one trouble.
fn kind(error: &Error) -> &'static str {
    if error.is_transient() {
        "transient"
    } else {
        error.outcome()
    }
}
