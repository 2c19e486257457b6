//! Who follows which account, and what is known about it. Plain data: every method is reported the time, and says whom to
//! wake.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Entry, InFlight};
use super::schedule::{Id, Limits, Next, Schedule, Slot};
use super::{AccountState, Polled};
use crate::composio::{Error, Priority};

/// Shortest and longest time between two polls that can be asked for. Faster is a loop, slower is not following.
pub(super) const CADENCES: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(24)];
/// What a poll brought.
#[derive(Debug)]
pub(super) enum Outcome {
    Seen(AccountState),
    Failed {
        error: Error,
        /// When to try again, where that is known.
        retry_in: Option<Duration>,
        /// Share of the pause to take, in `0.75..=1.0`, the same for a whole batch so that it stays together.
        jitter: f64,
    },
}

/// One account of a batch.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub id: Id,
    /// The list cannot be asked for it.
    pub get_only: bool,
    /// It is known to be gone. Deletion is final, so that its absence from the list confirms it.
    pub gone: bool,
}

/// Accounts to poll now.
#[derive(Debug)]
pub(super) struct Batch {
    /// Number of this batch: what it brings is newer than everything with a lower number.
    pub generation: u64,
    pub priority: Priority,
    pub targets: Vec<Target>,
}

/// What the task has to do.
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
    /// Wants to be woken by the first poll that is newer than this.
    wants_newer_than: Option<u64>,
}

/// Followers, accounts and the schedule.
pub(super) struct Follows<O> {
    limits: Limits,
    most_in_flight: usize,
    by_owner: HashMap<O, Follow>,
    /// Boxed, because a table keeps up to half of its places empty.
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
        let interval = interval.clamp(CADENCES[0], CADENCES[1]);
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
                // The key that is already there is shared, so that an id is held once however many mention it.
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
                    wants_newer_than: None,
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
        let gone: Vec<O> = self
            .by_owner
            .keys()
            .filter(|owner| !keep(owner))
            .cloned()
            .collect();
        for owner in gone {
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

    /// Makes the owner's account due now; returns the generation that the next poll exceeds.
    pub(super) fn refresh(&mut self, now: Instant, owner: &O) -> u64 {
        let generation = self.generation;
        if let Some(follow) = self.by_owner.get_mut(owner) {
            follow.wants_newer_than = Some(generation);
            let id = Id::clone(&follow.id);
            self.ask(now, &id);
        }
        generation
    }

    /// Makes an account due now because somebody outside says that it changed.
    pub(super) fn poll_now(&mut self, now: Instant, id: &str) {
        if let Some((id, _)) = self.entries.get_key_value(id) {
            let id = Id::clone(id);
            self.ask(now, &id);
        }
    }

    fn ask(&mut self, now: Instant, id: &Id) {
        let generation = self.generation;
        if let Some(entry) = self.entries.get_mut(id) {
            let at = entry.asked.map_or(now, |(_, at)| at);
            entry.asked = Some((generation, at));
            self.place(id);
        }
    }

    /// Remembers what a mutation reported, and disregards polls that began before it.
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
        let woken = Self::remember(&mut self.by_owner, entry, generation, now, state);
        self.place(&id);
        woken
    }

    /// Lets everything that failed be tried again now.
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
            self.place(&id);
        }
    }

    /// Decides what to do now; a batch that it returns is under way from then on.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        let (in_flight, most) = (self.in_flight, self.most_in_flight);
        // The last places stay free for the urgent, who would otherwise wait behind slow refreshes.
        let open = |class| {
            let places = match class {
                Priority::Interactive => most,
                Priority::Pending | Priority::Identity => (most - 1).max(1),
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
        let gone = entry.state == Some(AccountState::NotFound) && entry.asked.is_none();
        Some(Target {
            id,
            get_only: entry.get_only,
            gone,
        })
    }

    /// A batch no longer occupies its place.
    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The list refuses this id: it is polled by itself from now on.
    pub(super) fn set_get_only(&mut self, id: &Id) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.get_only = true;
        }
    }

    /// Whether that batch still owes an answer about this account.
    pub(super) fn awaits(&self, generation: u64, id: &Id) -> bool {
        self.entries
            .get(id)
            .and_then(|entry| entry.in_flight)
            .is_some_and(|in_flight| in_flight.generation == generation)
    }

    /// Takes in what a poll brought; returns whom to wake.
    pub(super) fn settle(&mut self, now: Instant, generation: u64, id: &Id, outcome: Outcome) -> Vec<O> {
        let Some(entry) = self.entries.get_mut(id) else {
            return Vec::new();
        };
        let Some(in_flight) = entry
            .in_flight
            .take_if(|in_flight| in_flight.generation == generation)
        else {
            return Vec::new();
        };
        let woken = match outcome {
            Outcome::Seen(_) if generation < entry.min_generation => {
                entry.asked.get_or_insert((entry.min_generation, now));
                Vec::new()
            }
            Outcome::Seen(state) => {
                Self::remember(&mut self.by_owner, entry, generation, in_flight.started, state)
            }
            Outcome::Failed {
                error,
                retry_in,
                jitter,
            } => {
                entry.asked.take_if(|(asked, _)| generation > *asked);
                if entry.fail(now, error, retry_in, jitter) {
                    entry.owners.clone()
                } else {
                    Vec::new()
                }
            }
        };
        self.place(id);
        woken
    }

    fn remember(
        by_owner: &mut HashMap<O, Follow>,
        entry: &mut Entry<O>,
        generation: u64,
        polled_at: Instant,
        state: AccountState,
    ) -> Vec<O> {
        let news = entry
            .state
            .as_ref()
            .is_none_or(|old| !old.same_for_followers(&state));
        let recovered = entry
            .failure_run
            .take()
            .is_some_and(|failure_run| failure_run.told);
        entry.state = Some(state);
        entry.generation = generation;
        entry.polled_at = Some(polled_at);
        entry.asked.take_if(|(asked, _)| generation > *asked);
        let mut woken = Vec::new();
        for owner in &entry.owners {
            let asked = by_owner.get_mut(owner).and_then(|follow| {
                follow
                    .wants_newer_than
                    .take_if(|newer_than| generation > *newer_than)
            });
            if news || recovered || asked.is_some() {
                woken.push(owner.clone());
            }
        }
        woken
    }

    /// Derives interval and class of an account from its owners.
    fn recompute(&mut self, id: &Id) {
        if let Some(entry) = self.entries.get_mut(id) {
            let follows = || entry.owners.iter().filter_map(|owner| self.by_owner.get(owner));
            entry.interval = follows()
                .map(|follow| follow.interval)
                .min()
                .unwrap_or(CADENCES[1]);
            entry.priority = follows()
                .map(|follow| follow.priority)
                .min()
                .unwrap_or(Priority::Background);
            self.place(id);
        }
    }

    /// Puts an account where its due time says, unless a poll it is under way.
    fn place(&mut self, id: &Id) {
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
