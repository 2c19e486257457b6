//! Absence, bad ids, failing requests and short budgets.

use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_missing_account_is_not_found_only_when_a_get_says_so() {
    let mut rig = Rig::new();
    rig.exists("hidden", AccountStatus::Other("HIBERNATING".to_owned()));
    rig.fake.world().unlisted.push("ca_hidden".to_owned());
    rig.follow("hidden");
    rig.follow("deleted");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["deleted", "hidden"]);
    assert_eq!(rig.follow("deleted").state, Some(AccountState::NotFound));
    assert_eq!(status(&rig.follow("hidden")).unwrap().as_str(), "HIBERNATING");
    assert_eq!(rig.fake.gets(), 2);

    // Deletion is final: its absence from later lists needs no further proof. The hidden one does each time.
    sleep(INTERVAL * 3).await;
    let gets: Vec<_> = rig.fake.world().gets.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(gets.iter().filter(|id| *id == "ca_deleted").count(), 1);
    assert!(gets.iter().filter(|id| *id == "ca_hidden").count() >= 3);
    assert_eq!(rig.woken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_does_not_make_accounts_not_found() {
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
async fn an_incomplete_list_does_not_confirm_that_an_account_is_not_found() {
    let rig = Rig::new();
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.fake.gets(), 1);
    rig.fake.world().skipped.push(Skipped::default());
    sleep(INTERVAL).await;
    assert_eq!(rig.fake.gets(), 2, "an incomplete list confirms nothing");
}

#[tokio::test(start_paused = true)]
async fn one_bad_id_does_not_hide_the_others() {
    let mut rig = Rig::new();
    rig.fake.world().poison.push("ca_bad".to_owned());
    for number in 0..99 {
        rig.exists(&number.to_string(), AccountStatus::Active);
        rig.follow(&number.to_string());
    }
    rig.follow("bad");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.woken().len(), 100);
    assert_eq!(rig.follow("bad").state, Some(AccountState::NotFound));
    let searching = rig.fake.lists();
    assert!(searching <= 15, "{searching} lists to find one bad id");

    // From then on it is asked for by itself, and the rest share one list.
    sleep(INTERVAL * 2).await;
    assert!(rig.fake.lists() - searching <= 3);
    assert!(
        rig.fake.world().lists[searching..]
            .iter()
            .all(|(_, query)| !query.ids.contains(&"ca_bad".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_reported_after_the_third_and_so_is_its_end() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);

    rig.fake.world().failures.extend([http(502), Error::Timeout]);
    sleep(INTERVAL * 3).await;
    assert_eq!(rig.woken(), [""; 0], "two failures pass unnoticed");

    rig.fake.world().outage = Some(http(503));
    sleep(INTERVAL + Duration::from_secs(10)).await;
    assert_eq!(rig.woken(), ["a"]);
    let polled = rig.follow("a");
    let failure = polled.failure.unwrap();
    assert_eq!(failure.error, http(503));
    assert!(failure.failures >= 3 && failure.retry_in <= Duration::from_mins(1));
    assert!(polled.state.is_some(), "what was known stays known");

    sleep(Duration::from_mins(10)).await;
    assert_eq!(rig.woken(), [""; 0], "a failure that goes on is not news");
    let before = rig.fake.lists();
    sleep(Duration::from_mins(10)).await;
    assert!(rig.fake.lists() - before <= 15, "one try a minute or so");

    rig.fake.world().outage = None;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(rig.follow("a").failure, None);
}

/// Found as an outage of five seconds that changed the conditions of every object twice.
#[tokio::test(start_paused = true)]
async fn an_outage_of_five_seconds_is_no_news() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.follow("a");
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    for offset in 0..20 {
        sleep(Duration::from_millis(500 * offset)).await;
        rig.fake.world().outage = Some(http(503));
        sleep(Duration::from_secs(5)).await;
        rig.fake.world().outage = None;
        sleep(INTERVAL * 2).await;
        assert_eq!(rig.woken(), [""; 0], "offset {offset}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_somebody_must_act_on_is_reported_at_once() {
    let mut rig = Rig::new();
    rig.fake.world().outage = Some(http(403));
    rig.follow("a");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(rig.follow("a").failure.unwrap().error, http(403));
}

#[tokio::test(start_paused = true)]
async fn an_unauthorized_key_is_not_used_until_that_is_cleared() {
    let mut rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.fake.world().unauthorized_since = Some((http(401), Duration::from_mins(5)));
    rig.follow("a");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.woken(), ["a"]);
    let failure = rig.follow("a").failure.unwrap();
    assert!(failure.error.is_unauthorized() && failure.retry_in > Duration::from_secs(200));
    assert_eq!(rig.fake.lists(), 0);

    rig.fake.world().unauthorized_since = None;
    rig.poller.retry_now();
    sleep(ROUND).await;
    assert_eq!(rig.woken(), ["a"]);
    assert_eq!(status(&rig.follow("a")), Some(&AccountStatus::Active));
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_makes_polls_rarer_without_a_failure() {
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
    sleep(INTERVAL + ROUND).await;
    let before = rig.fake.lists();
    sleep(Duration::from_secs(7)).await;
    assert_eq!(rig.fake.lists(), before, "not before the budget says so");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(rig.woken(), [""; 0]);
    assert_eq!(rig.follow("a").failure, None);

    rig.fake.world().outage = Some(Error::BudgetExhausted {
        retry_after: Duration::from_secs(9),
    });
    sleep(Duration::from_secs(90)).await;
    assert_eq!(rig.woken(), ["a"], "unless it lasts");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_poll_puts_its_accounts_back() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.poller.task.0.abort();
    rig.follow("a");
    let Step::Poll(batch) = ({
        advance(Duration::from_millis(60)).await;
        rig.poller.shared.lock().next(Instant::now())
    }) else {
        panic!("nothing due")
    };
    let poll = tokio::spawn(poll::poll(Arc::clone(&rig.poller.shared), batch));
    while rig.fake.world().lists_now == 0 {
        tokio::task::yield_now().await;
    }
    poll.abort();
    assert!(poll.await.unwrap_err().is_cancelled());
    let step = rig.poller.shared.lock().next(Instant::now());
    assert!(
        matches!(step, Step::WaitUntil(at) if at > Instant::now()),
        "{step:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_account_keeps_its_pause_when_others_are_polled() {
    let rig = Rig::new();
    rig.exists("failing", AccountStatus::Active);
    let wait = Error::BudgetExhausted {
        retry_after: Duration::from_secs(100),
    };
    rig.fake.world().failures.push_back(wait);
    let owner = "failing".to_owned();
    rig.poller
        .follow(&owner, "ca_failing", Duration::from_mins(5), Priority::Background);
    sleep(ROUND).await;
    rig.follow("other");
    sleep(Duration::from_secs(90)).await;
    let asked = |rig: &Rig| {
        let world = rig.fake.world();
        world
            .lists
            .iter()
            .filter(|(_, query)| query.ids.contains(&"ca_failing".to_owned()))
            .count()
    };
    assert_eq!(asked(&rig), 1);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(asked(&rig), 2);
}
