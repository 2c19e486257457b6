//! All accounts that a user has in a toolkit.

use super::*;

#[tokio::test(start_paused = true)]
async fn questions_of_one_moment_share_a_list() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.exists(name, AccountStatus::Active);
    }
    let mut questions = JoinSet::new();
    for name in ["a", "b", "a", "nobody"] {
        let poller = rig.poller.clone();
        let priority = if name == "b" {
            Priority::Interactive
        } else {
            Priority::Background
        };
        questions.spawn(async move {
            (
                name,
                poller
                    .accounts_of_user(&format!("user of ca_{name}"), "reddit", priority)
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
        let poller = rig.poller.clone();
        async move {
            poller
                .accounts_of_user("user of ca_a", "reddit", Priority::Interactive)
                .await
        }
    });
    while rig.fake.world().lists_now == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    rig.exists("a", AccountStatus::Initializing);
    let second = rig
        .poller
        .accounts_of_user("user of ca_a", "reddit", Priority::Interactive)
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
        let poller = rig.poller.clone();
        questions.spawn(async move {
            poller
                .accounts_of_user(&format!("u{number}"), "reddit", Priority::Pending)
                .await
        });
    }
    for number in 0..20 {
        let poller = rig.poller.clone();
        let user = format!("{number}{}", "x".repeat(300));
        questions.spawn(async move { poller.accounts_of_user(&user, "reddit", Priority::Pending).await });
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
async fn an_undecodable_account_fails_its_owners_answer_only() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    let skipped = Skipped {
        id: None,
        user_id: Some("user of ca_b".to_owned()),
    };
    rig.fake.world().skipped.push(skipped);
    let (a, b) = tokio::join!(
        rig.poller
            .accounts_of_user("user of ca_a", "reddit", Priority::Pending),
        rig.poller
            .accounts_of_user("user of ca_b", "reddit", Priority::Pending),
    );
    assert_eq!(a.unwrap().len(), 1);
    assert!(matches!(b, Err(Error::Decode { .. })));
    assert_eq!(rig.fake.lists(), 1);

    // If it is unknown whose it is, each user is asked for separately.
    rig.fake.world().skipped = vec![Skipped::default()];
    let (a, b) = tokio::join!(
        rig.poller
            .accounts_of_user("user of ca_a", "reddit", Priority::Pending),
        rig.poller
            .accounts_of_user("user of ca_b", "reddit", Priority::Pending),
    );
    assert!(a.is_err() && b.is_err());
    assert_eq!(rig.fake.lists(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_list_refuses_does_not_fail_the_others() {
    let rig = Rig::new();
    rig.exists("a", AccountStatus::Active);
    rig.fake.world().poison.push("bad".to_owned());
    let (good, bad, comma, empty) = tokio::join!(
        rig.poller
            .accounts_of_user("user of ca_a", "reddit", Priority::Pending),
        rig.poller.accounts_of_user("bad", "reddit", Priority::Pending),
        rig.poller.accounts_of_user("a,b", "reddit", Priority::Pending),
        rig.poller.accounts_of_user("", "reddit", Priority::Pending),
    );
    assert_eq!(good.unwrap().len(), 1);
    assert_eq!(bad.unwrap_err(), http(400));
    for refused in [comma, empty] {
        assert!(matches!(refused, Err(Error::InvalidRequest { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn questions_about_different_toolkits_do_not_mix() {
    let rig = Rig::new();
    let slack = Account {
        toolkit: "slack".to_owned(),
        user_id: "u".to_owned(),
        ..account("ca_slack", AccountStatus::Active)
    };
    let reddit = Account {
        user_id: "u".to_owned(),
        ..account("ca_reddit", AccountStatus::Active)
    };
    rig.fake.set(slack.clone());
    rig.fake.set(reddit.clone());
    let of = |toolkit: &'static str| rig.poller.accounts_of_user("u", toolkit, Priority::Pending);
    let (one, two, three) = tokio::join!(of("slack"), of("reddit"), of("slack"));
    assert_eq!((one.unwrap(), three.unwrap()), (vec![slack.clone()], vec![slack]));
    assert_eq!(two.unwrap(), [reddit]);
    let asked: Vec<_> = rig
        .fake
        .world()
        .lists
        .iter()
        .map(|(_, query)| query.toolkits.clone())
        .collect();
    assert_eq!(asked, [["reddit"], ["slack"]]);
    assert!(matches!(of("").await, Err(Error::InvalidRequest { .. })));
}
