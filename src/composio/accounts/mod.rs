//! Reads of accounts that many objects share: whoever follows an account is woken when it changes, and a hundred
//! accounts cost one request.
//!
//! [`schedule`] decides what is polled next and [`book`] what a poll means; both are plain data. [`poll`] makes the
//! requests.

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
use self::of_user::UserAccounts;
use self::schedule::{Id, Limits};
use self::source::Source;
use super::{Account, Client, Error, Priority};

/// Settings of a poller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerOptions {
    /// How long the first account that is due, and the first question for a user's accounts, wait for company.
    pub window: Duration,
    /// Most accounts of one list request, at most 100: the size of a page.
    pub batch: usize,
    /// Most list requests at the same time. Background reads use half of them at most.
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
    reason = "nearly every state is an account, and nearly all of it is heap"
)]
pub enum AccountState {
    /// It exists and polls like this.
    Found(Account),
    /// It was deleted, or never existed: a GET of it said so.
    NotFound,
}

impl AccountState {
    /// Whether a poller learns nothing from `other` that it does not know.
    pub fn same_for_followers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Found(one), Self::Found(other)) => one.same_for_followers(other),
            (Self::NotFound, Self::NotFound) => true,
            _ => false,
        }
    }
}

/// Polls that fail. Present once it is worth reporting: at once when somebody must act, after three failures or 30 seconds
/// when it may reading, and after a whole interval when only the budget is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollFailure {
    /// Why the newest poll failed.
    pub error: Error,
    /// Failures in a row.
    pub failures: u32,
    /// Time until the next try.
    pub retry_in: Duration,
}

/// The newest that is known about an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// The newest successful poll; `None` before the first.
    pub state: Option<AccountState>,
    /// When that poll began. On tokio's clock, which tests can pause.
    pub polled_at: Option<Instant>,
    /// Number of that poll; it only grows. 0 before the first.
    pub generation: u64,
    /// Polls have been failing since.
    pub failure: Option<PollFailure>,
}

/// Follows accounts on behalf of owners. `O` identifies an owner, for example a Kubernetes object; each follows one
/// account. Clones share everything; the last one that is dropped ends the poller.
pub struct AccountPoller<O: Clone + Eq + Hash> {
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

/// The poller's task, and with it everything it has under way, ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared<O> {
    source: Arc<dyn Source>,
    user_accounts: Arc<UserAccounts>,
    follows: Mutex<Follows<O>>,
    /// The book changed: the task decides anew.
    news: Notify,
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
        self.news.notify_one();
    }

    /// Outside the lock: whoever is woken may ask the poller at once.
    fn wake(&self, owners: Vec<O>) {
        for owner in owners {
            (self.wake)(owner);
        }
    }
}

impl<O: Clone + Eq + Hash + Send + Sync + 'static> AccountPoller<O> {
    /// Starts a poller on the current tokio runtime. `wake` is called for an owner when its account changed materially,
    /// at the first poll, after a [`refresh`](Self::refresh), and when failure begins or ends; it must not block.
    pub fn start(client: Client, options: &PollerOptions, wake: Arc<dyn Fn(O) + Send + Sync>) -> Self {
        Self::start_with(Arc::new(client), options, wake)
    }

    fn start_with(
        source: Arc<dyn Source>,
        options: &PollerOptions,
        wake: Arc<dyn Fn(O) + Send + Sync>,
    ) -> Self {
        let PollerOptions {
            window,
            batch,
            in_flight,
            confirmations,
        } = *options;
        let limits = Limits {
            window,
            batch: batch.clamp(1, 100),
        };
        let shared = Arc::new(Shared {
            user_accounts: Arc::new(UserAccounts::new(Arc::clone(&source), window)),
            source,
            follows: Mutex::new(Follows::new(limits, in_flight)),
            news: Notify::new(),
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
    pub fn follow(&self, owner: &O, id: &str, interval: Duration, priority: Priority) -> Polled {
        let look = self
            .shared
            .lock()
            .follow(Instant::now(), owner, id, interval, priority);
        self.shared.news.notify_one();
        look
    }

    /// Stops following.
    pub fn unfollow(&self, owner: &O) {
        self.shared.lock().unfollow(owner);
    }

    /// Stops following for every owner but those that `keep` names.
    pub fn retain_followers(&self, keep: impl Fn(&O) -> bool) {
        self.shared.lock().retain_followers(keep);
    }

    /// Makes the owner's account due now, whatever the interval. A poll whose generation is greater than the returned
    /// number began after this call; the owner is woken by the first one.
    pub fn refresh(&self, owner: &O) -> u64 {
        let generation = self.shared.lock().refresh(Instant::now(), owner);
        self.shared.news.notify_one();
        generation
    }

    /// Makes an account due now because somebody says that it changed, for example a webhook. Wakes its followers only
    /// if it did.
    pub fn poll_now(&self, account_id: &str) {
        self.shared.lock().poll_now(Instant::now(), account_id);
        self.shared.news.notify_one();
    }

    /// Remembers what a mutation of ours reported about an account. Polls that began earlier no longer count.
    pub fn changed(&self, account_id: &str, state: AccountState) {
        let woken = self.shared.lock().changed(Instant::now(), account_id, state);
        self.shared.wake(woken);
        self.shared.news.notify_one();
    }

    /// All accounts of one user for one toolkit, from a list that began after this call. Questions of the same moment about
    /// the same toolkit share a request.
    ///
    /// # Errors
    /// Those of the list; [`Error::Decode`] also if one of the user's accounts could not be understood: an answer is
    /// complete or there is none.
    pub async fn accounts_of_user(
        &self,
        user_id: &str,
        toolkit: &str,
        priority: Priority,
    ) -> Result<Vec<Account>, Error> {
        self.shared
            .user_accounts
            .of_user(user_id, toolkit, priority)
            .await
    }

    /// Tries everything again now that failed.
    pub fn retry_now(&self) {
        self.shared.lock().retry_now(Instant::now());
        self.shared.news.notify_one();
    }

    /// Ends the polls; what is known stays readable.
    pub fn stop(&self) {
        self.task.0.abort();
    }
}

impl<O: Clone + Eq + Hash> AccountPoller<O> {
    /// Number of owners that follow an account.
    pub fn followers(&self) -> usize {
        self.shared.lock().followers()
    }
}

/// Starts batches when they are due. Aborting it aborts them.
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
            () = shared.news.notified() => {}
            // A poll that panicked has put its accounts back; the panic itself was reported where it happened.
            Some(_) = polls.join_next() => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
    }
}
