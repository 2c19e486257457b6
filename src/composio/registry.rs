//! One client, budget and reader per API key, shared by everyone who uses that key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::budget::{Budget, BudgetOptions};
use super::client::{CallObserver, Client};
use super::reader::{AccountReader, ReaderOptions};
use super::transport::http_client;
use super::{ClientOptions, Error};

/// A connection that nobody has asked for in this time, and that follows nothing, is dropped.
const IDLE: Duration = Duration::from_mins(10);

/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// The beginning of the key's SHA-256 in hexadecimal: tells keys apart in logs without giving them away.
pub fn fingerprint(key: &SecretString) -> String {
    let mut prefix = [0; 8];
    prefix[2..].copy_from_slice(&digest(key)[..6]);
    format!("{:012x}", u64::from_be_bytes(prefix))
}

/// Everything that belongs to one API key.
pub struct Connection<O: Clone + Eq + Hash> {
    /// Calls with this key.
    pub client: Client,
    /// Accounts followed with this key.
    pub reader: AccountReader<O>,
    fingerprint: String,
}

impl<O: Clone + Eq + Hash> fmt::Debug for Connection<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> Connection<O> {
    /// Tells this key from others; safe to log.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Composio answered 401 to this key within the last five minutes: calling is pointless.
    pub fn rejected(&self) -> bool {
        self.client.rejection().is_some()
    }

    /// Tries the key again before the five minutes are over.
    pub fn forgive(&self) {
        self.client.forgive();
        self.reader.retry_now();
    }
}

/// The connections of all keys in use.
pub struct Registry<O: Clone + Eq + Hash> {
    options: ClientOptions,
    budget: BudgetOptions,
    reader: ReaderOptions,
    http: reqwest::Client,
    observer: Arc<dyn CallObserver>,
    wake: Arc<dyn Fn(O) + Send + Sync>,
    /// By the whole digest of the key: keys themselves are kept in one place only, the client.
    connections: Mutex<Connections<O>>,
}

struct Connections<O: Clone + Eq + Hash> {
    by_key: HashMap<[u8; 32], Known<O>>,
    swept_at: Instant,
}

struct Known<O: Clone + Eq + Hash> {
    connection: Arc<Connection<O>>,
    used_at: Instant,
}

impl<O: Clone + Eq + Hash> fmt::Debug for Registry<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> Registry<O> {
    /// A registry without connections.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] if no key could ever be used with these options.
    pub fn new(
        options: ClientOptions,
        reader: ReaderOptions,
        observer: Arc<dyn CallObserver>,
        wake: Arc<dyn Fn(O) + Send + Sync>,
    ) -> Result<Self, Error> {
        let http = http_client(&options)?;
        let connections = Mutex::new(Connections {
            by_key: HashMap::new(),
            swept_at: Instant::now(),
        });
        let budget = BudgetOptions::default();
        Ok(Self {
            options,
            budget,
            reader,
            http,
            observer,
            wake,
            connections,
        })
    }

    /// The connection of a key, made at the first request. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidKeyFormat`].
    pub fn connection(&self, key: &SecretString) -> Result<Arc<Connection<O>>, Error> {
        let now = Instant::now();
        let digest = digest(key);
        let mut connections = self.lock();
        if now.duration_since(connections.swept_at) >= SWEEP {
            connections.swept_at = now;
            connections
                .by_key
                .retain(|known_digest, known| *known_digest == digest || !known.is_idle(now));
        }
        if let Some(known) = connections.by_key.get_mut(&digest) {
            known.used_at = now;
            return Ok(Arc::clone(&known.connection));
        }
        let budget = Budget::new(self.budget.clone());
        let observer = Arc::clone(&self.observer);
        let client = Client::with_http(&self.options, self.http.clone(), key.clone(), budget, observer)?;
        let reader = AccountReader::start(client.clone(), self.reader.clone(), Arc::clone(&self.wake));
        let connection = Arc::new(Connection {
            client,
            reader,
            fingerprint: fingerprint(key),
        });
        connections.by_key.insert(
            digest,
            Known {
                connection: Arc::clone(&connection),
                used_at: now,
            },
        );
        Ok(connection)
    }

    /// Stops following an owner's account with every key but that of `keep`: for an owner that is gone, or whose key
    /// was replaced.
    pub fn unfollow(&self, owner: &O, keep: Option<&Connection<O>>) {
        for known in self.lock().by_key.values() {
            if keep.is_none_or(|keep| keep.fingerprint != known.connection.fingerprint) {
                known.connection.reader.unfollow(owner);
            }
        }
    }

    /// Stops following, with every key, for every owner but those that `keep` names.
    pub fn retain_followers(&self, keep: impl Fn(&O) -> bool) {
        for known in self.lock().by_key.values() {
            known.connection.reader.retain_followers(&keep);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections<O>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Clone + Eq + Hash> Known<O> {
    fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.used_at) >= IDLE
            && self.connection.reader.followers() == 0
            && Arc::strong_count(&self.connection) == 1
    }
}

fn digest(key: &SecretString) -> [u8; 32] {
    Sha256::digest(key.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composio::{NoObserver, Priority};

    fn registry() -> Registry<&'static str> {
        let options = ClientOptions {
            base_url: "http://127.0.0.1:9".to_owned(),
            ..ClientOptions::default()
        };
        Registry::new(
            options,
            ReaderOptions::default(),
            Arc::new(NoObserver),
            Arc::new(|_| {}),
        )
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_has_one_connection() {
        let registry = registry();
        let first = registry.connection(&"ak_one".into()).unwrap();
        let again = registry.connection(&"ak_one".into()).unwrap();
        let other = registry.connection(&"ak_two".into()).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_ne!(first.fingerprint(), other.fingerprint());
        // printf ak_one | sha256sum
        assert_eq!(first.fingerprint(), "eeb4553bf6be");
        assert!(!format!("{first:?} {registry:?} {:?}", first.client).contains("ak_one"));
        for bad in ["", "ak one", "ak_ö", "ak_1\n"] {
            assert_eq!(
                registry.connection(&bad.into()).unwrap_err(),
                Error::InvalidKeyFormat,
                "{bad:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_go_and_followed_or_held_ones_stay() {
        let registry = registry();
        drop(registry.connection(&"ak_idle".into()).unwrap());
        let held = registry.connection(&"ak_held".into()).unwrap();
        let followed = registry.connection(&"ak_followed".into()).unwrap();
        followed
            .reader
            .follow(&"owner", "ca_1", Duration::from_hours(1), Priority::Background);
        let followed_fingerprint = followed.fingerprint().to_owned();
        drop(followed);
        tokio::time::advance(IDLE).await;
        let _new = registry.connection(&"ak_new".into()).unwrap();
        let mut left: Vec<_> = registry
            .lock()
            .by_key
            .values()
            .map(|known| known.connection.fingerprint().to_owned())
            .collect();
        left.sort_unstable();
        let mut expected = [
            held.fingerprint().to_owned(),
            followed_fingerprint,
            fingerprint(&"ak_new".into()),
        ]
        .to_vec();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_can_be_dropped_everywhere_or_everywhere_else() {
        let registry = registry();
        let one = registry.connection(&"ak_one".into()).unwrap();
        let two = registry.connection(&"ak_two".into()).unwrap();
        for connection in [&one, &two] {
            connection
                .reader
                .follow(&"owner", "ca_1", Duration::from_mins(1), Priority::Pending);
        }
        registry.unfollow(&"owner", Some(&two));
        assert_eq!((one.reader.followers(), two.reader.followers()), (0, 1));
        registry.unfollow(&"owner", None);
        assert_eq!(two.reader.followers(), 0);
    }
}
