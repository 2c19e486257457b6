//! Computes when the next call may be sent: arithmetic over a state and the time, without clocks or locks.
//!
//! Composio counts the requests of an organization in fixed windows whose phase is not published. These rules together keep
//! us below the limit, and no class of calls from its share:
//!
//! - Our own calls of the last window are counted one by one. *Every* span of one window's length then holds fewer calls
//!   than the limit, whatever its phase, and a burst may use what the window still holds.
//! - Each class of calls has a share that no other class uses; what nobody's share covers goes to whoever comes first.
//! - Only calls for which a person waits go out in bursts. Those of the other classes are spread evenly over the window.
//! - What the `Remaining` header says is counted down with every call of ours. When it shows that somebody else spends
//!   from the same limit, what remains is spread over the time until the window must have ended.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use strum::VariantArray;

use super::{CLASSES, Priority};

/// Time since the budget was made.
pub(super) type At = Duration;

/// Share of the limit, in percent, that is never used: answers overtake each other on the network, so that the server
/// may see calls closer together than we sent them.
const RESERVE: u64 = 4;
/// The part of [`RESERVE`] that no call may touch by the server's own count; the rest is slack for a window that began
/// a little earlier than the answer that showed it.
const FLOOR: u64 = 2;
/// How long after a call was sent the server may count it.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// Share of the usable limit, in percent, that the calls of a class that is spread evenly may be ahead.
const BURST: u64 = 10;
/// Calls that may go out at once before the first answer or after a refusal: a process that was just restarted does not
/// know how much of the window the process before it has used. The first count of the server shows it.
const COLD_START: u64 = 10;
/// Share of the limit, in percent, that somebody else must have used before what remains is spread.
const OTHERS: u64 = 5;
/// Waiting time after a 429 that does not name one.
const DEFAULT_REFUSAL: Duration = Duration::from_secs(10);
/// Longest waiting time that is respected: a mistake of the server must not stop all calls for a day.
const LONGEST_REFUSAL: Duration = Duration::from_mins(15);

impl Priority {
    /// Share of the usable limit, in percent, that no other class uses.
    fn guaranteed_percent(self) -> u64 {
        match self {
            Self::Interactive => 30,
            Self::Pending => 25,
            Self::Renewal | Self::Identity | Self::Background => 5,
        }
    }

    /// Share of the limit, in percent, that calls of this priority leave to more urgent ones while somebody else spends from
    /// the same limit.
    fn reserved_percent(self) -> u64 {
        match self {
            Self::Interactive => 0,
            Self::Pending => 5,
            Self::Renewal | Self::Identity => 10,
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

/// The calls of one class.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    /// Calls in the last window.
    used: u64,
    /// When the class is as far as an even spread: its theoretical arrival time.
    even_at: At,
    /// No call of the class may be sent before.
    closed_until: At,
    /// Last call of this class or a less urgent one.
    last: Option<At>,
}

/// One call of the last window.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: At,
    class: Priority,
    /// Its answer has arrived, so that the server has certainly counted it.
    answered: bool,
}

/// State of one budget.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    limit: u64,
    window: Duration,
    /// The calls of the last window, oldest first.
    log: VecDeque<Sent>,
    classes: [Class; CLASSES],
    /// No call may be sent before.
    closed_until: At,
    /// Calls sent so far.
    sent: u64,
    /// Nothing is known of what a process before this one has used, or why Composio has refused.
    cold: Option<Cold>,
    view: Option<View>,
}

/// Since when nothing is known, and the calls sent since.
#[derive(Clone, Copy, Debug)]
struct Cold {
    since: At,
    sent: u64,
    /// The next count of the server tells enough.
    until_first_count: bool,
}

impl Pacer {
    pub(super) fn new(limit: u64, window: Duration) -> Self {
        Self {
            limit: limit.max(1),
            window: window.max(Duration::from_secs(1)),
            log: VecDeque::new(),
            classes: [Class::default(); CLASSES],
            closed_until: At::ZERO,
            sent: 0,
            cold: Some(Cold {
                since: At::ZERO,
                sent: 0,
                until_first_count: true,
            }),
            view: None,
        }
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

    /// Time between two calls of a class if they are spread evenly over what the other classes leave to it.
    pub(super) fn interval(&self, class: Priority) -> Duration {
        let others: u64 = self.log.len() as u64 - self.classes[class.index()].used;
        let left = self.usable().saturating_sub(others).min(self.most(class));
        let calls = left.max(self.guaranteed(class)).max(1);
        // Rounded up: a nanosecond less would let one call too many into a long window.
        let nanos = self.window.as_nanos().div_ceil(u128::from(calls));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Earliest time for one call of this priority; the past or `now` means that it may be sent.
    pub(super) fn earliest(&mut self, now: At, class: Priority) -> At {
        self.forget_old(now);
        self.closed_until
            .max(self.classes[class.index()].closed_until)
            .max(self.by_count(class))
            .max(self.by_spread(class))
            .max(self.by_start(now))
            .max(self.by_server(now, class))
    }

    fn forget_old(&mut self, now: At) {
        while let Some(oldest) = self.log.front()
            && oldest.at + self.counted_for() < now
        {
            self.classes[oldest.class.index()].used -= 1;
            self.log.pop_front();
        }
        if self
            .cold
            .is_some_and(|cold| cold.since + self.counted_for() < now)
        {
            self.cold = None;
        }
    }

    /// How long a call counts.
    fn counted_for(&self) -> Duration {
        self.window + ON_ITS_WAY
    }

    /// Earliest time by our own count of the last window.
    fn by_count(&self, class: Priority) -> At {
        let mut used: [u64; CLASSES] = self.classes.map(|class| class.used);
        let fits = |used: &[u64; CLASSES]| {
            let total: u64 = used.iter().sum();
            let kept: u64 = others_than(class)
                .map(|other| self.guaranteed(other).saturating_sub(used[other.index()]))
                .sum();
            total < self.usable()
                && (used[class.index()] < self.guaranteed(class) || total + kept < self.usable())
        };
        let mut earliest = At::ZERO;
        for oldest in &self.log {
            if fits(&used) {
                break;
            }
            used[oldest.class.index()] -= 1;
            earliest = oldest.at + self.counted_for() + Duration::from_nanos(1);
        }
        earliest
    }

    /// Earliest time of a class whose calls are spread evenly.
    fn by_spread(&self, class: Priority) -> At {
        if class == Priority::Interactive {
            return At::ZERO;
        }
        let interval = self.interval(class);
        let burst = times(interval, (self.usable() * BURST / 100).max(1));
        (self.classes[class.index()].even_at + interval).saturating_sub(burst)
    }

    /// Earliest time while nothing is known: a few calls at once, then at the sustained rate.
    fn by_start(&self, now: At) -> At {
        let Some(cold) = self.cold.filter(|cold| now >= cold.since) else {
            return At::ZERO;
        };
        let interval = self.window / u32::try_from(self.usable()).unwrap_or(u32::MAX);
        let at_once = COLD_START.min(self.usable());
        match (cold.sent + 1).checked_sub(at_once) {
            None | Some(0) => At::ZERO,
            Some(late) => cold.since + times(interval, late),
        }
    }

    /// Earliest time by the server's count.
    fn by_server(&self, now: At, class: Priority) -> At {
        let Some(view) = self.current(now) else {
            return At::ZERO;
        };
        let by_others = self.limit.saturating_sub(view.remaining + self.log.len() as u64);
        let is_shared = by_others > self.limit * OTHERS / 100;
        let reserved = if is_shared { class.reserved_percent() } else { 0 };
        let kept = self.limit * (FLOOR + reserved) / 100;
        let left = view.remaining.saturating_sub(kept);
        if left == 0 {
            return view.ends_by;
        }
        if class == Priority::Interactive || !is_shared {
            return At::ZERO;
        }
        // What is left is spread, counted from the last call of this priority.
        let until_end = view.ends_by.saturating_sub(now);
        let spacing = until_end / u32::try_from(left).unwrap_or(u32::MAX);
        self.classes[class.index()]
            .last
            .map_or(At::ZERO, |last| last + spacing)
    }

    fn current(&self, now: At) -> Option<&View> {
        self.view.as_ref().filter(|view| now < view.ends_by)
    }

    /// Records that one call is sent now; the caller has asked [`earliest`](Self::earliest).
    pub(super) fn take(&mut self, now: At, class: Priority) -> Stamp {
        let interval = self.interval(class);
        let own = &mut self.classes[class.index()];
        own.used += 1;
        own.even_at = own.even_at.max(now) + interval;
        self.log.push_back(Sent {
            at: now,
            class,
            answered: false,
        });
        for class in &mut self.classes[..=class.index()] {
            class.last = Some(now);
        }
        if let Some(cold) = &mut self.cold {
            cold.sent += 1;
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
        let first = self.sent - self.log.len() as u64;
        let place = call.number.checked_sub(first);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(sent) = place.and_then(|place| self.log.get_mut(place)) {
            sent.answered = true;
        }
        let Some(counted) = headers.remaining else { return };
        // What others used, the count shows from now on.
        self.cold = self.cold.filter(|cold| !cold.until_first_count);
        let remaining = counted.saturating_sub(self.on_their_way(now));
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

    /// Calls that the server may not have counted yet, whether they were sent before or after the one that it answers.
    fn on_their_way(&self, now: At) -> u64 {
        let newest_first = self.log.iter().rev();
        let recent = newest_first.take_while(|sent| sent.at + ON_ITS_WAY >= now);
        recent.filter(|sent| !sent.answered).count() as u64
    }

    /// Composio answered 429. With a class, only that is closed: its endpoint has a limit of its own.
    pub(super) fn refuse(&mut self, now: At, retry_after: Option<Duration>, class: Option<Priority>) {
        let wait = retry_after.unwrap_or(DEFAULT_REFUSAL).min(LONGEST_REFUSAL);
        if let Some(class) = class {
            let closed = &mut self.classes[class.index()].closed_until;
            *closed = (*closed).max(now + wait);
            return;
        }
        self.closed_until = self.closed_until.max(now + wait);
        self.view = None;
        self.cold = Some(Cold {
            since: self.closed_until,
            sent: 0,
            until_first_count: false,
        });
    }

    /// Forgets refusals: somebody asks to try at once.
    pub(super) fn reopen(&mut self, now: At) {
        self.closed_until = self.closed_until.min(now);
        for class in &mut self.classes {
            class.closed_until = class.closed_until.min(now);
        }
        if let Some(cold) = &mut self.cold {
            cold.since = cold.since.min(now);
        }
    }

    /// Calls per window that are ever used.
    fn usable(&self) -> u64 {
        (self.limit - (self.limit * RESERVE).div_ceil(100)).max(1)
    }

    fn guaranteed(&self, class: Priority) -> u64 {
        self.usable() * class.guaranteed_percent() / 100
    }

    /// Most calls of a class in one window, if the others make none.
    fn most(&self, class: Priority) -> u64 {
        let kept: u64 = others_than(class).map(|other| self.guaranteed(other)).sum();
        self.usable() - kept
    }
}

fn others_than(class: Priority) -> impl Iterator<Item = Priority> {
    Priority::VARIANTS
        .iter()
        .copied()
        .filter(move |other| *other != class)
}

fn times(interval: Duration, count: u64) -> Duration {
    interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
