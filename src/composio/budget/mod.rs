//! The rate budget of an API key: all calls wait here for their turn, the most urgent first.

mod pacing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use strum::VariantArray;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

pub(crate) use self::pacing::RateHeaders;
use self::pacing::{At, Pacer, Stamp};
use super::Error;

/// How urgent a call is. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum Priority {
    /// A person waits for the answer, for example for a link.
    Interactive,
    /// The status of an account whose link is open.
    Pending,
    /// A link in the place of one that nobody used.
    Renewal,
    /// The question whom a connected account belongs to.
    Identity,
    /// Refresh of what is not expected to change.
    Background,
}

/// How many priorities there are.
pub(super) const CLASSES: usize = Priority::VARIANTS.len();

/// Settings of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BudgetOptions {
    /// Calls per window until an answer reports the limit. Composio's smallest plan allows 2,000 a minute.
    pub limit: u64,
    /// Length of the window until an answer reports it.
    pub window: Duration,
    /// How long a call may wait for its turn before it fails with [`Error::BudgetExhausted`].
    pub patience: Duration,
    /// The same for [`Priority::Interactive`].
    pub interactive_patience: Duration,
}

impl Default for BudgetOptions {
    fn default() -> Self {
        Self {
            limit: 2000,
            window: Duration::from_mins(1),
            patience: Duration::from_secs(5),
            interactive_patience: Duration::from_secs(20),
        }
    }
}

/// The state of a budget, for metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BudgetSnapshot {
    /// Calls per window.
    pub limit: u64,
    /// Length of the window.
    pub window: Duration,
    /// Calls left in the server's current window, as far as that is known.
    pub remaining: Option<u64>,
    /// Calls that wait for their turn.
    pub waiting: usize,
    /// Calls sent so far.
    pub sent: u64,
    /// No call is sent before.
    pub not_before: Option<Instant>,
}

/// Permission to send one request now.
#[derive(Debug)]
#[must_use = "a permit is spent whether it is used or not"]
pub(crate) struct Permit {
    stamp: Stamp,
}

/// The rate budget of one API key. Clones share it.
///
/// Composio's limit belongs to the organization: where several keys of one organization are in use, each budget learns
/// from the headers what the others have left.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Shared>);

struct Shared {
    options: BudgetOptions,
    origin: Instant,
    state: Mutex<State>,
}

struct State {
    pacer: Pacer,
    /// Everyone who waits. Only the first of a priority may take a permit; it wakes the next.
    waiting: BTreeMap<(Priority, u64), Arc<Notify>>,
    next_ticket: u64,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.snapshot()).finish()
    }
}

impl Budget {
    /// A budget that has not seen an answer yet.
    pub(crate) fn new(options: BudgetOptions) -> Self {
        let pacer = Pacer::new(options.limit, options.window);
        let state = State {
            pacer,
            waiting: BTreeMap::new(),
            next_ticket: 0,
        };
        Self(Arc::new(Shared {
            options,
            origin: Instant::now(),
            state: Mutex::new(state),
        }))
    }

    /// Waits for this call's turn: in order of arrival within a priority. Each priority has a share of the limit.
    ///
    /// # Errors
    /// [`Error::BudgetExhausted`] when the turn would not come within the patience for this priority. It is returned as
    /// soon as that is clear, and says when trying again makes sense.
    pub(crate) async fn acquire(&self, priority: Priority) -> Result<Permit, Error> {
        let patience = match priority {
            Priority::Interactive => self.0.options.interactive_patience,
            _ => self.0.options.patience,
        };
        let deadline = Instant::now() + patience;
        let ticket = Ticket::enter(&self.0, priority);
        loop {
            let turn = {
                let mut state = self.0.lock();
                let now = self.0.now();
                // Classes do not wait for each other: each has a share of its own.
                let ahead = state.waiting.range((priority, 0)..ticket.key).count();
                let own = state.pacer.earliest(now, priority);
                if ahead == 0 && own <= now {
                    return Ok(Permit {
                        stamp: state.pacer.take(now, priority),
                    });
                }
                let queue = state
                    .pacer
                    .interval(priority)
                    .saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
                let expected = self.0.instant(own.max(now) + queue);
                if expected > deadline || Instant::now() >= deadline {
                    let retry_after = expected
                        .saturating_duration_since(Instant::now())
                        .max(state.pacer.interval(priority));
                    return Err(Error::BudgetExhausted { retry_after });
                }
                (ahead == 0).then(|| self.0.instant(own))
            };
            // Either it is this ticket's turn at a known time, or the ticket in front of it notifies it when it leaves.
            match turn {
                Some(turn) => tokio::select! {
                    () = sleep_until(turn) => {}
                    () = ticket.woken.notified() => {}
                },
                None => drop(timeout_at(deadline, ticket.woken.notified()).await),
            }
        }
    }

    /// Learns from the headers of the answer to the call that `permit` was for.
    pub(crate) fn observe(&self, permit: &Permit, headers: RateHeaders) {
        let mut state = self.0.lock();
        let now = self.0.now();
        state.pacer.observe(now, permit.stamp, headers);
        state.wake_first();
    }

    /// Composio refused a call with 429: no call is sent before that time has passed, whatever its priority; or none of
    /// one priority, if that has met a limit of its own.
    pub(crate) fn refused(&self, retry_after: Option<Duration>, class: Option<Priority>) {
        let mut state = self.0.lock();
        let now = self.0.now();
        state.pacer.refuse(now, retry_after, class);
        state.wake_first();
    }

    /// Forgets refusals: somebody asks to try at once.
    pub(crate) fn reopen(&self) {
        let mut state = self.0.lock();
        let now = self.0.now();
        state.pacer.reopen(now);
        state.wake_first();
    }

    /// The current state.
    pub(crate) fn snapshot(&self) -> BudgetSnapshot {
        let state = self.0.lock();
        let now = self.0.now();
        BudgetSnapshot {
            limit: state.pacer.limit(),
            window: state.pacer.window(),
            remaining: state.pacer.remaining(now),
            waiting: state.waiting.len(),
            sent: state.pacer.sent(),
            not_before: state.pacer.closed_until(now).map(|at| self.0.instant(at)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> At {
        self.origin.elapsed()
    }

    fn instant(&self, at: At) -> Instant {
        self.origin + at
    }
}

impl State {
    /// Wakes the first of each priority.
    fn wake_first(&self) {
        for &priority in Priority::VARIANTS {
            let mut waiting = self.waiting.range((priority, 0)..=(priority, u64::MAX));
            if let Some((_, first)) = waiting.next() {
                first.notify_one();
            }
        }
    }
}

/// A place in the queue, given up when dropped: a caller may be cancelled at any time.
struct Ticket<'a> {
    shared: &'a Shared,
    key: (Priority, u64),
    woken: Arc<Notify>,
}

impl<'a> Ticket<'a> {
    fn enter(shared: &'a Shared, priority: Priority) -> Self {
        let woken = Arc::new(Notify::new());
        let mut state = shared.lock();
        let key = (priority, state.next_ticket);
        state.next_ticket += 1;
        state.waiting.insert(key, Arc::clone(&woken));
        Self { shared, key, woken }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.waiting.remove(&self.key);
        state.wake_first();
    }
}

impl RateHeaders {
    /// Reads the three headers, each optional.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::trim)
        };
        Self {
            limit: text("x-ratelimit").and_then(|value| value.parse().ok()),
            remaining: text("x-ratelimit-remaining").and_then(|value| value.parse().ok()),
            window: text("x-ratelimit-window-size").and_then(window_size),
        }
    }
}

/// `60s`, `1m`, `60000ms`, or seconds without a unit.
fn window_size(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().ok()?;
    let size = match text[digits..].trim() {
        "ms" => Duration::from_millis(count),
        "" | "s" | "sec" | "second" | "seconds" => Duration::from_secs(count),
        "m" | "min" | "minute" | "minutes" => Duration::from_secs(count.checked_mul(60)?),
        "h" | "hour" | "hours" => Duration::from_secs(count.checked_mul(3600)?),
        _ => return None,
    };
    (!size.is_zero()).then_some(size)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn small(limit: u64) -> Budget {
        Budget::new(BudgetOptions {
            limit,
            ..BudgetOptions::default()
        })
    }

    /// Takes permits until the next one would have to wait.
    async fn exhaust(budget: &Budget) {
        loop {
            let before = Instant::now();
            let _permit = budget.acquire(Priority::Interactive).await.unwrap();
            if Instant::now() > before {
                return;
            }
        }
    }

    /// Found as polls that waited behind the links of a thousand people.
    #[tokio::test(start_paused = true)]
    async fn those_of_a_priority_go_in_order_and_the_others_do_not_wait_for_them() {
        let budget = small(2000);
        let permit = budget.acquire(Priority::Interactive).await.unwrap();
        let untouched = RateHeaders {
            remaining: Some(1999),
            ..RateHeaders::default()
        };
        budget.observe(&permit, untouched);
        for _ in 1..1152 {
            let _permit = budget.acquire(Priority::Interactive).await.unwrap();
        }
        // Their turn comes within their patience.
        tokio::time::advance(Duration::from_secs(50)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut calls = tokio::task::JoinSet::new();
        for name in ["first", "second", "third"] {
            let order = Arc::clone(&order);
            let waiting = budget.snapshot().waiting;
            calls.spawn({
                let budget = budget.clone();
                async move {
                    let _permit = budget.acquire(Priority::Interactive).await.unwrap();
                    order.lock().unwrap().push(name);
                }
            });
            while budget.snapshot().waiting == waiting {
                tokio::task::yield_now().await;
            }
        }
        for priority in [
            Priority::Pending,
            Priority::Renewal,
            Priority::Identity,
            Priority::Background,
        ] {
            let asked = Instant::now();
            let _permit = budget.acquire(priority).await.unwrap();
            assert_eq!(Instant::now(), asked, "{priority:?}");
        }
        calls.join_all().await;
        assert_eq!(*order.lock().unwrap(), ["first", "second", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stops_everyone_and_says_until_when() {
        let budget = small(2000);
        budget.refused(Some(Duration::from_secs(40)), None);
        let asked = Instant::now();
        assert_eq!(
            budget.snapshot().not_before,
            Some(asked + Duration::from_secs(40))
        );
        for priority in Priority::VARIANTS.iter().copied() {
            let error = budget.acquire(priority).await.unwrap_err();
            let Error::BudgetExhausted { retry_after } = error else {
                panic!("{error:?}")
            };
            assert!(retry_after >= Duration::from_secs(40), "{retry_after:?}");
        }
        assert_eq!(Instant::now(), asked, "nobody waits for what cannot come");
        assert_eq!(budget.snapshot().waiting, 0);
        budget.refused(Some(Duration::from_secs(45)), None);
        tokio::time::advance(Duration::from_secs(45)).await;
        assert_eq!(budget.snapshot().not_before, None);
        let _permit = budget.acquire(Priority::Background).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_human_waits_longer_than_a_refresh() {
        let budget = small(2000);
        budget.refused(Some(Duration::from_secs(12)), None);
        let started = Instant::now();
        assert!(matches!(
            budget.acquire(Priority::Pending).await,
            Err(Error::BudgetExhausted { .. })
        ));
        let _permit = budget.acquire(Priority::Interactive).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_turns_callers_away_at_once_with_spread_times() {
        let budget = small(600);
        exhaust(&budget).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..400 {
            let budget = budget.clone();
            calls.spawn(async move { budget.acquire(Priority::Pending).await.map(drop) });
        }
        let answers = calls.join_all().await;
        let refused: Vec<Duration> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().err().and_then(Error::retry_after))
            .collect();
        // 10 a second at most for 5 seconds
        assert!((300..=375).contains(&refused.len()), "{}", refused.len());
        assert!(refused.iter().all(|wait| *wait <= Duration::from_mins(1)));
        assert_eq!(budget.snapshot().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_caller_leaves_no_trace_and_wakes_the_next() {
        let budget = small(2000);
        exhaust(&budget).await;
        let first = tokio::spawn({
            let budget = budget.clone();
            async move { budget.acquire(Priority::Interactive).await.map(drop) }
        });
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.acquire(Priority::Background).await.map(drop) }
        });
        while budget.snapshot().waiting < 2 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        second.await.unwrap().unwrap();
        assert_eq!(budget.snapshot().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_says_shows_in_the_snapshot() {
        let budget = small(2000);
        let permit = budget.acquire(Priority::Interactive).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit", "10000".parse().unwrap());
        headers.insert("x-ratelimit-remaining", "9000".parse().unwrap());
        headers.insert("x-ratelimit-window-size", "60s".parse().unwrap());
        budget.observe(&permit, RateHeaders::read(&headers));
        let snapshot = budget.snapshot();
        assert_eq!(
            (snapshot.limit, snapshot.remaining, snapshot.sent),
            (10_000, Some(9000), 1)
        );
    }

    #[test]
    fn window_sizes_come_with_and_without_units() {
        let table = [
            ("60s", Some(60_000)),
            ("60", Some(60_000)),
            ("1m", Some(60_000)),
            ("1 minute", Some(60_000)),
            ("500ms", Some(500)),
            ("1h", Some(3_600_000)),
            ("0s", None),
            ("", None),
            ("soon", None),
            ("5 parsecs", None),
        ];
        for (text, millis) in table {
            assert_eq!(window_size(text), millis.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(RateHeaders::read(&HeaderMap::new()), RateHeaders::default());
    }
}
