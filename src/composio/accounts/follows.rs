//! Who follows which account, and what is known about it. Plain data: methods take the time as an argument and return
//! the owners to wake.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Entry, InFlight};
use super::schedule::{Id, Limits, Next, Schedule, Slot};
use super::{AccountState, Polled};
use crate::composio::{Error, Priority};

/// Shortest and longest time between two polls of an account. Shorter would be a busy loop; longer would no longer be
/// following.
pub(super) const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(24)];

/// Result of polling one account.
#[derive(Debug)]
pub(super) enum Outcome {
    Read(AccountState),
    Failed {
        error: Error,
        /// When to try again, where that is known.
        retry_in: Option<Duration>,
        /// Share of the pause to wait, in `0.75..=1.0`, the same for a whole batch so that it stays together.
        jitter: f64,
    },
}

/// One account of a batch.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub id: Id,
    /// The list endpoint refuses this id, so that only a GET can read it.
    pub get_only: bool,
    /// A GET has said that it does not exist. Deletion is final, so that its absence from a list confirms this.
    pub not_found: bool,
}

/// Accounts to poll now.
#[derive(Debug)]
pub(super) struct Batch {
    /// Number of this batch: its results are newer than everything with a lower number.
    pub generation: u64,
    pub priority: Priority,
    pub targets: Vec<Target>,
}

/// What the polling task has to do.
#[derive(Debug)]
pub(super) enum Step {
    Poll(Batch),
    WaitUntil(Instant),
    Wait,
}

struct Follow {
    id: Id,
    interval: Duration,
    priority: Priority,
}

/// All followers and the accounts that they follow.
pub(super) struct Follows<O> {
    limits: Limits,
    most_in_flight: usize,
    by_owner: HashMap<O, Follow>,
    /// Boxed, because a hash table keeps up to half of its slots empty.
    entries: HashMap<Id, Box<Entry<O>>>,
    schedule: Schedule,
    /// Number of the newest batch or mutation.
    generation: u64,
    in_flight: usize,
}

impl<O: Clone + Eq + Hash> Follows<O> {
    pub(super) fn new(limits: Limits, most_in_flight: usize) -> Self {
        Self {
            limits,
            most_in_flight: most_in_flight.max(1),
            by_owner: HashMap::new(),
            entries: HashMap::new(),
            schedule: Schedule::default(),
            generation: 0,
            in_flight: 0,
        }
    }

    pub(super) fn followers(&self) -> usize {
        self.by_owner.len()
    }

    /// Nobody follows and nothing is remembered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_owner.is_empty() && self.entries.is_empty() && self.schedule.is_empty()
    }

    pub(super) fn follow(
        &mut self,
        now: Instant,
        owner: &O,
        id: &str,
        interval: Duration,
        priority: Priority,
    ) -> Polled {
        let interval = interval.clamp(INTERVALS[0], INTERVALS[1]);
        match self.by_owner.get_mut(owner) {
            Some(follow) if *follow.id == *id => {
                if (follow.interval, follow.priority) != (interval, priority) {
                    (follow.interval, follow.priority) = (interval, priority);
                    let id = Id::clone(&follow.id);
                    self.recompute(&id);
                }
            }
            other => {
                if other.is_some() {
                    self.unfollow(owner);
                }
                // The existing key is shared, so that each id is kept in memory once.
                let id = self
                    .entries
                    .get_key_value(id)
                    .map_or_else(|| Id::from(id), |(id, _)| Id::clone(id));
                let entry = self
                    .entries
                    .entry(Id::clone(&id))
                    .or_insert_with(|| Box::new(Entry::new(now)));
                entry.owners.push(owner.clone());
                let follow = Follow {
                    id: Id::clone(&id),
                    interval,
                    priority,
                };
                self.by_owner.insert(owner.clone(), follow);
                self.recompute(&id);
            }
        }
        self.entries
            .get(id)
            .map_or_else(Polled::default, |entry| entry.polled(now))
    }

    pub(super) fn retain_followers(&mut self, keep: impl Fn(&O) -> bool) {
        let dropped: Vec<O> = self
            .by_owner
            .keys()
            .filter(|owner| !keep(owner))
            .cloned()
            .collect();
        for owner in dropped {
            self.unfollow(&owner);
        }
    }

    pub(super) fn unfollow(&mut self, owner: &O) {
        let Some(Follow { id, .. }) = self.by_owner.remove(owner) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.owners.retain(|other| other != owner);
        if entry.owners.is_empty() {
            if let Some((class, slot)) = entry.slot.take() {
                self.schedule.remove(class, &slot);
            }
            self.entries.remove(&id);
        } else {
            self.recompute(&id);
        }
    }

    /// Records what the answer to a mutation says. Results of polls that began before it are disregarded.
    pub(super) fn changed(&mut self, now: Instant, id: &str, state: AccountState) -> Vec<O> {
        self.generation += 1;
        let generation = self.generation;
        let Some((id, _)) = self.entries.get_key_value(id) else {
            return Vec::new();
        };
        let id = Id::clone(id);
        let Some(entry) = self.entries.get_mut(&id) else {
            return Vec::new();
        };
        entry.min_generation = generation;
        let woken = entry.remember(generation, now, state);
        self.reschedule(&id);
        woken
    }

    /// Makes every account whose polls fail due now.
    pub(super) fn retry_now(&mut self, now: Instant) {
        let failing: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.failure_run.is_some())
            .map(|(id, _)| Id::clone(id))
            .collect();
        for id in failing {
            if let Some(failure_run) = self
                .entries
                .get_mut(&id)
                .and_then(|entry| entry.failure_run.as_mut())
            {
                failure_run.retry_at = failure_run.retry_at.min(now);
            }
            self.reschedule(&id);
        }
    }

    /// Decides what to do now; a batch that it returns is under way from then on.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        let (in_flight, most) = (self.in_flight, self.most_in_flight);
        // The last places stay free for urgent polls, which would otherwise wait behind slow background ones.
        let open = |class| {
            let places = match class {
                Priority::Interactive => most,
                Priority::Pending | Priority::Renewal | Priority::Identity => (most - 1).max(1),
                Priority::Background => (most / 2).max(1),
            };
            in_flight < places
        };
        match self.schedule.next(now, self.limits, open) {
            Next::Idle => Step::Wait,
            Next::At(at) => Step::WaitUntil(at),
            Next::Take(priority, ids) => {
                self.generation += 1;
                self.in_flight += 1;
                let generation = self.generation;
                let targets = ids.into_iter().filter_map(|id| self.start(id, now)).collect();
                Step::Poll(Batch {
                    generation,
                    priority,
                    targets,
                })
            }
        }
    }

    fn start(&mut self, id: Id, now: Instant) -> Option<Target> {
        let entry = self.entries.get_mut(&id)?;
        if let Some((class, slot)) = entry.slot.take() {
            self.schedule.remove(class, &slot);
        }
        entry.in_flight = Some(InFlight {
            generation: self.generation,
            started: now,
        });
        let not_found = entry.state == Some(AccountState::NotFound) && entry.repoll_at.is_none();
        Some(Target {
            id,
            get_only: entry.get_only,
            not_found,
        })
    }

    /// A batch no longer occupies its place.
    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The list endpoint refuses this id: a GET reads it from now on.
    pub(super) fn set_get_only(&mut self, id: &Id) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.get_only = true;
        }
    }

    /// Whether that batch has not reported a result for this account yet.
    pub(super) fn awaits(&self, generation: u64, id: &Id) -> bool {
        self.entries
            .get(id)
            .and_then(|entry| entry.in_flight)
            .is_some_and(|poll| poll.generation == generation)
    }

    /// Records the result of a poll; returns the owners to wake.
    pub(super) fn settle(&mut self, now: Instant, generation: u64, id: &Id, outcome: Outcome) -> Vec<O> {
        let Some(entry) = self.entries.get_mut(id) else {
            return Vec::new();
        };
        let in_flight = entry.in_flight.take_if(|poll| poll.generation == generation);
        let Some(in_flight) = in_flight else {
            return Vec::new();
        };
        let woken = match outcome {
            Outcome::Read(_) if generation < entry.min_generation => {
                entry.repoll_at.get_or_insert(now);
                Vec::new()
            }
            Outcome::Read(state) => entry.remember(generation, in_flight.started, state),
            Outcome::Failed {
                error,
                retry_in,
                jitter,
            } => {
                entry.repoll_at = None;
                if entry.fail(now, error, retry_in, jitter) {
                    entry.owners.clone()
                } else {
                    Vec::new()
                }
            }
        };
        self.reschedule(id);
        woken
    }

    /// Derives interval and priority of an account from its owners.
    fn recompute(&mut self, id: &Id) {
        if let Some(entry) = self.entries.get_mut(id) {
            let follows = || entry.owners.iter().filter_map(|owner| self.by_owner.get(owner));
            entry.interval = follows()
                .map(|follow| follow.interval)
                .min()
                .unwrap_or(INTERVALS[1]);
            entry.priority = follows()
                .map(|follow| follow.priority)
                .min()
                .unwrap_or(Priority::Background);
            self.reschedule(id);
        }
    }

    /// Schedules an account for its due time, unless a poll of it is under way.
    fn reschedule(&mut self, id: &Id) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if let Some((class, slot)) = entry.slot.take() {
            self.schedule.remove(class, &slot);
        }
        if entry.in_flight.is_none() {
            let slot = Slot {
                due: entry.due(),
                id: Id::clone(id),
                early_by: entry.early_by(),
            };
            self.schedule.insert(entry.priority, slot.clone());
            entry.slot = Some((entry.priority, slot));
        }
    }
}
