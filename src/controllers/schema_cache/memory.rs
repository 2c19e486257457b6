//! What a running operator remembers of its caches. All of it can be found out again: forgetting costs reads, never
//! writes or correctness.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::observed::Catalogue;
use crate::controllers::context::Owner;
use crate::controllers::failure::Failure;
use crate::schemas::manifest::Manifest;

/// What is remembered, by the uid of the cache.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

/// What is remembered of one cache.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Which cache it is. None: it is gone.
    pub owner: Option<Owner>,
    /// Resource versions at which ConfigMaps were found, or left, with the right content.
    pub sound: HashMap<String, String>,
    /// The manifest and the resource version it was read at.
    pub manifest: Option<(String, Manifest)>,
    /// When the last complete sync ended.
    pub checked_at: Option<Timestamp>,
    /// When a sync last began that found something changed or deleted by somebody.
    pub repaired_at: Option<Timestamp>,
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
    /// Calls of the Composio API so far.
    pub api_calls: u64,
}

impl Memory {
    /// Begins to remember a cache, unless it is remembered already.
    pub fn open(&self, uid: &str, owner: &Owner) {
        self.lock()
            .entry(uid.to_owned())
            .or_default()
            .owner
            .get_or_insert_with(|| owner.clone());
    }

    /// A copy of what is remembered.
    pub fn recall(&self, uid: &str) -> Remembered {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered. Nothing is kept of a cache that was forgotten since.
    pub fn note<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        match self.lock().get_mut(uid) {
            Some(remembered) => change(remembered),
            None => change(&mut Remembered::default()),
        }
    }

    /// Forgets a cache that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Forgets every cache but those that `keep` names.
    pub fn retain(&self, keep: impl Fn(&Owner) -> bool) {
        self.lock()
            .retain(|_, remembered| remembered.owner.as_ref().is_some_and(&keep));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_a_cache_that_is_gone() {
        let owner = |name: &str| Owner {
            namespace: "agents".to_owned(),
            name: name.to_owned(),
        };
        let memory = Memory::default();
        let sound = |uid| memory.recall(uid).sound.len();
        let note = |uid| {
            memory.note(uid, |remembered| {
                remembered
                    .sound
                    .insert("schemas-reddit".to_owned(), "1".to_owned())
            })
        };
        for (uid, name) in [("u-1", "one"), ("u-2", "two"), ("u-3", "three")] {
            memory.open(uid, &owner(name));
            note(uid);
            memory.open(uid, &owner(name));
        }
        memory.forget("u-1");
        // Its last pass is still under way.
        note("u-1");
        memory.retain(|seen| *seen != owner("two"));
        note("u-2");
        assert_eq!([sound("u-1"), sound("u-2"), sound("u-3")], [0, 0, 1]);
    }
}
