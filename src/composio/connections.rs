//! One client, budget and poller per API key, shared by everyone who uses that key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::accounts::{AccountPoller, PollerOptions};
use super::budget::{Budget, BudgetOptions};
use super::client::{CallObserver, Client};
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
    pub accounts: AccountPoller<O>,
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
    pub fn is_unauthorized(&self) -> bool {
        self.client.unauthorized_since().is_some()
    }

    /// Tries the key again before the five minutes are over.
    pub fn clear_unauthorized(&self) {
        self.client.clear_unauthorized();
        self.accounts.retry_now();
    }
}

/// The connections of all keys in use.
pub struct Connections<O: Clone + Eq + Hash> {
    options: ClientOptions,
    budget: BudgetOptions,
    poller: PollerOptions,
    http: reqwest::Client,
    observer: Arc<dyn CallObserver>,
    wake: Arc<dyn Fn(O) + Send + Sync>,
    /// By the whole digest of the key: keys themselves are kept in one place only, the client.
    by_key: Mutex<ByKey<O>>,
}

struct ByKey<O: Clone + Eq + Hash> {
    known: HashMap<[u8; 32], Known<O>>,
    swept_at: Instant,
}

struct Known<O: Clone + Eq + Hash> {
    connection: Arc<Connection<O>>,
    used_at: Instant,
}

impl<O: Clone + Eq + Hash> fmt::Debug for Connections<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> Connections<O> {
    /// No connections yet.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] if no key could ever be used with these options.
    pub fn new(
        options: ClientOptions,
        poller: PollerOptions,
        observer: Arc<dyn CallObserver>,
        wake: Arc<dyn Fn(O) + Send + Sync>,
    ) -> Result<Self, Error> {
        let http = http_client(&options)?;
        let by_key = Mutex::new(ByKey {
            known: HashMap::new(),
            swept_at: Instant::now(),
        });
        let budget = BudgetOptions::default();
        Ok(Self {
            options,
            budget,
            poller,
            http,
            observer,
            wake,
            by_key,
        })
    }

    /// The connection of a key, made at the first request. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidKeyFormat`].
    pub fn connection(&self, key: &SecretString) -> Result<Arc<Connection<O>>, Error> {
        let now = Instant::now();
        let digest = digest(key);
        let mut by_key = self.lock();
        if now.duration_since(by_key.swept_at) >= SWEEP {
            by_key.swept_at = now;
            by_key
                .known
                .retain(|known_digest, known| *known_digest == digest || !known.is_idle(now));
        }
        if let Some(known) = by_key.known.get_mut(&digest) {
            known.used_at = now;
            return Ok(Arc::clone(&known.connection));
        }
        let budget = Budget::new(self.budget.clone());
        let observer = Arc::clone(&self.observer);
        let client = Client::with_http(&self.options, self.http.clone(), key.clone(), budget, observer)?;
        let accounts = AccountPoller::start(client.clone(), &self.poller, Arc::clone(&self.wake));
        let connection = Arc::new(Connection {
            client,
            accounts,
            fingerprint: fingerprint(key),
        });
        by_key.known.insert(
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
        for known in self.lock().known.values() {
            if keep.is_none_or(|keep| keep.fingerprint != known.connection.fingerprint) {
                known.connection.accounts.unfollow(owner);
            }
        }
    }

    /// Stops following, with every key, for every owner but those that `keep` names.
    pub fn retain_followers(&self, keep: impl Fn(&O) -> bool) {
        for known in self.lock().known.values() {
            known.connection.accounts.retain_followers(&keep);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByKey<O>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Clone + Eq + Hash> Known<O> {
    fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.used_at) >= IDLE
            && self.connection.accounts.followers() == 0
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

    fn connections() -> Connections<&'static str> {
        let options = ClientOptions {
            base_url: "http://127.0.0.1:9".to_owned(),
            ..ClientOptions::default()
        };
        Connections::new(
            options,
            PollerOptions::default(),
            Arc::new(NoObserver),
            Arc::new(|_| {}),
        )
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_has_one_connection() {
        let connections = connections();
        let first = connections.connection(&"ak_one".into()).unwrap();
        let again = connections.connection(&"ak_one".into()).unwrap();
        let other = connections.connection(&"ak_two".into()).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_ne!(first.fingerprint(), other.fingerprint());
        // printf ak_one | sha256sum
        assert_eq!(first.fingerprint(), "eeb4553bf6be");
        assert!(!format!("{first:?} {connections:?} {:?}", first.client).contains("ak_one"));
        for bad in ["", "ak one", "ak_ö", "ak_1\n"] {
            assert_eq!(
                connections.connection(&bad.into()).unwrap_err(),
                Error::InvalidKeyFormat,
                "{bad:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_go_and_followed_or_held_ones_stay() {
        let connections = connections();
        drop(connections.connection(&"ak_idle".into()).unwrap());
        let held = connections.connection(&"ak_held".into()).unwrap();
        let followed = connections.connection(&"ak_followed".into()).unwrap();
        followed
            .accounts
            .follow(&"owner", "ca_1", Duration::from_hours(1), Priority::Background);
        let followed_fingerprint = followed.fingerprint().to_owned();
        drop(followed);
        tokio::time::advance(IDLE).await;
        let _new = connections.connection(&"ak_new".into()).unwrap();
        let mut left: Vec<_> = connections
            .lock()
            .known
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
        let connections = connections();
        let one = connections.connection(&"ak_one".into()).unwrap();
        let two = connections.connection(&"ak_two".into()).unwrap();
        for connection in [&one, &two] {
            connection
                .accounts
                .follow(&"owner", "ca_1", Duration::from_mins(1), Priority::Pending);
        }
        connections.unfollow(&"owner", Some(&two));
        assert_eq!((one.accounts.followers(), two.accounts.followers()), (0, 1));
        connections.unfollow(&"owner", None);
        assert_eq!(two.accounts.followers(), 0);
    }
}
