//! Where accounts are read from, and lists that survive one bad key.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::composio::{Account, AccountQuery, Client, Error, Listing, Priority};

/// Requests that may be spent on finding the keys that make the server refuse a list. Enough for two bad ones among a
/// hundred; where the server refuses everything, splitting on would only multiply the refusals.
const MOST_PARTS: usize = 32;

/// The reads that the poller makes. The client is the only source outside tests.
pub(super) trait Source: Send + Sync + 'static {
    fn listing<'a>(
        &'a self,
        priority: Priority,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Listing<Account>, Error>>;

    fn account<'a>(
        &'a self,
        priority: Priority,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Account>, Error>>;

    /// The key was rejected a short while ago: with what error, and how long calls are pointless.
    fn unauthorized_since(&self) -> Option<(Error, Duration)>;
}

impl Source for Client {
    fn listing<'a>(
        &'a self,
        priority: Priority,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Listing<Account>, Error>> {
        self.account_listing(priority, query).boxed()
    }

    fn account<'a>(
        &'a self,
        priority: Priority,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Account>, Error>> {
        Client::account(self, priority, id).boxed()
    }

    fn unauthorized_since(&self) -> Option<(Error, Duration)> {
        Client::unauthorized_since(self)
    }
}

/// A list was refused for a reason that may lie in a single one of its keys. 404 is not among them: it says that there
/// is no list at all.
pub(super) fn blames_a_key(error: &Error) -> bool {
    matches!(error, Error::InvalidRequest { .. })
        || error
            .status()
            .is_some_and(|status| matches!(status, 400 | 413 | 414 | 422 | 431))
}

/// The answer about some of the keys.
pub(super) struct Part<K> {
    pub keys: Vec<K>,
    pub answer: Result<Listing<Account>, Error>,
}

/// Lists the accounts of many keys at once. An answer that `splits` is asked for again in halves, until each offender
/// stands alone: one malformed id must not blind the poller to ninety-nine others.
pub(super) async fn list_in_parts<K>(
    source: &dyn Source,
    priority: Priority,
    keys: Vec<K>,
    query: impl Fn(&[K]) -> AccountQuery,
    splits: impl Fn(&Result<Listing<Account>, Error>) -> bool,
) -> Vec<Part<K>> {
    let mut parts = Vec::new();
    let mut open = vec![keys];
    let mut asked = 0;
    while let Some(mut keys) = open.pop() {
        if keys.is_empty() {
            continue;
        }
        asked += 1;
        let answer = source.listing(priority, &query(&keys)).await;
        if keys.len() > 1 && asked < MOST_PARTS && splits(&answer) {
            let half = keys.split_off(keys.len() / 2);
            open.extend([half, keys]);
        } else {
            parts.push(Part { keys, answer });
        }
    }
    parts
}
