//! Which accounts are polled next: those that are due, together with those that will be due soon.

use std::array;
use std::collections::{BTreeSet, btree_set};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use strum::VariantArray;
use tokio::time::Instant;

use crate::composio::Priority;
use crate::composio::budget::CLASSES;

/// Id of an account, shared by all who mention it.
pub(super) type Id = Arc<str>;

/// Slots that are examined for each free place of a batch: enough to fill most batches, and bounded.
const SEARCH: usize = 10;

/// One account that waits for its next poll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// When the account is due.
    pub due: Instant,
    pub id: Id,
    /// How much earlier it may be polled together with others: half its interval, so that accounts of one interval
    /// gather in full batches, and no account is polled more than twice as often as asked for.
    pub early_by: Duration,
}

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long the first account that is due waits for others.
    pub window: Duration,
    /// Most accounts of one batch.
    pub batch: usize,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Poll these, with the priority of the most urgent account among those that are due.
    Take(Priority, Vec<Id>),
    /// Nothing before that time, unless something changes.
    At(Instant),
    /// Nothing, unless something changes.
    Idle,
}

/// Everything that waits, by priority and time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    classes: [BTreeSet<Slot>; CLASSES],
}

impl Schedule {
    pub(super) fn insert(&mut self, class: Priority, slot: Slot) {
        self.classes[class as usize].insert(slot);
    }

    pub(super) fn remove(&mut self, class: Priority, slot: &Slot) {
        self.classes[class as usize].remove(slot);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(BTreeSet::is_empty)
    }

    /// Decides without taking anything out. `open` says whether a batch of a priority may be started now.
    pub(super) fn next(&self, now: Instant, limits: Limits, open: impl Fn(Priority) -> bool) -> Next {
        let classes = || Priority::VARIANTS.iter().copied().filter(|class| open(*class));
        let Some(first) = classes().filter_map(|class| self.first_due(class)).min() else {
            return Next::Idle;
        };
        let due: Vec<(Priority, &Slot)> = classes()
            .flat_map(|class| {
                self.classes[class as usize]
                    .iter()
                    .map(move |slot| (class, slot))
                    .take_while(|(_, slot)| slot.due <= now)
            })
            .take(limits.batch)
            .collect();
        let ready = first + limits.window;
        let Some((class, _)) = due.first().filter(|_| due.len() >= limits.batch || now >= ready) else {
            return Next::At(ready);
        };
        let mut ids: Vec<Id> = due.iter().map(|(_, slot)| Arc::clone(&slot.id)).collect();
        self.fill(now, limits.batch, &mut ids);
        Next::Take(*class, ids)
    }

    fn first_due(&self, class: Priority) -> Option<Instant> {
        self.classes[class as usize].first().map(|slot| slot.due)
    }

    /// Adds what will be due soon, the soonest first. These need no request of their own, so that their priority does not
    /// matter.
    fn fill(&self, now: Instant, batch: usize, ids: &mut Vec<Id>) {
        let free = batch - ids.len();
        let soon = Soonest {
            classes: array::from_fn(|class| self.classes[class].range(later_than(now)..).peekable()),
        };
        let early = soon
            .take(free * SEARCH)
            .filter(|slot| slot.due - now <= slot.early_by)
            .take(free);
        ids.extend(early.map(|slot| Arc::clone(&slot.id)));
    }
}

/// The lower bound of everything that is not due yet.
fn later_than(now: Instant) -> Slot {
    Slot {
        due: now + Duration::from_nanos(1),
        id: Arc::from(""),
        early_by: Duration::ZERO,
    }
}

/// The slots of all priorities in order of time.
struct Soonest<'a> {
    classes: [Peekable<btree_set::Range<'a, Slot>>; CLASSES],
}

impl<'a> Iterator for Soonest<'a> {
    type Item = &'a Slot;

    fn next(&mut self) -> Option<&'a Slot> {
        let heads = self.classes.iter_mut().enumerate();
        let (class, _) = heads
            .filter_map(|(class, slots)| Some((class, slots.peek()?.due)))
            .min_by_key(|(_, due)| *due)?;
        self.classes[class].next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        window: Duration::from_millis(50),
        batch: 3,
    };

    fn schedule(base: Instant, slots: &[(Priority, u64, &str, u64)]) -> Schedule {
        let mut schedule = Schedule::default();
        for (class, due, id, reach) in slots {
            let slot = Slot {
                due: base + Duration::from_millis(*due),
                id: Arc::from(*id),
                early_by: Duration::from_millis(*reach),
            };
            schedule.insert(*class, slot);
        }
        schedule
    }

    fn taken(next: Next) -> (Priority, Vec<String>) {
        let Next::Take(class, ids) = next else {
            panic!("{next:?}")
        };
        (class, ids.iter().map(ToString::to_string).collect())
    }

    fn at(base: Instant, millis: u64) -> Instant {
        base + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_that_is_due_waits_a_moment_for_others() {
        let base = Instant::now();
        let waiting = schedule(
            base,
            &[(Priority::Pending, 100, "a", 0), (Priority::Pending, 120, "b", 0)],
        );
        assert_eq!(
            waiting.next(at(base, 100), LIMITS, |_| true),
            Next::At(at(base, 150))
        );
        let (_, ids) = taken(waiting.next(at(base, 150), LIMITS, |_| true));
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(Schedule::default().next(base, LIMITS, |_| true), Next::Idle);
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let base = Instant::now();
        let all = [
            (Priority::Pending, 0, "a", 0),
            (Priority::Pending, 1, "b", 0),
            (Priority::Pending, 2, "c", 0),
        ];
        let (_, ids) = taken(schedule(base, &all).next(at(base, 2), LIMITS, |_| true));
        assert_eq!(ids, ["a", "b", "c"]);
    }

    #[test]
    fn urgent_ones_go_first_and_give_the_batch_its_class() {
        let base = Instant::now();
        let mixed = schedule(
            base,
            &[
                (Priority::Background, 0, "old", 0),
                (Priority::Background, 1, "older", 0),
                (Priority::Pending, 5, "p1", 0),
                (Priority::Interactive, 9, "i1", 0),
            ],
        );
        let (class, ids) = taken(mixed.next(at(base, 60), LIMITS, |_| true));
        assert_eq!(
            (class, ids),
            (
                Priority::Interactive,
                vec!["i1".into(), "p1".into(), "old".into()]
            )
        );
    }

    #[test]
    fn a_closed_class_does_not_start_a_batch_but_may_ride_along() {
        let base = Instant::now();
        let mixed = schedule(
            base,
            &[
                (Priority::Background, 0, "b", 1000),
                (Priority::Pending, 500, "p", 0),
                (Priority::Background, 560, "c", 5),
            ],
        );
        let urgent_only = |class| class == Priority::Pending;
        assert_eq!(
            mixed.next(at(base, 400), LIMITS, urgent_only),
            Next::At(at(base, 550))
        );
        let (class, ids) = taken(mixed.next(at(base, 555), LIMITS, urgent_only));
        assert_eq!((class, ids), (Priority::Pending, vec!["p".into(), "c".into()]));
        assert_eq!(mixed.next(at(base, 555), LIMITS, |_| false), Next::Idle);
    }

    #[test]
    fn free_places_go_to_those_due_within_half_their_interval() {
        let base = Instant::now();
        let mixed = schedule(
            base,
            &[
                (Priority::Pending, 0, "due", 2000),
                (Priority::Pending, 1500, "too early", 1000),
                (Priority::Background, 1400, "soon", 60_000),
                (Priority::Identity, 1300, "sooner", 60_000),
                (Priority::Pending, 1600, "no place", 2000),
            ],
        );
        let (_, ids) = taken(mixed.next(at(base, 50), LIMITS, |_| true));
        assert_eq!(ids, ["due", "sooner", "soon"]);
    }
}
