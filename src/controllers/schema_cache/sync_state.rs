//! What a running operator remembers of its caches. All of it can be found out again: forgetting costs reads, never
//! writes or correctness.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::observed::Catalogue;
use super::plan::Phase;
use super::{SchemaCaches, plan};
use crate::runtime::failure::Failure;
use crate::runtime::plan::Position;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Phase as _, Turn};
use crate::schemas::manifest::Manifest;

/// Most caches that a metric names.
const MAX_SHOWN: usize = 1000;

/// What is remembered, by the uid of the cache.
#[derive(Default)]
pub struct SyncStates(Mutex<HashMap<String, SyncState>>);

/// What is remembered of one cache.
#[derive(Clone, Debug, Default)]
pub struct SyncState {
    /// Which cache it is. None: it is gone.
    pub key: Option<ObjectKey>,
    /// Resource versions at which ConfigMaps were read, or written, with the right content.
    pub intact: HashMap<String, String>,
    /// The manifest and the resource version it was read at.
    pub manifest: Option<(String, Manifest)>,
    /// When the last complete sync ended.
    pub checked_at: Option<Timestamp>,
    /// When a sync last began that found something changed or deleted by somebody.
    pub repaired_at: Option<Timestamp>,
    /// When everything was last found or brought up to date, as a metric shows.
    pub verified_at: Option<Timestamp>,
    /// The sync under way.
    pub sync: Option<Sync>,
}

/// A sync under way.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Generation of the spec and request it is for: with others it starts over.
    pub asked: (i64, Option<String>),
    /// When it started.
    pub started_at: Timestamp,
    /// What Composio offers.
    pub catalogue: Catalogue,
    /// Toolkits that failed.
    pub failed: BTreeMap<String, Failure>,
    /// Toolkits that were read.
    pub read: BTreeSet<String>,
    /// Calls of the Composio API so far.
    pub api_calls: u64,
}

impl SyncStates {
    /// Begins to remember a cache, unless it is remembered already.
    pub fn open(&self, uid: &str, key: &ObjectKey) {
        self.lock()
            .entry(uid.to_owned())
            .or_default()
            .key
            .get_or_insert_with(|| key.clone());
    }

    /// A copy of what is remembered.
    pub fn get(&self, uid: &str) -> SyncState {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered. Nothing is kept of a cache that was forgotten since.
    pub fn update<T>(&self, uid: &str, change: impl FnOnce(&mut SyncState) -> T) -> T {
        match self.lock().get_mut(uid) {
            Some(state) => change(state),
            None => change(&mut SyncState::default()),
        }
    }

    /// Keeps what the next reconcile should know of this one.
    pub fn record(&self, turn: &Turn<'_, SchemaCaches>) {
        let (view, observed) = (turn.view, turn.observed);
        let asked = observed.catalogue.is_some();
        self.update(view.uid, |state| {
            // Later, a sync finds what it has changed itself.
            if asked && view.status.progress.is_none() && plan::needs_repair(view, observed) {
                state.repaired_at = Some(turn.now);
            }
            match turn.position {
                Position::At(Phase::Finished { .. }) => {
                    state.sync = None;
                    state.checked_at = Some(turn.now);
                }
                // What Composio answered is in doubt: the next try asks again.
                Position::Failed(_) if asked && turn.step.is_none() => state.sync = None,
                _ => {}
            }
        });
    }

    /// Keeps when a cache was last verified, and returns it with the cache's key if that is news. Of a cache that an earlier
    /// process verified, the status tells what it can: not less recent than what it says. None as well where more caches
    /// are shown than a metric should have labels.
    pub fn verified(&self, turn: &Turn<'_, SchemaCaches>) -> Option<(ObjectKey, Timestamp)> {
        let mut states = self.lock();
        let shown = states
            .values()
            .filter(|state| state.verified_at.is_some())
            .count();
        let state = states.get_mut(turn.view.uid)?;
        let is_verified = matches!(turn.position, Position::At(phase @ Phase::Finished { .. }) if phase.failure().is_none());
        let recorded = turn.view.status.last_sync_time.as_ref().map(|time| time.0);
        let at = match state.verified_at {
            _ if is_verified => turn.now,
            None => recorded?,
            Some(_) => return None,
        };
        if state.verified_at.is_none() && shown >= MAX_SHOWN {
            return None;
        }
        state.verified_at = Some(at);
        Some((state.key.clone()?, at))
    }

    /// Forgets a cache that is gone, and returns its key if it was known.
    pub fn forget(&self, uid: &str) -> Option<ObjectKey> {
        self.lock().remove(uid)?.key
    }

    /// Forgets every cache but those that `keep` names, and returns the keys of the others.
    pub fn retain(&self, keep: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
        let mut gone = Vec::new();
        self.lock().retain(|_, state| {
            let stays = state.key.as_ref().is_some_and(&keep);
            gone.extend(state.key.take_if(|_| !stays));
            stays
        });
        gone
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, SyncState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_a_cache_that_is_gone() {
        let key = |name: &str| ObjectKey {
            kind: "composioschemacache",
            namespace: "agents".to_owned(),
            name: name.to_owned(),
        };
        let states = SyncStates::default();
        let intact = |uid| states.get(uid).intact.len();
        let update = |uid| {
            states.update(uid, |state| {
                state.intact.insert("schemas-reddit".to_owned(), "1".to_owned())
            })
        };
        for (uid, name) in [("u-1", "one"), ("u-2", "two"), ("u-3", "three")] {
            states.open(uid, &key(name));
            update(uid);
            states.open(uid, &key(name));
        }
        states.forget("u-1");
        // Its last reconcile is still under way.
        update("u-1");
        assert_eq!(states.retain(|seen| *seen != key("two")), [key("two")]);
        update("u-2");
        assert_eq!([intact("u-1"), intact("u-2"), intact("u-3")], [0, 0, 1]);
    }
}
