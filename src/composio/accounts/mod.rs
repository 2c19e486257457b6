//! Shared polling of accounts: objects follow accounts and are woken when these change, and one list request reads up
//! to a hundred accounts.
//!
//! [`schedule`] decides which accounts are polled next, [`follows`] records who follows what and what is known; both are
//! plain data. [`poll`] makes the requests.

mod entry;
mod follows;
mod of_user;
mod poll;
mod schedule;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::follows::{Follows, Outcome, Step};
use self::of_user::AccountsOfUser;
use self::schedule::{Id, Limits};
use self::source::Source;
use super::{Account, Client, Error, Priority};

/// Settings of an [`AccountPoller`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollerOptions {
    /// How long a list request waits, after the first account is due, so that others can share it.
    pub window: Duration,
    /// Most accounts of one list request, at most 100: the size of a page.
    pub batch: usize,
    /// Most list requests at the same time. Background polls use at most half of them.
    pub in_flight: usize,
    /// Most single reads at the same time, for accounts that a list does not show.
    pub confirmations: usize,
}

impl Default for PollerOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_millis(50),
            batch: 100,
            in_flight: 4,
            confirmations: 4,
        }
    }
}

/// What Composio says about one account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every value is an account, and nearly all of it is heap"
)]
pub(crate) enum AccountState {
    /// The account exists.
    Found(Account),
    /// It was deleted, or never existed: a GET of it said so.
    NotFound,
}

impl AccountState {
    /// Whether followers of the account have no reason to act on `other`.
    fn same_for_followers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Found(one), Self::Found(other)) => one.same_for_followers(other),
            (Self::NotFound, Self::NotFound) => true,
            _ => false,
        }
    }
}

/// Polls of an account fail. Reported at once when somebody must act, after three failures or 30 seconds when the cause
/// may pass by itself, and after a whole interval when only the rate budget is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PollFailure {
    /// Why the newest poll failed.
    pub error: Error,
    /// Failures in a row.
    pub failures: u32,
    /// Time until the next attempt.
    pub retry_in: Duration,
}

/// The newest that is known about an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_field_names,
    reason = "`at` alone would not say what happened then"
)]
pub(crate) struct Polled {
    /// Result of the newest successful poll; `None` before the first.
    pub state: Option<AccountState>,
    /// When that poll began. On tokio's clock, which tests can pause.
    pub polled_at: Option<Instant>,
    /// Number of that poll; it only grows. 0 before the first.
    pub generation: u64,
    /// Polls have been failing since.
    pub failure: Option<PollFailure>,
}

/// Follows accounts on behalf of owners. `O` identifies an owner, for example a Kubernetes object; each owner follows
/// one account. Clones share everything; when the last one is dropped, polling ends.
pub(crate) struct AccountPoller<O: Clone + Eq + Hash> {
    shared: Arc<Shared<O>>,
    task: Arc<Task>,
}

impl<O: Clone + Eq + Hash> Clone for AccountPoller<O> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            task: Arc::clone(&self.task),
        }
    }
}

impl<O: Clone + Eq + Hash> fmt::Debug for AccountPoller<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountPoller")
            .field("followers", &self.followers())
            .finish_non_exhaustive()
    }
}

/// The polling task. Dropping this ends it together with its requests.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared<O> {
    source: Arc<dyn Source>,
    of_user: Arc<AccountsOfUser>,
    follows: Mutex<Follows<O>>,
    /// `follows` changed, so that the task has to decide anew.
    changed: Notify,
    confirmations: Semaphore,
    wake: Arc<dyn Fn(O) + Send + Sync>,
}

impl<O: Clone + Eq + Hash> Shared<O> {
    fn lock(&self) -> MutexGuard<'_, Follows<O>> {
        self.follows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, generation: u64, id: &Id, outcome: Outcome) {
        let woken = self.lock().settle(Instant::now(), generation, id, outcome);
        self.wake(woken);
        self.changed.notify_one();
    }

    /// Must be called without the lock: an owner that is woken may use the poller at once.
    fn wake(&self, owners: Vec<O>) {
        for owner in owners {
            (self.wake)(owner);
        }
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> AccountPoller<O> {
    /// Starts polling on the current tokio runtime. `wake` is called for an owner after the first poll of its account,
    /// when the account changed materially, and when polls begin to fail or succeed again; it must not block.
    pub(crate) fn start(client: Client, options: PollerOptions, wake: Arc<dyn Fn(O) + Send + Sync>) -> Self {
        Self::start_with(Arc::new(client), options, wake)
    }

    fn start_with(
        source: Arc<dyn Source>,
        options: PollerOptions,
        wake: Arc<dyn Fn(O) + Send + Sync>,
    ) -> Self {
        let PollerOptions {
            window,
            batch,
            in_flight,
            confirmations,
        } = options;
        let limits = Limits {
            window,
            batch: batch.clamp(1, 100),
        };
        let shared = Arc::new(Shared {
            of_user: Arc::new(AccountsOfUser::new(Arc::clone(&source))),
            source,
            follows: Mutex::new(Follows::new(limits, in_flight)),
            changed: Notify::new(),
            confirmations: Semaphore::new(confirmations.max(1)),
            wake,
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self {
            shared,
            task: Arc::new(Task(task.abort_handle())),
        }
    }

    /// Follows an account, or changes how: at most `interval` passes between two polls, as far as the budget allows.
    /// Intervals are kept between 0.1 s and 24 h. An owner follows one account; another id replaces it. Returns what is
    /// known now, without waiting.
    pub(crate) fn follow(&self, owner: &O, id: &str, interval: Duration, priority: Priority) -> Polled {
        let now = Instant::now();
        let polled = self.shared.lock().follow(now, owner, id, interval, priority);
        self.shared.changed.notify_one();
        polled
    }

    /// Stops following.
    pub(crate) fn unfollow(&self, owner: &O) {
        self.shared.lock().unfollow(owner);
    }

    /// Stops following for every owner but those that `keep` names.
    pub(crate) fn retain_followers(&self, keep: impl Fn(&O) -> bool) {
        self.shared.lock().retain_followers(keep);
    }

    /// Records what the answer to one of our mutations says about an account. Results of polls that began earlier no longer
    /// count.
    pub(crate) fn changed(&self, account_id: &str, state: AccountState) {
        let woken = self.shared.lock().changed(Instant::now(), account_id, state);
        self.shared.wake(woken);
        self.shared.changed.notify_one();
    }

    /// All accounts that one user has in a toolkit, from a list that began after this call. Calls of the same moment for
    /// the same toolkit share a request.
    ///
    /// # Errors
    /// Those of the list; [`Error::Decode`] also if one of the user's accounts could not be decoded: an answer is
    /// complete or there is none.
    pub(crate) async fn accounts_of_user(
        &self,
        user_id: &str,
        toolkit: &str,
        priority: Priority,
    ) -> Result<Vec<Account>, Error> {
        self.shared.of_user.list(user_id, toolkit, priority).await
    }

    /// Polls everything that failed again now.
    pub(crate) fn retry_now(&self) {
        self.shared.lock().retry_now(Instant::now());
        self.shared.changed.notify_one();
    }
}

impl<O: Clone + Eq + Hash> AccountPoller<O> {
    /// Number of owners that follow an account.
    pub(crate) fn followers(&self) -> usize {
        self.shared.lock().followers()
    }
}

/// Starts batches when they are due. Aborting this task aborts them.
async fn run<O: Clone + Eq + Hash + Send + Sync + 'static>(shared: Arc<Shared<O>>) {
    let mut polls = JoinSet::new();
    loop {
        let step = shared.lock().next(Instant::now());
        let until = match step {
            Step::Poll(batch) => {
                polls.spawn(poll::poll(Arc::clone(&shared), batch));
                continue;
            }
            Step::WaitUntil(at) => Some(at),
            Step::Wait => None,
        };
        tokio::select! {
            () = shared.changed.notified() => {}
            // A poll that panicked has put its accounts back; the panic itself was reported where it happened.
            Some(_) = polls.join_next() => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
    }
}
