//! When the next call may be made: plain arithmetic over a state and the time, without clocks or locks.
//!
//! Composio counts the requests of an organization in fixed windows whose phase is not published. Two rules together keep
//! us below the limit:
//!
//! - Our own calls follow a token bucket (in its form without a timer, GCRA) whose size plus refill per window stays
//!   below the limit. Then *every* span of one window's length holds fewer calls than the limit, whatever its phase.
//! - What the `Remaining` header says is counted down with every call of ours. When it shows that somebody else spends
//!   from the same limit, what remains is spread over the time until the window must have ended.

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
/// know what its predecessor has used of this window.
const COLD_START: u64 = 10;
/// Waiting time after a 429 that does not name one.
const DEFAULT_REFUSAL: Duration = Duration::from_secs(10);
/// Longest waiting time that is believed; a typo on the other side must not stop everything for a day.
const LONGEST_REFUSAL: Duration = Duration::from_secs(15 * 60);

impl Priority {
    /// Share of the limit, in percent, that calls of this class leave to the classes above.
    fn leaves(self) -> u64 {
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
pub struct RateHeaders {
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
    /// Calls made before this one.
    pub number: u64,
    /// When it was made.
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
    /// Nothing may be sent before.
    closed_until: At,
    /// Last call of this class or one below.
    last: [Option<At>; 4],
    made: u64,
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
            made: 0,
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

    pub(super) fn made(&self) -> u64 {
        self.made
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

    /// Earliest time for one call of this class; the past or `now` means that it may be made.
    pub(super) fn earliest(&self, now: At, class: Priority) -> At {
        // A class may use the bucket down to the share that it leaves to those above.
        let burst = self.burst();
        let tokens = burst - burst * class.leaves() / 100;
        let by_bucket = (self.full_at + self.interval()).saturating_sub(times(self.interval(), tokens));
        by_bucket.max(self.closed_until).max(self.by_server(now, class))
    }

    /// What the server's count demands of this class.
    fn by_server(&self, now: At, class: Priority) -> At {
        let Some(view) = self.current(now) else {
            return At::ZERO;
        };
        let left = view
            .remaining
            .saturating_sub(self.limit * (FLOOR + class.leaves()) / 100);
        if left == 0 {
            return view.ends_by;
        }
        let until_end = view.ends_by.saturating_sub(now);
        if times(self.interval(), left) >= until_end {
            return At::ZERO;
        }
        // Not enough for the sustained rate: spread what is left, counted from this class's last call.
        let spacing = until_end / u32::try_from(left).unwrap_or(u32::MAX);
        self.last[class.index()].map_or(At::ZERO, |last| last + spacing)
    }

    fn current(&self, now: At) -> Option<&View> {
        self.view.as_ref().filter(|view| now < view.ends_by)
    }

    /// Makes one call now; the caller has asked [`earliest`](Self::earliest).
    pub(super) fn take(&mut self, now: At, class: Priority) -> Stamp {
        self.full_at = self.full_at.max(now) + self.interval();
        for last in &mut self.last[..=class.index()] {
            *last = Some(now);
        }
        if let Some(view) = &mut self.view {
            view.remaining = view.remaining.saturating_sub(1);
        }
        let stamp = Stamp {
            number: self.made,
            at: now,
        };
        self.made += 1;
        stamp
    }

    /// Learns from the headers of the answer to `call`.
    pub(super) fn observe(&mut self, now: At, call: Stamp, headers: RateHeaders) {
        if let Some(limit) = headers.limit.filter(|limit| *limit > 0) {
            self.limit = limit;
        }
        if let Some(window) = headers.window {
            self.window = window.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        }
        let Some(counted) = headers.remaining else { return };
        // Calls made after this one were not counted by the server when it answered.
        let remaining = counted.saturating_sub(self.made.saturating_sub(call.number + 1));
        let fresh = View {
            remaining,
            lowest: counted,
            lowest_at: now,
            ends_by: now + self.window,
        };
        match self.view.as_mut().filter(|view| now < view.ends_by) {
            None => self.view = Some(fresh),
            // Within a window the count only falls. A call that was made after a lower count had arrived and reports a
            // higher one has crossed into a new window; an answer that was merely overtaken has not.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const CLASSES: [Priority; 4] = [
        Priority::Interactive,
        Priority::Pending,
        Priority::Identity,
        Priority::Background,
    ];

    fn seconds(seconds: u64) -> At {
        At::from_secs(seconds)
    }

    fn headers(limit: u64, remaining: u64) -> RateHeaders {
        RateHeaders {
            limit: Some(limit),
            remaining: Some(remaining),
            window: Some(WINDOW),
        }
    }

    /// Makes as many calls as `class` may between two times.
    fn drain(pacer: &mut Pacer, from: At, until: At, class: Priority) -> Vec<At> {
        let mut made = Vec::new();
        let mut now = from;
        loop {
            now = now.max(pacer.earliest(now, class));
            if now >= until {
                return made;
            }
            pacer.take(now, class);
            made.push(now);
        }
    }

    #[test]
    fn a_new_budget_starts_cold_and_then_keeps_the_sustained_rate() {
        let mut pacer = Pacer::new(2000, WINDOW);
        let at_once = drain(
            &mut pacer,
            At::ZERO,
            Duration::from_nanos(1),
            Priority::Interactive,
        );
        assert_eq!(at_once.len(), 10);
        let rest = drain(&mut pacer, Duration::from_nanos(1), WINDOW, Priority::Interactive);
        assert!((1700..1920).contains(&(at_once.len() + rest.len())));
    }

    #[test]
    fn an_idle_bucket_holds_a_burst_and_leaves_each_class_its_share() {
        let later = seconds(1000);
        let instant = later + Duration::from_nanos(1);
        // usable 1920, so the bucket holds 192
        for (class, expected) in CLASSES.into_iter().zip([192, 183, 173, 144]) {
            let mut pacer = Pacer::new(2000, WINDOW);
            assert_eq!(
                drain(&mut pacer, later, instant, class).len(),
                expected,
                "{class:?}"
            );
        }
    }

    #[test]
    fn a_refusal_closes_the_budget_for_everybody_and_reopens_it_gently() {
        let mut pacer = Pacer::new(2000, WINDOW);
        pacer.refuse(seconds(100), Some(Duration::from_secs(7)));
        for class in CLASSES {
            assert!(pacer.earliest(seconds(100), class) >= seconds(107));
        }
        assert_eq!(pacer.closed_until(seconds(100)), Some(seconds(107)));
        assert_eq!(pacer.closed_until(seconds(107)), None);
        let reopened = drain(
            &mut pacer,
            seconds(107),
            seconds(107) + Duration::from_nanos(1),
            Priority::Interactive,
        );
        assert_eq!(reopened.len(), 10);
        // A shorter refusal that arrives later does not open it earlier.
        pacer.refuse(seconds(200), Some(Duration::from_secs(30)));
        pacer.refuse(seconds(201), Some(Duration::from_secs(1)));
        assert_eq!(pacer.closed_until(seconds(202)), Some(seconds(230)));
        // Absent and absurd waiting times are replaced.
        pacer.refuse(seconds(300), None);
        assert_eq!(pacer.closed_until(seconds(301)), Some(seconds(310)));
        pacer.refuse(seconds(400), Some(Duration::from_secs(1_000_000)));
        assert_eq!(pacer.closed_until(seconds(401)), Some(seconds(1300)));
    }

    #[test]
    fn no_class_takes_what_the_server_keeps_for_those_above() {
        let now = seconds(1000);
        for (class, floor) in CLASSES.into_iter().zip([40, 140, 240, 540]) {
            let mut pacer = Pacer::new(2000, WINDOW);
            let call = pacer.take(now, class);
            pacer.observe(now, call, headers(2000, floor));
            assert_eq!(pacer.earliest(now, class), now + WINDOW, "{class:?}");
            // One more is one call, paced over the rest of the window.
            let mut pacer = Pacer::new(2000, WINDOW);
            let call = pacer.take(now, class);
            pacer.observe(now, call, headers(2000, floor + 1));
            assert_eq!(drain(&mut pacer, now, now + WINDOW, class).len(), 0);
            assert_eq!(pacer.earliest(now, class), now + WINDOW);
        }
    }

    #[test]
    fn what_others_leave_is_spread_until_the_window_must_have_ended() {
        let now = seconds(1000);
        let mut pacer = Pacer::new(2000, WINDOW);
        let call = pacer.take(now, Priority::Pending);
        pacer.observe(now, call, headers(2000, 740));
        let made = drain(&mut pacer, now, now + WINDOW, Priority::Pending);
        assert!((590..=600).contains(&made.len()), "{}", made.len());
        let first_half = made.iter().filter(|at| **at < now + WINDOW / 2).count();
        assert!((280..=320).contains(&first_half), "{first_half}");
    }

    #[test]
    fn a_count_that_rises_after_a_lower_one_arrived_is_a_new_window() {
        let mut pacer = Pacer::new(2000, WINDOW);
        let first = pacer.take(seconds(1000), Priority::Interactive);
        pacer.observe(seconds(1001), first, headers(2000, 45));
        assert_eq!(pacer.remaining(seconds(1001)), Some(45));
        let second = pacer.take(seconds(1002), Priority::Interactive);
        pacer.observe(seconds(1003), second, headers(2000, 1999));
        assert_eq!(pacer.remaining(seconds(1003)), Some(1999));
        assert_eq!(
            pacer.remaining(seconds(1063)),
            None,
            "the window has certainly ended"
        );
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_taken_for_a_new_window() {
        let mut pacer = Pacer::new(2000, WINDOW);
        let slow = pacer.take(seconds(1000), Priority::Interactive);
        let quick = pacer.take(seconds(1001), Priority::Interactive);
        pacer.observe(seconds(1002), quick, headers(2000, 100));
        pacer.observe(seconds(1003), slow, headers(2000, 150));
        assert_eq!(
            pacer.remaining(seconds(1003)),
            Some(100),
            "somebody else made fifty calls in between"
        );
    }

    #[test]
    fn calls_under_way_are_subtracted_from_the_servers_count() {
        let mut pacer = Pacer::new(2000, WINDOW);
        let now = seconds(1000);
        let first = pacer.take(now, Priority::Interactive);
        pacer.take(now, Priority::Interactive);
        pacer.take(now, Priority::Interactive);
        pacer.observe(seconds(1001), first, headers(2000, 500));
        assert_eq!(pacer.remaining(seconds(1001)), Some(498));
    }

    #[test]
    fn the_limit_and_the_window_are_learned_and_nonsense_is_ignored() {
        let mut pacer = Pacer::new(2000, WINDOW);
        let call = pacer.take(seconds(1), Priority::Interactive);
        let learned = RateHeaders {
            limit: Some(10_000),
            remaining: None,
            window: Some(Duration::from_secs(600)),
        };
        pacer.observe(seconds(1), call, learned);
        assert_eq!(
            (pacer.limit(), pacer.window()),
            (10_000, Duration::from_secs(600))
        );
        let nonsense = RateHeaders {
            limit: Some(0),
            remaining: None,
            window: Some(Duration::ZERO),
        };
        pacer.observe(seconds(1), call, nonsense);
        assert_eq!((pacer.limit(), pacer.window()), (10_000, Duration::from_secs(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever arrives when, in whichever class: no span of one window's length holds more than the limit, with
        /// room for calls that were slow on their way.
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            limit in 2_u64..400,
            arrivals in prop::collection::vec((0_u64..400, 0_usize..4), 1..1500),
        ) {
            let mut pacer = Pacer::new(limit, WINDOW);
            let mut now = At::ZERO;
            let mut made: Vec<At> = Vec::new();
            for (gap, class) in arrivals {
                now += Duration::from_millis(gap);
                let at = now.max(pacer.earliest(now, CLASSES[class]));
                // A caller that would have to wait for minutes has given up.
                if at < now + seconds(30) {
                    now = at;
                    pacer.take(now, CLASSES[class]);
                    made.push(now);
                }
            }
            for (index, start) in made.iter().enumerate() {
                let held = made[index..].iter().take_while(|at| **at <= *start + WINDOW).count() as u64;
                prop_assert!(held <= limit, "{held} of {limit} in one window");
            }
        }

        /// A server with fixed windows of unknown phase refuses nothing while we are alone, even if calls and answers
        /// take up to a second each and overtake each other.
        #[test]
        fn a_server_with_any_phase_never_refuses_us(
            phase in 0_u64..60_000,
            delays in prop::collection::vec(0_u64..1_000, 1..40),
            limit in 50_u64..3_000,
            class in 0_usize..4,
        ) {
            enum Event {
                Reaches(Stamp),
                Answers(Stamp, u64),
            }
            let mut pacer = Pacer::new(limit.min(2_000), WINDOW);
            let mut delays = delays.into_iter().cycle().map(Duration::from_millis);
            let mut events: std::collections::BTreeMap<(At, u64, u64), Event> = std::collections::BTreeMap::new();
            let (mut window, mut used, mut count) = (0, 0, 0_u64);
            let mut now = At::ZERO;
            while now < seconds(180) {
                let may_send = now.max(pacer.earliest(now, CLASSES[class]));
                let (event, stamp) = match events.first_entry() {
                    Some(first) if first.key().0 <= may_send => {
                        now = now.max(first.key().0);
                        match first.remove() {
                            Event::Answers(stamp, remaining) => {
                                pacer.observe(now, stamp, headers(limit, remaining));
                                continue;
                            }
                            Event::Reaches(stamp) => {
                                let this = (now + Duration::from_millis(phase)).as_secs() / 60;
                                if this != window {
                                    (window, used) = (this, 0);
                                }
                                used += 1;
                                prop_assert!(used <= limit, "call {used} of {limit}");
                                (Event::Answers(stamp, limit - used), stamp)
                            }
                        }
                    }
                    _ => {
                        now = may_send;
                        let stamp = pacer.take(now, CLASSES[class]);
                        (Event::Reaches(stamp), stamp)
                    }
                };
                count += 1;
                let delay = delays.next().unwrap_or_default();
                events.insert((now + delay, stamp.number, count), event);
            }
        }
    }
}
