//! One client, rate budget and account poller per API key, shared by everyone who uses that key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::accounts::{AccountPoller, PollerOptions};
use super::budget::{Budget, BudgetOptions};
use super::client::{Client, Surroundings};
use super::transport::http_client;
use super::{ClientOptions, Error};
use crate::digest::sha256_hex;

/// A connection that nobody has asked for in this time, and through which nobody follows an account, is dropped.
const IDLE: Duration = Duration::from_mins(10);

/// In this time a refused key is tried again so many times at most, however many people ask.
const ASKED: Duration = Duration::from_mins(1);
const MOST_ASKED: u32 = 6;

/// How often idle connections are searched for.
const SWEEP: Duration = Duration::from_mins(1);

/// How many digits of a key's hash tell keys apart in logs.
const FINGERPRINT: usize = 12;

/// Everything that belongs to one API key.
pub struct Connection<O: Clone + Eq + Hash> {
    /// Calls with this key.
    pub(crate) client: Client,
    /// Accounts that are followed with this key.
    pub(crate) accounts: AccountPoller<O>,
    fingerprint: String,
    asked: Mutex<Asked>,
}

impl<O: Clone + Eq + Hash> fmt::Debug for Connection<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> Connection<O> {
    /// The beginning of the key's SHA-256 in hexadecimal: tells keys apart in logs without giving them away.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Composio answered 401 to this key within the last five minutes: calls are pointless.
    pub(crate) fn is_unauthorized(&self) -> bool {
        self.client.unauthorized_since().is_some()
    }

    /// Tries again at once what the key was refused, because a person asks for it. What one of those who share the key asks
    /// for is not at the expense of the others: that is done a few times a minute, and their accounts are read again once.
    pub(crate) fn try_again(&self) {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.since.is_none_or(|since| now.duration_since(since) >= ASKED) {
            *asked = Asked {
                since: Some(now),
                times: 0,
            };
            self.accounts.retry_now();
        }
        asked.times += 1;
        if asked.times <= MOST_ASKED {
            self.client.try_again();
        }
    }
}

/// Requests of people to try again, in one minute.
#[derive(Debug, Default)]
struct Asked {
    since: Option<Instant>,
    times: u32,
}

/// The connections of all keys in use.
pub struct Connections<O: Clone + Eq + Hash> {
    options: ClientOptions,
    poller: PollerOptions,
    http: reqwest::Client,
    surroundings: Arc<dyn Surroundings>,
    wake: Arc<dyn Fn(O) + Send + Sync>,
    known: Mutex<Known<O>>,
}

struct Known<O: Clone + Eq + Hash> {
    /// By the whole hash of the key: the key itself is only kept in the client.
    by_key: HashMap<String, Entry<O>>,
    swept_at: Instant,
}

struct Entry<O: Clone + Eq + Hash> {
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
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] if no key could ever be used with these options.
    pub(crate) fn new(
        options: ClientOptions,
        poller: PollerOptions,
        surroundings: Arc<dyn Surroundings>,
        wake: Arc<dyn Fn(O) + Send + Sync>,
    ) -> Result<Self, Error> {
        let http = http_client(&options)?;
        let known = Mutex::new(Known {
            by_key: HashMap::new(),
            swept_at: Instant::now(),
        });
        Ok(Self {
            options,
            poller,
            http,
            surroundings,
            wake,
            known,
        })
    }

    /// The connection of a key, made when it is first asked for. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidKeyFormat`].
    pub(crate) fn connection(&self, key: &SecretString) -> Result<Arc<Connection<O>>, Error> {
        let now = Instant::now();
        let hash = sha256_hex([key.expose_secret().as_bytes()]);
        let mut known = self.lock();
        if now.duration_since(known.swept_at) >= SWEEP {
            known.swept_at = now;
            known
                .by_key
                .retain(|other, entry| *other == hash || !entry.is_idle(now));
        }
        if let Some(entry) = known.by_key.get_mut(&hash) {
            entry.used_at = now;
            return Ok(Arc::clone(&entry.connection));
        }
        let budget = Budget::new(BudgetOptions::default());
        let surroundings = Arc::clone(&self.surroundings);
        let client = Client::with_http(
            &self.options,
            self.http.clone(),
            key.clone(),
            budget,
            surroundings,
        )?;
        let accounts = AccountPoller::start(client.clone(), self.poller, Arc::clone(&self.wake));
        let connection = Arc::new(Connection {
            client,
            accounts,
            fingerprint: hash[..FINGERPRINT].to_owned(),
            asked: Mutex::default(),
        });
        let entry = Entry {
            connection: Arc::clone(&connection),
            used_at: now,
        };
        known.by_key.insert(hash, entry);
        Ok(connection)
    }

    /// Stops following an owner's account with every key but that of `keep`: for an owner that was deleted, or whose key
    /// was replaced.
    pub(crate) fn unfollow(&self, owner: &O, keep: Option<&Connection<O>>) {
        for Entry { connection, .. } in self.lock().by_key.values() {
            if keep.is_none_or(|keep| keep.fingerprint != connection.fingerprint) {
                connection.accounts.unfollow(owner);
            }
        }
    }

    /// Stops following, with every key, for every owner but those that `keep` names.
    pub(crate) fn retain_followers(&self, keep: impl Fn(&O) -> bool) {
        for entry in self.lock().by_key.values() {
            entry.connection.accounts.retain_followers(&keep);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known<O>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Clone + Eq + Hash> Entry<O> {
    fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.used_at) >= IDLE
            && self.connection.accounts.followers() == 0
            && Arc::strong_count(&self.connection) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composio::{NoSurroundings, Priority};

    fn connections() -> Connections<&'static str> {
        let options = ClientOptions {
            base_url: "http://127.0.0.1:9".to_owned(),
            ..ClientOptions::default()
        };
        Connections::new(
            options,
            PollerOptions::default(),
            Arc::new(NoSurroundings),
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
        let new = connections.connection(&"ak_new".into()).unwrap();
        let mut left: Vec<_> = connections
            .lock()
            .by_key
            .values()
            .map(|entry| entry.connection.fingerprint().to_owned())
            .collect();
        left.sort_unstable();
        let mut expected = [
            held.fingerprint().to_owned(),
            followed_fingerprint,
            new.fingerprint().to_owned(),
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
