//! Composio's rate limit: a fixed window of one minute per organization, as pure arithmetic over the time given.

use jiff::Timestamp;

/// Seconds in a window.
pub(crate) const WINDOW_SECONDS: i64 = 60;

/// The requests of one organization in the current window.
#[derive(Debug)]
pub(crate) struct FixedWindow {
    limit: u32,
    /// Seconds since the epoch, a multiple of the window.
    start: i64,
    used: u32,
}

/// The limiter's decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Set if the request is refused: whole seconds until the window ends, at least one.
    pub(crate) retry_after: Option<u64>,
}

impl FixedWindow {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            start: i64::MIN,
            used: 0,
        }
    }

    /// Counts a request at `now`, or refuses it without counting.
    pub(crate) fn admit(&mut self, now: Timestamp) -> Quota {
        let mut quota = self.peek(now);
        if quota.remaining == 0 {
            let millis_left = (self.start + WINDOW_SECONDS) * 1_000 - now.as_millisecond();
            quota.retry_after = Some(
                u64::try_from(millis_left)
                    .unwrap_or_default()
                    .div_ceil(1_000)
                    .max(1),
            );
        } else {
            self.used += 1;
            quota.remaining -= 1;
        }
        quota
    }

    /// The state at `now`, without counting anything.
    pub(crate) fn peek(&mut self, now: Timestamp) -> Quota {
        let window = now.as_second() - now.as_second().rem_euclid(WINDOW_SECONDS);
        if window != self.start {
            self.start = window;
            self.used = 0;
        }
        Quota {
            limit: self.limit,
            remaining: self.limit.saturating_sub(self.used),
            retry_after: None,
        }
    }
}
