//! Polls one batch of accounts: one list, then a GET for each account that the list does not show.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;

use super::follows::{Batch, Outcome, Target};
use super::schedule::Id;
use super::source::{blames_a_key, list_in_parts};
use super::{AccountState, Shared};
use crate::composio::{AccountQuery, Error, Priority};

/// When a list lacks more accounts than this, the list is probably wrong, so that confirming them is not urgent.
const FEW: usize = 10;

/// Polls every account of the batch.
pub(super) async fn poll<O: Clone + Eq + Hash>(shared: Arc<Shared<O>>, batch: Batch) {
    let guard = BatchGuard::new(&shared, &batch);
    if let Some((error, _)) = shared.source.unauthorized_since() {
        guard.fail(batch.targets.iter().map(|target| &target.id), &error);
        return;
    }
    let unconfirmed = list(&guard, &batch).await;
    guard.release();
    let priority = if unconfirmed.len() > FEW {
        Priority::Background
    } else {
        batch.priority
    };
    futures::stream::iter(unconfirmed)
        .for_each_concurrent(None, |account| confirm(&guard, priority, account))
        .await;
}

/// An account that a GET has to confirm.
struct Unconfirmed {
    id: Id,
    /// The list was refused, probably because of this id.
    blamed: bool,
}

/// Records what the list shows; returns the accounts that it does not show.
async fn list<O: Clone + Eq + Hash>(guard: &BatchGuard<'_, O>, batch: &Batch) -> Vec<Unconfirmed> {
    let (get_only, listed): (Vec<_>, Vec<_>) =
        batch.targets.iter().cloned().partition(|target| target.get_only);
    let mut open: Vec<Unconfirmed> = get_only
        .into_iter()
        .map(|Target { id, .. }| Unconfirmed { id, blamed: false })
        .collect();
    let query = |targets: &[Target]| AccountQuery {
        ids: targets.iter().map(|target| target.id.to_string()).collect(),
        ..AccountQuery::default()
    };
    let refused = |answer: &Result<_, Error>| answer.as_ref().is_err_and(blames_a_key);
    let source = guard.shared.source.as_ref();
    for part in list_in_parts(source, batch.priority, listed, query, refused).await {
        match part.answer {
            Ok(listing) => {
                let complete = listing.is_complete();
                let mut found: HashMap<String, _> = listing
                    .items
                    .into_iter()
                    .map(|account| (account.id.clone(), account))
                    .collect();
                for Target { id, not_found, .. } in part.keys {
                    match found.remove(&*id) {
                        Some(account) => guard.record(&id, AccountState::Found(account)),
                        None if not_found && complete => guard.record(&id, AccountState::NotFound),
                        None => open.push(Unconfirmed { id, blamed: false }),
                    }
                }
            }
            Err(error) => match part.keys.as_slice() {
                [Target { id, .. }] if blames_a_key(&error) => open.push(Unconfirmed {
                    id: Id::clone(id),
                    blamed: true,
                }),
                targets => guard.fail(targets.iter().map(|target| &target.id), &error),
            },
        }
    }
    open
}

async fn confirm<O: Clone + Eq + Hash>(guard: &BatchGuard<'_, O>, priority: Priority, account: Unconfirmed) {
    let Unconfirmed { id, blamed } = account;
    // The semaphore is never closed, so that this cannot fail; without a permit the GET would merely not be bounded.
    let _place = guard.shared.confirmations.acquire().await.ok();
    let answer = guard.shared.source.account(priority, &id).await;
    // An id that a GET finds is well-formed: then it was not the reason why the list was refused.
    if blamed && !matches!(answer, Ok(Some(_))) {
        guard.shared.lock().set_get_only(&id);
    }
    match answer {
        Ok(Some(account)) => guard.record(&id, AccountState::Found(account)),
        Ok(None) => guard.record(&id, AccountState::NotFound),
        Err(error) => guard.fail([&id], &error),
    }
}

/// Records the results of a batch. Accounts without a result when this is dropped, because the poll panicked or was
/// cancelled, count as failed: otherwise they would count as in flight for ever and never be polled again.
struct BatchGuard<'a, O: Clone + Eq + Hash> {
    shared: &'a Shared<O>,
    generation: u64,
    ids: Vec<Id>,
    jitter: f64,
    released: AtomicBool,
}

impl<'a, O: Clone + Eq + Hash> BatchGuard<'a, O> {
    fn new(shared: &'a Shared<O>, batch: &Batch) -> Self {
        Self {
            shared,
            generation: batch.generation,
            ids: batch.targets.iter().map(|target| Id::clone(&target.id)).collect(),
            jitter: 0.75 + fastrand::f64() / 4.0,
            released: AtomicBool::new(false),
        }
    }

    fn record(&self, id: &Id, state: AccountState) {
        self.shared.settle(self.generation, id, Outcome::Read(state));
    }

    fn fail<'b>(&self, ids: impl IntoIterator<Item = &'b Id>, error: &Error) {
        let retry_in = match self.shared.source.unauthorized_since() {
            Some((_, left)) if error.is_unauthorized() => Some(left),
            _ => error.retry_after(),
        };
        for id in ids {
            let outcome = Outcome::Failed {
                error: error.clone(),
                retry_in,
                jitter: self.jitter,
            };
            self.shared.settle(self.generation, id, outcome);
        }
    }

    /// Lets the next batch begin.
    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.shared.lock().release();
            self.shared.changed.notify_one();
        }
    }
}

impl<O: Clone + Eq + Hash> Drop for BatchGuard<'_, O> {
    fn drop(&mut self) {
        self.release();
        let missing: Vec<Id> = {
            let follows = self.shared.lock();
            self.ids
                .iter()
                .filter(|id| follows.awaits(self.generation, id))
                .cloned()
                .collect()
        };
        self.fail(
            &missing,
            &Error::Transport {
                message: "the poll was cancelled".to_owned(),
            },
        );
    }
}
