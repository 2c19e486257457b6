//! Identity look-ups. Each runs beside the reconciles and wakes its object when it ends: a provider that hangs holds up
//! nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::task::AbortHandle;

use super::identity::Identity;
use super::observed::LookUp;
use crate::runtime::wake_ups::ObjectKey;

/// Most look-ups that are under way or wait for their turn at Composio.
const MOST: usize = 512;

/// The look-ups of all objects. Clones share them.
#[derive(Clone, Default)]
pub struct LookUps(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    running: usize,
    by_object: HashMap<ObjectKey, Entry>,
}

struct Entry {
    /// The account that is asked about.
    account_id: Box<str>,
    state: State,
}

enum State {
    Running(AbortHandle),
    Found(Box<Identity>, Timestamp),
    Ended(Timestamp),
}

impl LookUps {
    /// How it stands with the look-up about this account.
    pub fn of(&self, key: &ObjectKey, account_id: &str) -> LookUp {
        let entries = self.lock();
        let entry = entries.by_object.get(key);
        match entry.filter(|entry| *entry.account_id == *account_id) {
            Some(Entry { state, .. }) => match state {
                State::Running(_) => LookUp::Running,
                State::Found(identity, at) => LookUp::Found {
                    identity: (**identity).clone(),
                    at: *at,
                },
                State::Ended(at) if entries.running >= MOST => LookUp::NoRoom { ended: Some(*at) },
                State::Ended(at) => LookUp::Ended(*at),
            },
            None if entries.running >= MOST => LookUp::NoRoom { ended: None },
            None => LookUp::None,
        }
    }

    /// Starts one in place of any other of this object. `ended` is called after it.
    pub fn start(
        &self,
        key: &ObjectKey,
        account_id: &str,
        now: impl Fn() -> Timestamp + Send + 'static,
        look_up: impl Future<Output = Identity> + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) {
        let mut entries = self.lock();
        entries.remove(key);
        let (shared, object, account) = (self.clone(), key.clone(), account_id.to_owned());
        let task = tokio::spawn(async move {
            let identity = look_up.await;
            shared.found(&object, &account, identity, now());
            ended();
        });
        let entry = Entry {
            account_id: account_id.into(),
            state: State::Running(task.abort_handle()),
        };
        entries.running += 1;
        entries.by_object.insert(key.clone(), entry);
    }

    fn found(&self, key: &ObjectKey, account_id: &str, identity: Identity, at: Timestamp) {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_object.get_mut(key)
            && *entry.account_id == *account_id
            && matches!(entry.state, State::Running(_))
        {
            entry.state = State::Found(Box::new(identity), at);
            entries.running -= 1;
        }
    }

    /// What was found is on record, or is no news.
    pub fn end(&self, key: &ObjectKey) {
        if let Some(entry) = self.lock().by_object.get_mut(key)
            && let State::Found(_, at) = entry.state
        {
            entry.state = State::Ended(at);
        }
    }

    /// Drops what is kept about an object.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Drops what is kept about objects that do not exist.
    pub fn retain(&self, exists: &dyn Fn(&ObjectKey) -> bool) {
        let mut entries = self.lock();
        let gone: Vec<_> = entries
            .by_object
            .keys()
            .filter(|key| !exists(key))
            .cloned()
            .collect();
        for key in gone {
            entries.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn remove(&mut self, key: &ObjectKey) {
        if let Some(Entry {
            state: State::Running(task),
            ..
        }) = self.by_object.remove(key)
        {
            task.abort();
            self.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::reddit_connection::fixtures::at;

    fn key(name: usize) -> ObjectKey {
        ObjectKey {
            kind: "redditconnection",
            namespace: "team".to_owned(),
            name: name.to_string(),
        }
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_whatever_was_asked_before() {
        let look_ups = LookUps::default();
        let start = |name| look_ups.start(&key(name), "ca_1", || at(1), std::future::pending(), || ());
        let asked_before = key(MOST);
        let (tell, told) = tokio::sync::oneshot::channel();
        let found = std::future::ready(Identity::Unknown {
            message: String::new(),
        });
        look_ups.start(&asked_before, "ca_1", || at(1), found, || tell.send(()).unwrap());
        told.await.unwrap();
        look_ups.end(&asked_before);
        (0..MOST - 1).for_each(start);
        assert_eq!(look_ups.of(&asked_before, "ca_1"), LookUp::Ended(at(1)));
        start(MOST - 1);
        let ended = Some(at(1));
        assert_eq!(look_ups.of(&asked_before, "ca_1"), LookUp::NoRoom { ended });
        assert_eq!(
            look_ups.of(&key(MOST + 1), "ca_1"),
            LookUp::NoRoom { ended: None }
        );
        look_ups.forget(&key(0));
        assert_eq!(look_ups.of(&asked_before, "ca_1"), LookUp::Ended(at(1)));
    }
}
