//! The poller with a source in memory, on a paused clock.

mod failures;
mod of_user;
mod polls;

use std::collections::{HashMap, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::composio::wire::Skipped;
use crate::composio::{AccountQuery, AccountStatus, Listing};

const LATENCY: Duration = Duration::from_millis(40);
const INTERVAL: Duration = Duration::from_secs(4);

#[derive(Default)]
struct World {
    accounts: HashMap<String, Account>,
    /// Hidden from lists, found by GET.
    unlisted: Vec<String>,
    /// Ids that make a list answer 400.
    poison: Vec<String>,
    /// Answers of the next lists, instead of the truth.
    failures: VecDeque<Error>,
    /// Answer of every list and GET until further notice.
    outage: Option<Error>,
    unauthorized_since: Option<(Error, Duration)>,
    skipped: Vec<Skipped>,
    lists: Vec<(Priority, AccountQuery)>,
    gets: Vec<(Priority, String)>,
    lists_now: usize,
    most_lists_at_once: usize,
    gets_now: usize,
    most_gets_at_once: usize,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn set(&self, account: Account) {
        self.world().accounts.insert(account.id.clone(), account);
    }

    fn lists(&self) -> usize {
        self.world().lists.len()
    }

    fn gets(&self) -> usize {
        self.world().gets.len()
    }
}

impl Source for Fake {
    fn listing<'a>(
        &'a self,
        priority: Priority,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Listing<Account>, Error>> {
        async move {
            let answer = {
                let mut world = self.world();
                world.lists.push((priority, query.clone()));
                world.lists_now += 1;
                world.most_lists_at_once = world.most_lists_at_once.max(world.lists_now);
                let poisoned = query
                    .ids
                    .iter()
                    .chain(&query.user_ids)
                    .any(|key| world.poison.contains(key));
                match (
                    world.failures.pop_front().or_else(|| world.outage.clone()),
                    poisoned,
                ) {
                    (Some(error), _) => Err(error),
                    (None, true) => Err(http(400)),
                    (None, false) => {
                        let shown = |account: &&Account| {
                            !world.unlisted.contains(&account.id)
                                && (query.ids.is_empty() || query.ids.contains(&account.id))
                                && (query.user_ids.is_empty() || query.user_ids.contains(&account.user_id))
                                && (query.toolkits.is_empty() || query.toolkits.contains(&account.toolkit))
                        };
                        let items = world.accounts.values().filter(shown).cloned().collect();
                        Ok(Listing {
                            items,
                            skipped: world.skipped.clone(),
                            pages: 1,
                            reported_total: None,
                        })
                    }
                }
            };
            sleep(LATENCY).await;
            self.world().lists_now -= 1;
            answer
        }
        .boxed()
    }

    fn account<'a>(
        &'a self,
        priority: Priority,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Account>, Error>> {
        async move {
            let answer = {
                let mut world = self.world();
                world.gets.push((priority, id.to_owned()));
                world.gets_now += 1;
                world.most_gets_at_once = world.most_gets_at_once.max(world.gets_now);
                match world.outage.clone() {
                    Some(error) => Err(error),
                    None => Ok(world.accounts.get(id).cloned()),
                }
            };
            sleep(LATENCY).await;
            self.world().gets_now -= 1;
            answer
        }
        .boxed()
    }

    fn unauthorized_since(&self) -> Option<(Error, Duration)> {
        self.world().unauthorized_since.clone()
    }
}

fn http(status: u16) -> Error {
    Error::Http {
        status,
        code: None,
        slug: None,
        message: "no".to_owned(),
        request_id: None,
        retry_after: None,
    }
}

fn account(id: &str, status: AccountStatus) -> Account {
    Account {
        id: id.to_owned(),
        toolkit: "reddit".to_owned(),
        auth_config_id: "ac_1".to_owned(),
        auth_config_disabled: false,
        user_id: format!("user of {id}"),
        status,
        status_reason: None,
        alias: None,
        is_disabled: false,
        created_at: None,
        updated_at: None,
    }
}

struct Rig {
    fake: Fake,
    poller: AccountPoller<String>,
    woken: mpsc::UnboundedReceiver<String>,
}

impl Rig {
    fn new() -> Self {
        Self::with(PollerOptions::default())
    }

    fn with(options: PollerOptions) -> Self {
        let fake = Fake::default();
        let (sender, woken) = mpsc::unbounded_channel();
        let wake = Arc::new(move |owner| sender.send(owner).unwrap());
        let poller = AccountPoller::start_with(Arc::new(fake.clone()), options, wake);
        Self { fake, poller, woken }
    }

    /// Follows `ca_<name>` for the owner of that name.
    fn follow(&self, name: &str) -> Polled {
        self.poller.follow(
            &name.to_owned(),
            &format!("ca_{name}"),
            INTERVAL,
            Priority::Pending,
        )
    }

    fn exists(&self, name: &str, status: AccountStatus) {
        self.fake.set(account(&format!("ca_{name}"), status));
    }

    /// Everyone who was woken so far, in order of name.
    fn woken(&mut self) -> Vec<String> {
        let mut woken: Vec<_> = std::iter::from_fn(|| self.woken.try_recv().ok()).collect();
        woken.sort_unstable();
        woken
    }
}

fn status(polled: &Polled) -> Option<&AccountStatus> {
    match &polled.state {
        Some(AccountState::Found(account)) => Some(&account.status),
        _ => None,
    }
}

/// Long enough for one poll of everything, shorter than an interval.
const ROUND: Duration = Duration::from_secs(1);
