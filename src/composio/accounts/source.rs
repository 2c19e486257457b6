//! Where accounts are read from, and how a list copes with a key that the server refuses.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::composio::{Account, AccountQuery, Client, Error, Listing, Priority};

/// Most requests for finding the keys that make the server refuse a list. Enough for two bad ones among a hundred; when
/// the server refuses everything, more requests would only multiply the refusals.
const MOST_PARTS: usize = 32;

/// The reads that polling needs. The client is the only source outside tests.
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

    /// See [`Client::unauthorized_since`].
    fn unauthorized_since(&self) -> Option<(Error, Duration)>;
}

impl Source for Client {
    fn listing<'a>(
        &'a self,
        priority: Priority,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Listing<Account>, Error>> {
        self.list_accounts(priority, query).boxed()
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

/// The server refused a list, possibly because of a single key in it. 404 does not count: it says that the endpoint does
/// not exist.
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

/// Lists the accounts of many keys (ids or users) at once. A list whose answer `splits` is asked for again in halves until
/// each bad key is in a list of its own: one malformed id must not hide ninety-nine others.
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
