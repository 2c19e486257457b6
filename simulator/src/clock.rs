//! The simulator's time: the system clock or a fixed start, plus everything it was advanced by.
//!
//! Every rule that depends on time (a link's ten minutes, the rate-limit window, auto-consent) reads this clock, so a
//! test moves hours in one call and never sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A handle on the simulator's time. Clones share the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: the system clock runs underneath.
    fixed: Option<Timestamp>,
    offset_millis: AtomicI64,
    advanced: watch::Sender<()>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's time, which [`Clock::advance`] puts ahead.
    pub(crate) fn system() -> Self {
        Self::new(None)
    }

    /// Time stands still at `start` and moves by [`Clock::advance`] alone.
    pub fn manual(start: Timestamp) -> Self {
        Self::new(Some(start))
    }

    fn new(fixed: Option<Timestamp>) -> Self {
        Self(Arc::new(Inner {
            fixed,
            offset_millis: AtomicI64::new(0),
            advanced: watch::Sender::new(()),
        }))
    }

    /// The time now, in whole milliseconds, which is the precision of the API.
    pub fn now(&self) -> Timestamp {
        let base = self.0.fixed.unwrap_or_else(Timestamp::now);
        let at = base.saturating_add(self.offset()).unwrap_or(Timestamp::MAX);
        Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
    }

    /// Moves the time ahead and wakes whatever waits for it.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        // The closure never declines, so the update cannot fail.
        let _ = self
            .0
            .offset_millis
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |offset| {
                Some(offset.saturating_add(millis))
            });
        self.0.advanced.send_replace(());
    }

    /// How far this clock was advanced so far.
    pub(crate) fn offset(&self) -> SignedDuration {
        SignedDuration::from_millis(self.0.offset_millis.load(Ordering::SeqCst))
    }

    /// Whether time moves by [`Clock::advance`] alone.
    pub(crate) fn is_manual(&self) -> bool {
        self.0.fixed.is_some()
    }

    /// Returns once the time is `at` or later.
    pub(crate) async fn sleep_until(&self, at: Timestamp) {
        let mut advanced = self.0.advanced.subscribe();
        loop {
            let remaining = at.duration_since(self.now());
            if !remaining.is_positive() {
                return;
            }
            let tick = async {
                if self.is_manual() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(remaining.unsigned_abs()).await;
            };
            tokio::select! {
                () = tick => {}
                // The sender lives in `self`, so the channel cannot close while this waits.
                _ = advanced.changed() => {}
            }
        }
    }
}

/// ISO 8601 in UTC with milliseconds, as Composio writes every time.
pub(crate) fn iso(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
