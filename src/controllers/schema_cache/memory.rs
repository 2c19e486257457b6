//! What a running operator remembers of its caches. All of it can be found out again: forgetting costs reads, never
//! writes or correctness.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::observed::Catalogue;
use crate::controllers::failure::Failure;
use crate::schemas::manifest::Manifest;

/// What is remembered, by the uid of the cache.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

/// What is remembered of one cache.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Resource versions at which ConfigMaps were found, or left, with the right content.
    pub sound: HashMap<String, String>,
    /// The manifest and the resource version it was read at.
    pub manifest: Option<(String, Manifest)>,
    /// When the last complete sync ended.
    pub checked_at: Option<Timestamp>,
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
    /// A copy of what is remembered.
    pub fn recall(&self, uid: &str) -> Remembered {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered.
    pub fn note<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(self.lock().entry(uid.to_owned()).or_default())
    }

    /// Forgets a cache that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
