//! All accounts that a user has in a toolkit, for callers who are about to create one: always from a list that began
//! after the question.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::source::{Source, blames_a_key, list_in_parts};
use crate::composio::{Account, AccountQuery, Error, Listing, Priority};

/// How long a question waits for others that can share its list. People who ask for a link do not notice it, and a list for
/// each of them would cost as much of the rate limit as their links.
const GATHER: Duration = Duration::from_millis(250);
/// Users of one list.
const MOST_USERS: usize = 100;
/// Bytes of user ids in one list: common gateways refuse longer URLs.
const MOST_BYTES: usize = 4000;

type Answer = Result<Vec<Account>, Error>;
/// Who waits for the accounts of each user.
type Callers = BTreeMap<String, Vec<Caller>>;

struct Caller {
    user_id: String,
    toolkit: String,
    priority: Priority,
    answer: oneshot::Sender<Answer>,
}

/// Collects questions for a moment and asks those of one toolkit together.
pub(super) struct AccountsOfUser {
    source: Arc<dyn Source>,
    waiting: Mutex<Vec<Caller>>,
    full: Notify,
}

impl AccountsOfUser {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            waiting: Mutex::new(Vec::new()),
            full: Notify::new(),
        }
    }

    pub(super) async fn list(self: &Arc<Self>, user_id: &str, toolkit: &str, priority: Priority) -> Answer {
        // The API separates the values of a filter by commas.
        let is_one_value = |value: &str| !value.is_empty() && !value.contains(',');
        if !is_one_value(user_id) || !is_one_value(toolkit) {
            let message = "a user id and a toolkit must not be empty or contain a comma".to_owned();
            return Err(Error::InvalidRequest { message });
        }
        let (answer, answered) = oneshot::channel();
        let waiting = {
            let mut waiting = self.waiting();
            waiting.push(Caller {
                user_id: user_id.to_owned(),
                toolkit: toolkit.to_owned(),
                priority,
                answer,
            });
            waiting.len()
        };
        match waiting {
            1 => drop(tokio::spawn(Arc::clone(self).collect())),
            MOST_USERS => self.full.notify_one(),
            _ => {}
        }
        let cancelled = || {
            Err(Error::Transport {
                message: "the list was cancelled".to_owned(),
            })
        };
        answered.await.unwrap_or_else(|_| cancelled())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Caller>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives others a moment to join, then asks for everyone. Whoever comes later starts the next round, because this
    /// round's lists begin now.
    async fn collect(self: Arc<Self>) {
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = self.full.notified() => {}
        }
        let mut by_toolkit: BTreeMap<String, Callers> = BTreeMap::new();
        for caller in take(&mut *self.waiting()) {
            let callers = by_toolkit.entry(caller.toolkit.clone()).or_default();
            callers.entry(caller.user_id.clone()).or_default().push(caller);
        }
        let lists = by_toolkit.iter_mut().flat_map(|(toolkit, callers)| {
            rounds(take(callers))
                .into_iter()
                .map(|round| self.ask(toolkit, round))
        });
        futures::future::join_all(lists).await;
    }

    async fn ask(&self, toolkit: &str, mut callers: Callers) {
        let priority = callers
            .values()
            .flatten()
            .map(|caller| caller.priority)
            .min()
            .unwrap_or(Priority::Background);
        let users: Vec<String> = callers.keys().cloned().collect();
        let query = |users: &[String]| AccountQuery {
            user_ids: users.to_vec(),
            toolkits: vec![toolkit.to_owned()],
            ..AccountQuery::default()
        };
        let splits = |answer: &Result<Listing<Account>, Error>| match answer {
            Ok(listing) => !is_attributable(listing),
            Err(error) => blames_a_key(error),
        };
        for part in list_in_parts(self.source.as_ref(), priority, users, query, splits).await {
            let single = part.keys.len() == 1;
            for user in &part.keys {
                let answer = match &part.answer {
                    Ok(listing) => accounts_of(user, single, listing),
                    Err(error) => Err(error.clone()),
                };
                for caller in callers.remove(user).into_iter().flatten() {
                    // Sending fails if the caller was cancelled.
                    drop(caller.answer.send(answer.clone()));
                }
            }
        }
    }
}

/// Splits the users into lists whose URLs are short enough.
fn rounds(callers: Callers) -> Vec<Callers> {
    let mut rounds = vec![Callers::new()];
    let mut bytes = 0;
    for (user, callers) in callers {
        let full = rounds.last().is_some_and(|round| round.len() >= MOST_USERS);
        if full || bytes + user.len() > MOST_BYTES && bytes > 0 {
            rounds.push(Callers::new());
            bytes = 0;
        }
        bytes += user.len() + 1;
        if let Some(round) = rounds.last_mut() {
            round.insert(user, callers);
        }
    }
    rounds
}

/// Every item of the list says whose it is.
fn is_attributable(listing: &Listing<Account>) -> bool {
    listing.items.iter().all(|account| !account.user_id.is_empty())
        && listing.skipped.iter().all(|skipped| skipped.user_id.is_some())
}

/// One user's share of a list. An item of theirs that could not be decoded may be the very account that the caller is
/// about to create, so that there is no answer then.
fn accounts_of(user: &str, single: bool, listing: &Listing<Account>) -> Answer {
    let undecoded = listing.skipped.iter().any(|skipped| match &skipped.user_id {
        Some(owner) => owner == user,
        None => true,
    });
    let unattributed = !single && listing.items.iter().any(|account| account.user_id.is_empty());
    if undecoded || unattributed {
        return Err(Error::Decode {
            message: "an account of this user cannot be understood".to_owned(),
            excerpt: String::new(),
        });
    }
    let is_theirs = |account: &&Account| account.user_id == user || (single && account.user_id.is_empty());
    Ok(listing.items.iter().filter(is_theirs).cloned().collect())
}
