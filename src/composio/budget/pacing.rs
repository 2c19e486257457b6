//! Computes when the next call may be sent: arithmetic over a state and the time, without clocks or locks.
//!
//! Composio counts the requests of an organization in fixed windows whose phase is not published. Two rules together keep
//! us below the limit:
//!
//! - Our own calls follow a token bucket (in its form without a timer, GCRA) whose size plus refill per window stays
//!   below the limit. Then *every* span of one window's length holds fewer calls than the limit, whatever its phase.
//! - What the `Remaining` header says is counted down with every call of ours. When it shows that somebody else spends
//!   from the same limit, what remains is spread over the time until the window must have ended.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Priority;

/// Time since the budget was made.
pub(super) type At = Duration;

/// Share of the limit, in percent, that is never used: answers overtake each other on the network, so that the server
/// may see calls closer together than we sent them.
const RESERVE: u64 = 4;
/// The part of [`RESERVE`] that no call may touch by the server's own count; the rest is slack for a window that began
/// a little earlier than the answer that showed it.
const FLOOR: u64 = 2;
/// Share of the usable limit, in percent, that may go out at once.
const BURST: u64 = 10;
/// Calls that may go out at once before the first answer or after a refusal: a process that was just restarted does not
/// know how much of the window the process before it has used. The first count of the server shows it.
const COLD_START: u64 = 10;
/// Waiting time after a 429 that does not name one.
const DEFAULT_REFUSAL: Duration = Duration::from_secs(10);
/// Longest waiting time that is respected: a mistake of the server must not stop all calls for a day.
const LONGEST_REFUSAL: Duration = Duration::from_mins(15);

impl Priority {
    /// Share of the limit, in percent, that calls of this priority leave to more urgent ones.
    fn reserved_percent(self) -> u64 {
        match self {
            Self::Interactive => 0,
            Self::Pending => 5,
            Self::Identity => 10,
            Self::Background => 25,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What an answer says about the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateHeaders {
    /// `X-RateLimit`: calls per window.
    pub limit: Option<u64>,
    /// `X-RateLimit-Remaining`: calls left in the current window.
    pub remaining: Option<u64>,
    /// `X-RateLimit-Window-Size`: length of the window.
    pub window: Option<Duration>,
}

/// The moment of a call, for comparing answers that overtook each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Calls sent before this one.
    pub number: u64,
    /// When it was sent.
    pub at: At,
}

/// What is known about the server's current window.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    /// Calls that are certainly left if nobody else calls: the lowest count seen, less what was sent since.
    remaining: u64,
    /// The lowest count seen in this window.
    lowest: u64,
    /// When the answer with that count arrived.
    lowest_at: At,
    /// The window has ended by then, whatever its phase.
    ends_by: At,
}

/// State of one budget.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    limit: u64,
    window: Duration,
    /// Theoretical arrival time: the bucket is full again then.
    full_at: At,
    /// No call may be sent before.
    closed_until: At,
    /// Last call of this priority or a less urgent one, by priority.
    last: [Option<At>; 4],
    /// Calls sent so far.
    sent: u64,
    /// Neither a count nor a refusal has arrived from the server yet.
    before_first_answer: bool,
    view: Option<View>,
}

impl Pacer {
    pub(super) fn new(limit: u64, window: Duration) -> Self {
        let mut pacer = Self {
            limit: limit.max(1),
            window: window.max(Duration::from_secs(1)),
            full_at: At::ZERO,
            closed_until: At::ZERO,
            last: [None; 4],
            sent: 0,
            before_first_answer: true,
            view: None,
        };
        pacer.start_cold(At::ZERO);
        pacer
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Calls left in the server's current window, as far as that is known.
    pub(super) fn remaining(&self, now: At) -> Option<u64> {
        self.current(now).map(|view| view.remaining)
    }

    /// When a refusal ends, if one is in force.
    pub(super) fn closed_until(&self, now: At) -> Option<At> {
        (self.closed_until > now).then_some(self.closed_until)
    }

    /// Time between two calls at the sustained rate.
    pub(super) fn interval(&self) -> Duration {
        // Rounded up: a nanosecond less would let one call too many into a long window.
        let nanos = self.window.as_nanos().div_ceil(u128::from(self.rate()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Earliest time for one call of this priority; the past or `now` means that it may be sent.
    pub(super) fn earliest(&self, now: At, class: Priority) -> At {
        let tokens = times(self.interval(), self.tokens(class));
        let by_bucket = (self.full_at + self.interval()).saturating_sub(tokens);
        by_bucket.max(self.closed_until).max(self.by_server(now, class))
    }

    /// Calls that may be sent at once with this priority: the bucket without the share of more urgent calls.
    fn tokens(&self, class: Priority) -> u64 {
        let burst = self.burst();
        // The share is taken of what may be sent now; the first answer tells how much more that is.
        let shared = if self.before_first_answer && self.sent < COLD_START {
            burst.min(COLD_START)
        } else {
            burst
        };
        burst - shared * class.reserved_percent() / 100
    }

    /// Earliest time by the server's count.
    fn by_server(&self, now: At, class: Priority) -> At {
        let Some(view) = self.current(now) else {
            return At::ZERO;
        };
        let kept = self.limit * (FLOOR + class.reserved_percent()) / 100;
        let left = view.remaining.saturating_sub(kept);
        if left == 0 {
            return view.ends_by;
        }
        let until_end = view.ends_by.saturating_sub(now);
        // What would be left by now if this priority's share were used evenly. A burst may be ahead of that.
        let share = u128::from(self.limit - kept);
        let even = share * until_end.as_nanos() / self.window.as_nanos();
        if u128::from(left + self.tokens(class)) >= even {
            return At::ZERO;
        }
        // Somebody else spends too: spread what is left, counted from the last call of this priority.
        let spacing = until_end / u32::try_from(left).unwrap_or(u32::MAX);
        self.last[class.index()].map_or(At::ZERO, |last| last + spacing)
    }

    fn current(&self, now: At) -> Option<&View> {
        self.view.as_ref().filter(|view| now < view.ends_by)
    }

    /// Records that one call is sent now; the caller has asked [`earliest`](Self::earliest).
    pub(super) fn take(&mut self, now: At, class: Priority) -> Stamp {
        self.full_at = self.full_at.max(now) + self.interval();
        for last in &mut self.last[..=class.index()] {
            *last = Some(now);
        }
        if let Some(view) = &mut self.view {
            view.remaining = view.remaining.saturating_sub(1);
        }
        let stamp = Stamp {
            number: self.sent,
            at: now,
        };
        self.sent += 1;
        stamp
    }

    /// Learns from the headers of the answer to `call`.
    pub(super) fn observe(&mut self, now: At, call: Stamp, headers: RateHeaders) {
        if let Some(limit) = headers.limit.filter(|limit| *limit > 0) {
            self.limit = limit;
        }
        if let Some(window) = headers.window {
            self.window = window.clamp(Duration::from_secs(1), Duration::from_hours(1));
        }
        let Some(counted) = headers.remaining else { return };
        if std::mem::take(&mut self.before_first_answer) {
            // As if the bucket had been full when we began: what others used, the count shows from now on.
            self.full_at = self.full_at.min(now + times(self.interval(), self.sent));
        }
        // The server had not counted calls that were sent after this one.
        let remaining = counted.saturating_sub(self.sent.saturating_sub(call.number + 1));
        let fresh = View {
            remaining,
            lowest: counted,
            lowest_at: now,
            ends_by: now + self.window,
        };
        match self.view.as_mut().filter(|view| now < view.ends_by) {
            None => self.view = Some(fresh),
            // Within a window the count only falls. If a call that was sent after a lower count had arrived reports a
            // higher one, a new window has begun; an answer that was merely overtaken does not show that.
            Some(view) if counted > view.lowest && call.at >= view.lowest_at => *view = fresh,
            Some(view) => {
                view.remaining = view.remaining.min(remaining);
                if counted <= view.lowest {
                    view.lowest = counted;
                    view.lowest_at = now;
                }
            }
        }
    }

    /// Composio answered 429.
    pub(super) fn refuse(&mut self, now: At, retry_after: Option<Duration>) {
        let wait = retry_after.unwrap_or(DEFAULT_REFUSAL).min(LONGEST_REFUSAL);
        self.closed_until = self.closed_until.max(now + wait);
        self.view = None;
        self.before_first_answer = false;
        self.start_cold(self.closed_until);
    }

    /// Leaves only a few tokens in the bucket at that time.
    fn start_cold(&mut self, at: At) {
        let missing = self.burst().saturating_sub(COLD_START);
        self.full_at = self.full_at.max(at + times(self.interval(), missing));
    }

    /// Calls per window that are ever used.
    fn usable(&self) -> u64 {
        (self.limit - (self.limit * RESERVE).div_ceil(100)).max(1)
    }

    /// Size of the bucket.
    fn burst(&self) -> u64 {
        (self.usable() * BURST / 100).max(1)
    }

    /// Refill per window.
    fn rate(&self) -> u64 {
        self.usable().saturating_sub(self.burst()).max(1)
    }
}

fn times(interval: Duration, count: u64) -> Duration {
    interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
