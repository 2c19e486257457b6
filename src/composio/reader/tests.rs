//! The reader against a source in memory, on a paused clock.

use std::collections::{HashMap, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{advance, sleep};

use super::*;
use crate::composio::{AccountQuery, AccountStatus, Listing, Skipped};

const LATENCY: Duration = Duration::from_millis(40);
const CADENCE: Duration = Duration::from_secs(4);

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
    rejection: Option<(Error, Duration)>,
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
                        };
                        let items = world.accounts.values().filter(shown).cloned().collect();
                        Ok(Listing {
                            items,
                            skipped: world.skipped.clone(),
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

    fn rejection(&self) -> Option<(Error, Duration)> {
        self.world().rejection.clone()
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
    reader: AccountReader<String>,
    woken: mpsc::UnboundedReceiver<String>,
}

impl Rig {
    fn new() -> Self {
        Self::with(ReaderOptions::default())
    }

    fn with(options: ReaderOptions) -> Self {
        let fake = Fake::default();
        let (sender, woken) = mpsc::unbounded_channel();
        let wake = Arc::new(move |owner| sender.send(owner).unwrap());
        let reader = AccountReader::start_with(Arc::new(fake.clone()), options, wake);
        Self { fake, reader, woken }
    }

    /// Follows `ca_<name>` for the owner of that name.
    fn follow(&self, name: &str) -> Look {
        self.reader.follow(
            &name.to_owned(),
            &format!("ca_{name}"),
            CADENCE,
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

fn status(look: &Look) -> Option<&AccountStatus> {
    match &look.sight {
        Some(Sight::Found(account)) => Some(&account.status),
        _ => None,
    }
}

/// Long enough for one round of looks, shorter than a cadence.
const ROUND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_first_look_and_every_change_wake_and_an_unchanged_one_does_not() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Initiated);
    assert_eq!(rig.follow("a"), Look::default());
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    let first = rig.follow("a");
    assert_eq!(status(&first), Some(&AccountStatus::Initiated));

    sleep(CADENCE * 5).await;
    assert_eq!(rig.woken(), [""; 0]);
    let later = rig.follow("a");
    assert!(later.generation > first.generation && later.seen_at > first.seen_at);

    let mut touched = account("ca_a", AccountStatus::Initiated);
    touched.updated_at = Some("2026-11-21T10:00:00Z".parse().unwrap());
    rig.fake.set(touched);
    sleep(CADENCE * 2).await;
    assert_eq!(rig.woken(), [""; 0], "a timestamp is not news");

    rig.exists("a", AccountStatus::Active);
    sleep(CADENCE + ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Active));
    assert_eq!(rig.fake.gets(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_followers_share_full_lists() {
    let rig = Rig::new();
    for number in 0..1000 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        rig.follow(&number.to_string());
        // They arrive spread over a whole cadence.
        sleep(CADENCE / 1000).await;
    }
    sleep(CADENCE).await;
    rig.fake.world().lists.clear();
    let cadences = 25;
    sleep(CADENCE * cadences).await;
    let world = rig.fake.world();
    let polls: usize = world.lists.iter().map(|(_, query)| query.ids.len()).sum();
    assert!(
        polls >= 90 * world.lists.len(),
        "{polls} polls by {} lists",
        world.lists.len()
    );
    assert!(
        polls >= 1000 * (cadences as usize - 1),
        "everyone is polled at their cadence: {polls}"
    );
    assert!(
        polls <= 1500 * cadences as usize,
        "and not much more often: {polls}"
    );
    assert!(world.most_lists_at_once <= 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_cadence_for_the_next_look() {
    let rig = Rig::new();
    for number in 0..350 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        rig.follow(&number.to_string());
        sleep(Duration::from_millis(7)).await;
    }
    let slack = Duration::from_millis(250);
    for _ in 0..40 {
        sleep(Duration::from_millis(700)).await;
        for number in 0..350 {
            let seen_at = rig.follow(&number.to_string()).seen_at.unwrap();
            assert!(
                seen_at.elapsed() <= CADENCE + slack,
                "{number}: {:?}",
                seen_at.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_account_is_gone_only_when_a_get_says_so() {
    let mut rig = Rig::new();
    rig.exists("hidden", AccountStatus::Other("HIBERNATING".to_owned()));
    rig.fake.world().unlisted.push("ca_hidden".to_owned());
    rig.follow("hidden");
    rig.follow("deleted");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["deleted", "hidden"]);
    assert_eq!(rig.follow("deleted").sight, Some(Sight::Gone));
    assert_eq!(status(&rig.follow("hidden")).unwrap().as_str(), "HIBERNATING");
    assert_eq!(rig.fake.gets(), 2);

    // Deletion is final: its absence from later lists needs no further proof. The hidden one does each time.
    sleep(CADENCE * 3).await;
    let gets: Vec<_> = rig.fake.world().gets.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(gets.iter().filter(|id| *id == "ca_deleted").count(), 1);
    assert!(gets.iter().filter(|id| *id == "ca_hidden").count() >= 3);
    assert_eq!(rig.woken(), [""; 0]);

    // Unless somebody asks.
    rig.reader.refresh(&"deleted".to_owned());
    sleep(ROUND).await;
    assert_eq!(
        rig.fake
            .world()
            .gets
            .iter()
            .filter(|(_, id)| id == "ca_deleted")
            .count(),
        2
    );
    assert_eq!(rig.woken(), ["deleted"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_does_not_make_anybody_gone() {
    let mut rig = Rig::new();
    for number in 0..60 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        rig.fake.world().unlisted.push(format!("ca_{number}"));
        rig.follow(&number.to_string());
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.woken().len(), 60);
    for number in 0..60 {
        assert_eq!(
            status(&rig.follow(&number.to_string())),
            Some(&AccountStatus::Active)
        );
    }
    let world = rig.fake.world();
    assert!(world.most_gets_at_once <= 4);
    assert!(
        world
            .gets
            .iter()
            .all(|(priority, _)| *priority == Priority::Background)
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_item_does_not_make_the_remembered_gone_by_absence() {
    let rig = Rig::new();
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.fake.gets(), 1);
    rig.fake.world().skipped.push(Skipped::default());
    sleep(CADENCE).await;
    assert_eq!(rig.fake.gets(), 2, "an incomplete list confirms nothing");
}

#[tokio::test(start_paused = true)]
async fn one_bad_id_does_not_blind_the_others() {
    let mut rig = Rig::new();
    rig.fake.world().poison.push("ca_bad".to_owned());
    for number in 0..99 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        rig.follow(&number.to_string());
    }
    rig.follow("bad");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.woken().len(), 100);
    assert_eq!(rig.follow("bad").sight, Some(Sight::Gone));
    let searching = rig.fake.lists();
    assert!(searching <= 15, "{searching} lists to find one bad id");

    // From then on it is asked for by itself, and the rest share one list.
    sleep(CADENCE * 2).await;
    assert!(rig.fake.lists() - searching <= 3);
    assert!(
        rig.fake.world().lists[searching..]
            .iter()
            .all(|(_, query)| !query.ids.contains(&"ca_bad".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_told_after_the_third_and_its_end_as_well() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);

    rig.fake.world().failures.extend([http(502), Error::Timeout]);
    sleep(CADENCE * 3).await;
    assert_eq!(rig.woken(), [""; 0], "two failures pass unnoticed");

    rig.fake.world().outage = Some(http(503));
    sleep(CADENCE + Duration::from_secs(10)).await;
    assert_eq!(rig.woken(), ["a"]);
    let look = rig.follow("a");
    let trouble = look.trouble.unwrap();
    assert_eq!(trouble.error, http(503));
    assert!(trouble.failures >= 3 && trouble.retry_in <= Duration::from_secs(60));
    assert!(look.sight.is_some(), "what was known stays known");

    sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.woken(), [""; 0], "trouble that goes on is not news");
    let before = rig.fake.lists();
    sleep(Duration::from_secs(600)).await;
    assert!(rig.fake.lists() - before <= 15, "one try a minute or so");

    rig.fake.world().outage = None;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(rig.follow("a").trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_needs_somebody_is_told_at_once() {
    let mut rig = Rig::new();
    rig.fake.world().outage = Some(http(403));
    rig.follow("a");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(rig.follow("a").trouble.unwrap().error, http(403));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_is_not_used_until_it_is_forgiven() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.fake.world().rejection = Some((http(401), Duration::from_secs(300)));
    rig.follow("a");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.woken(), ["a"]);
    let trouble = rig.follow("a").trouble.unwrap();
    assert!(trouble.error.is_unauthorized() && trouble.retry_in > Duration::from_secs(200));
    assert_eq!(rig.fake.lists(), 0);

    rig.fake.world().rejection = None;
    rig.reader.retry_now();
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Active));
}

#[tokio::test(start_paused = true)]
async fn a_short_budget_stretches_the_cadence_without_complaint() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    rig.fake.world().failures.extend([
        Error::BudgetExhausted {
            retry_after: Duration::from_secs(9),
        },
        http(429),
    ]);
    sleep(CADENCE + ROUND).await;
    let before = rig.fake.lists();
    sleep(Duration::from_secs(7)).await;
    assert_eq!(rig.fake.lists(), before, "not before the budget says so");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.woken(), [""; 0]);
    assert_eq!(rig.follow("a").trouble, None);

    rig.fake.world().outage = Some(Error::BudgetExhausted {
        retry_after: Duration::from_secs(9),
    });
    sleep(Duration::from_secs(90)).await;
    assert_eq!(rig.woken(), ["a"], "unless it lasts");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_wakes_its_owner_with_a_look_that_began_later() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.reader
        .follow(&"other".to_owned(), "ca_a", CADENCE, Priority::Pending);
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a", "other"]);

    let asked = rig.reader.refresh(&"a".to_owned());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.woken(), ["a"], "only who asked");
    assert!(rig.follow("a").generation > asked);

    // While a look is under way, a refresh waits for the next one.
    sleep(CADENCE - Duration::from_millis(140)).await;
    while rig.fake.world().lists_now == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let asked = rig.reader.refresh(&"a".to_owned());
    let under_way = rig.fake.lists();
    while rig.fake.world().lists_now > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.woken(), [""; 0]);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.fake.lists(), under_way + 1);
    assert!(rig.follow("a").generation > asked);
    assert_eq!(rig.woken(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_reread_wakes_only_for_news() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    rig.woken();
    rig.reader.reread("ca_a");
    rig.reader.reread("ca_unknown");
    sleep(Duration::from_millis(200)).await;
    assert_eq!((rig.fake.lists(), rig.woken()), (2, vec![]));
    rig.exists("a", AccountStatus::Expired);
    rig.reader.reread("ca_a");
    sleep(Duration::from_millis(200)).await;
    assert_eq!((rig.fake.lists(), rig.woken()), (3, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_mutation_overtakes_the_look_under_way() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    rig.woken();
    rig.reader.refresh(&"a".to_owned());
    while rig.fake.world().lists_now == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // The list under way has already read ACTIVE.
    let inactive = account("ca_a", AccountStatus::Inactive);
    rig.fake.set(inactive.clone());
    rig.reader.changed("ca_a", Sight::Found(inactive));
    assert_eq!(rig.woken(), ["a"]);
    while rig.fake.lists() < 3 {
        assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Inactive));
        sleep(Duration::from_millis(5)).await;
    }
    sleep(CADENCE).await;
    assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Inactive));
    rig.reader.changed("ca_a", Sight::Gone);
    assert_eq!(rig.follow("a").sight, Some(Sight::Gone));
}

#[tokio::test(start_paused = true)]
async fn unfollowing_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    rig.reader.follow(
        &"b".to_owned(),
        "ca_a",
        Duration::from_secs(60),
        Priority::Background,
    );
    // Another id replaces the first.
    rig.reader
        .follow(&"c".to_owned(), "ca_old", CADENCE, Priority::Pending);
    rig.reader
        .follow(&"c".to_owned(), "ca_new", CADENCE, Priority::Pending);
    sleep(Duration::from_millis(60)).await;
    assert_eq!(rig.fake.world().lists_now, 1);
    for owner in ["a", "b", "c", "nobody"] {
        rig.reader.unfollow(&owner.to_owned());
    }
    assert!(rig.reader.shared.lock().is_empty());
    sleep(CADENCE * 3).await;
    assert!(rig.reader.shared.lock().is_empty());
    assert_eq!(rig.fake.lists(), 1);
    assert!(!rig.fake.world().lists[0].1.ids.contains(&"ca_old".to_owned()));
    assert_eq!(rig.woken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_cadence_of_several_owners_counts_and_can_change() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    let slow = Duration::from_secs(300);
    rig.reader
        .follow(&"slow".to_owned(), "ca_a", slow, Priority::Background);
    rig.reader
        .follow(&"fast".to_owned(), "ca_a", CADENCE, Priority::Pending);
    sleep(CADENCE * 10).await;
    let often = rig.fake.lists();
    assert!((9..=11).contains(&often), "{often}");
    rig.reader.unfollow(&"fast".to_owned());
    sleep(Duration::from_secs(299)).await;
    assert!(rig.fake.lists() - often <= 1);
    rig.reader
        .follow(&"slow".to_owned(), "ca_a", CADENCE, Priority::Pending);
    sleep(ROUND).await;
    assert!(
        rig.fake.lists() > often,
        "a shorter cadence counts from the last look"
    );
}

#[tokio::test(start_paused = true)]
async fn the_urgent_do_not_wait_behind_slow_refreshes() {
    let rig = Rig::new();
    for number in 0..400 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        let owner = number.to_string();
        rig.reader
            .follow(&owner, &format!("ca_{owner}"), CADENCE, Priority::Background);
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(
        rig.fake.world().lists_now,
        2,
        "background reads use half of the places"
    );
    rig.exists("human", AccountStatus::Initiated);
    rig.reader
        .follow(&"human".to_owned(), "ca_human", CADENCE, Priority::Interactive);
    sleep(Duration::from_millis(100)).await;
    assert!(
        rig.reader
            .follow(&"human".to_owned(), "ca_human", CADENCE, Priority::Interactive)
            .sight
            .is_some()
    );
    let world = rig.fake.world();
    assert!(world.lists.iter().any(|(priority, query)| {
        *priority == Priority::Interactive && query.ids.contains(&"ca_human".to_owned())
    }));
}

#[tokio::test(start_paused = true)]
async fn dropping_or_stopping_the_reader_ends_its_task() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    rig.reader.stop();
    let lists = rig.fake.lists();
    sleep(CADENCE * 3).await;
    assert_eq!(rig.fake.lists(), lists);
    assert!(rig.follow("a").sight.is_some());

    let Rig { fake, reader, woken } = Rig::new();
    reader.follow(&"a".to_owned(), "ca_a", CADENCE, Priority::Pending);
    let clone = reader.clone();
    drop(reader);
    sleep(ROUND).await;
    assert_eq!(fake.lists(), 1, "a clone keeps it alive");
    drop(clone);
    sleep(CADENCE * 3).await;
    assert_eq!(fake.lists(), 1);
    drop(woken);
    assert_eq!(Arc::strong_count(&fake.0), 1);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_look_puts_its_accounts_back() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.reader.stop();
    rig.follow("a");
    let Step::Look(batch) = ({
        advance(Duration::from_millis(60)).await;
        rig.reader.shared.lock().next(Instant::now())
    }) else {
        panic!("nothing due")
    };
    let look = tokio::spawn(look::look(Arc::clone(&rig.reader.shared), batch));
    while rig.fake.world().lists_now == 0 {
        tokio::task::yield_now().await;
    }
    look.abort();
    assert!(look.await.unwrap_err().is_cancelled());
    let step = rig.reader.shared.lock().next(Instant::now());
    assert!(
        matches!(step, Step::WaitUntil(at) if at > Instant::now()),
        "{step:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn questions_of_one_moment_share_a_list() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.exists(name, AccountStatus::Active);
    }
    let mut questions = JoinSet::new();
    for name in ["a", "b", "a", "nobody"] {
        let reader = rig.reader.clone();
        let priority = if name == "b" {
            Priority::Interactive
        } else {
            Priority::Background
        };
        questions.spawn(async move {
            (
                name,
                reader
                    .accounts_of_user(&format!("user of ca_{name}"), priority)
                    .await,
            )
        });
    }
    for (name, answer) in questions.join_all().await {
        let ids: Vec<String> = answer.unwrap().into_iter().map(|account| account.id).collect();
        let expected = if name == "nobody" {
            vec![]
        } else {
            vec![format!("ca_{name}")]
        };
        assert_eq!(ids, expected);
    }
    let lists = rig.fake.world().lists.clone();
    let [(priority, query)] = lists.as_slice() else {
        panic!("{lists:?}")
    };
    assert_eq!(*priority, Priority::Interactive);
    assert_eq!(
        query.user_ids,
        ["user of ca_a", "user of ca_b", "user of ca_nobody"]
    );
    assert_eq!(query.toolkits, ["reddit"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_by_a_list_that_began_after_it() {
    let rig = Rig::new();
    let first = tokio::spawn({
        let reader = rig.reader.clone();
        async move {
            reader
                .accounts_of_user("user of ca_a", Priority::Interactive)
                .await
        }
    });
    while rig.fake.world().lists_now == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    rig.exists("a", AccountStatus::Initializing);
    let second = rig
        .reader
        .accounts_of_user("user of ca_a", Priority::Interactive)
        .await
        .unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!(first.await.unwrap().unwrap(), []);
    assert_eq!(rig.fake.lists(), 2);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_list_holds_becomes_several_and_long_ids_count_by_length() {
    let rig = Rig::new();
    let mut questions = JoinSet::new();
    for number in 0..230 {
        let reader = rig.reader.clone();
        questions.spawn(async move {
            reader
                .accounts_of_user(&format!("u{number}"), Priority::Pending)
                .await
        });
    }
    for number in 0..20 {
        let reader = rig.reader.clone();
        let user = format!("{number}{}", "x".repeat(300));
        questions.spawn(async move { reader.accounts_of_user(&user, Priority::Pending).await });
    }
    assert!(questions.join_all().await.iter().all(Result::is_ok));
    let world = rig.fake.world();
    assert!(world.lists.len() <= 6, "{}", world.lists.len());
    for (_, query) in &world.lists {
        let bytes: usize = query.user_ids.iter().map(|user| user.len() + 1).sum();
        assert!(
            query.user_ids.len() <= 100 && bytes <= 4400,
            "{} users, {bytes} bytes",
            query.user_ids.len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_account_spoils_its_owners_answer_only() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    let skipped = Skipped {
        id: None,
        user_id: Some("user of ca_b".to_owned()),
    };
    rig.fake.world().skipped.push(skipped);
    let (a, b) = tokio::join!(
        rig.reader.accounts_of_user("user of ca_a", Priority::Pending),
        rig.reader.accounts_of_user("user of ca_b", Priority::Pending),
    );
    assert_eq!(a.unwrap().len(), 1);
    assert!(matches!(b, Err(Error::Decode { .. })));
    assert_eq!(rig.fake.lists(), 1);

    // One that cannot be attributed to anybody is looked for user by user.
    rig.fake.world().skipped = vec![Skipped::default()];
    let (a, b) = tokio::join!(
        rig.reader.accounts_of_user("user of ca_a", Priority::Pending),
        rig.reader.accounts_of_user("user of ca_b", Priority::Pending),
    );
    assert!(a.is_err() && b.is_err());
    assert_eq!(rig.fake.lists(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_list_refuses_does_not_spoil_the_others() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.fake.world().poison.push("bad".to_owned());
    let (good, bad, comma, empty) = tokio::join!(
        rig.reader.accounts_of_user("user of ca_a", Priority::Pending),
        rig.reader.accounts_of_user("bad", Priority::Pending),
        rig.reader.accounts_of_user("a,b", Priority::Pending),
        rig.reader.accounts_of_user("", Priority::Pending),
    );
    assert_eq!(good.unwrap().len(), 1);
    assert_eq!(bad.unwrap_err(), http(400));
    for refused in [comma, empty] {
        assert!(matches!(refused, Err(Error::InvalidRequest { .. })));
    }
}
