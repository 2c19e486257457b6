//! When accounts are polled, and who is woken.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_poll_and_every_change_wake_and_an_unchanged_one_does_not() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Initiated);
    assert_eq!(rig.follow("a"), Polled::default());
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    let first = rig.follow("a");
    assert_eq!(status(&first), Some(&AccountStatus::Initiated));

    sleep(INTERVAL * 5).await;
    assert_eq!(rig.woken(), [""; 0]);
    let later = rig.follow("a");
    assert!(later.generation > first.generation && later.polled_at > first.polled_at);

    let mut touched = account("ca_a", AccountStatus::Initiated);
    touched.updated_at = Some("2026-11-21T10:00:00Z".parse().unwrap());
    rig.fake.set(touched);
    sleep(INTERVAL * 2).await;
    assert_eq!(rig.woken(), [""; 0], "a timestamp is not news");

    rig.exists("a", AccountStatus::Active);
    sleep(INTERVAL + ROUND).await;
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
        // They arrive spread over a whole interval.
        sleep(INTERVAL / 1000).await;
    }
    sleep(INTERVAL).await;
    rig.fake.world().lists.clear();
    let intervals = 25;
    sleep(INTERVAL * intervals).await;
    let world = rig.fake.world();
    let polls: usize = world.lists.iter().map(|(_, query)| query.ids.len()).sum();
    assert!(
        polls >= 90 * world.lists.len(),
        "{polls} polls by {} lists",
        world.lists.len()
    );
    assert!(
        polls >= 1000 * (intervals as usize - 1),
        "everyone is polled at their interval: {polls}"
    );
    assert!(
        polls <= 1500 * intervals as usize,
        "and not much more often: {polls}"
    );
    assert!(world.most_lists_at_once <= 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_an_interval_for_the_next_poll() {
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
            let polled_at = rig.follow(&number.to_string()).polled_at.unwrap();
            assert!(
                polled_at.elapsed() <= INTERVAL + slack,
                "{number}: {:?}",
                polled_at.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutation_overrides_the_poll_under_way() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    rig.woken();
    while rig.fake.world().lists_now == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // The list under way has already read ACTIVE.
    let inactive = account("ca_a", AccountStatus::Inactive);
    rig.fake.set(inactive.clone());
    rig.poller.changed("ca_a", AccountState::Found(inactive));
    assert_eq!(rig.woken(), ["a"]);
    while rig.fake.lists() < 3 {
        assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Inactive));
        sleep(Duration::from_millis(5)).await;
    }
    sleep(INTERVAL).await;
    assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Inactive));
    rig.poller.changed("ca_a", AccountState::NotFound);
    assert_eq!(rig.follow("a").state, Some(AccountState::NotFound));
}

#[tokio::test(start_paused = true)]
async fn unfollowing_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    rig.poller.follow(
        &"b".to_owned(),
        "ca_a",
        Duration::from_mins(1),
        Priority::Background,
    );
    // Another id replaces the first.
    rig.poller
        .follow(&"c".to_owned(), "ca_old", INTERVAL, Priority::Pending);
    rig.poller
        .follow(&"c".to_owned(), "ca_new", INTERVAL, Priority::Pending);
    sleep(Duration::from_millis(60)).await;
    assert_eq!(rig.fake.world().lists_now, 1);
    for owner in ["a", "b", "c", "nobody"] {
        rig.poller.unfollow(&owner.to_owned());
    }
    assert!(rig.poller.shared.lock().is_empty());
    sleep(INTERVAL * 3).await;
    assert!(rig.poller.shared.lock().is_empty());
    assert_eq!(rig.fake.lists(), 1);
    assert!(!rig.fake.world().lists[0].1.ids.contains(&"ca_old".to_owned()));
    assert_eq!(rig.woken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_interval_of_several_owners_counts_and_can_change() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    let slow = Duration::from_mins(5);
    rig.poller
        .follow(&"slow".to_owned(), "ca_a", slow, Priority::Background);
    rig.poller
        .follow(&"fast".to_owned(), "ca_a", INTERVAL, Priority::Pending);
    sleep(INTERVAL * 10).await;
    let often = rig.fake.lists();
    assert!((9..=11).contains(&often), "{often}");
    rig.poller.unfollow(&"fast".to_owned());
    sleep(Duration::from_secs(299)).await;
    assert!(rig.fake.lists() - often <= 1);
    rig.poller
        .follow(&"slow".to_owned(), "ca_a", INTERVAL, Priority::Pending);
    sleep(ROUND).await;
    assert!(
        rig.fake.lists() > often,
        "a shorter interval counts from the last poll"
    );
}

#[tokio::test(start_paused = true)]
async fn the_urgent_do_not_wait_behind_slow_refreshes() {
    let rig = Rig::new();
    for number in 0..400 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        let owner = number.to_string();
        rig.poller
            .follow(&owner, &format!("ca_{owner}"), INTERVAL, Priority::Background);
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(
        rig.fake.world().lists_now,
        2,
        "background reads use half of the places"
    );
    rig.exists("human", AccountStatus::Initiated);
    rig.poller
        .follow(&"human".to_owned(), "ca_human", INTERVAL, Priority::Interactive);
    sleep(Duration::from_millis(100)).await;
    assert!(
        rig.poller
            .follow(&"human".to_owned(), "ca_human", INTERVAL, Priority::Interactive)
            .state
            .is_some()
    );
    let world = rig.fake.world();
    assert!(world.lists.iter().any(|(priority, query)| {
        *priority == Priority::Interactive && query.ids.contains(&"ca_human".to_owned())
    }));
}

#[tokio::test(start_paused = true)]
async fn dropping_or_stopping_the_poller_ends_its_task() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    rig.poller.task.0.abort();
    let lists = rig.fake.lists();
    sleep(INTERVAL * 3).await;
    assert_eq!(rig.fake.lists(), lists);
    assert!(rig.follow("a").state.is_some());

    let Rig { fake, poller, woken } = Rig::new();
    poller.follow(&"a".to_owned(), "ca_a", INTERVAL, Priority::Pending);
    let clone = poller.clone();
    drop(poller);
    sleep(ROUND).await;
    assert_eq!(fake.lists(), 1, "a clone keeps it alive");
    drop(clone);
    sleep(INTERVAL * 3).await;
    assert_eq!(fake.lists(), 1);
    drop(woken);
    assert_eq!(Arc::strong_count(&fake.0), 1);
}

#[tokio::test(start_paused = true)]
async fn accounts_of_any_toolkit_are_followed_by_the_same_list() {
    let mut rig = Rig::new();
    rig.exists("red", AccountStatus::Initiated);
    let slack = Account {
        toolkit: "slack".to_owned(),
        ..account("ca_team", AccountStatus::Initiated)
    };
    rig.fake.set(slack.clone());
    rig.follow("red");
    rig.follow("team");
    sleep(ROUND).await;
    assert_eq!((rig.fake.lists(), rig.fake.gets()), (1, 0));
    assert_eq!(rig.woken(), ["red", "team"]);
    rig.fake.set(Account {
        status: AccountStatus::Active,
        ..slack
    });
    sleep(INTERVAL + ROUND).await;
    assert_eq!(rig.woken(), ["team"]);
    assert_eq!(status(&rig.follow("team")), Some(&AccountStatus::Active));
}
