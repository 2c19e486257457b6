//! Bad input that only Composio can know, and a Composio that misbehaves: each has a stated outcome and a reason that
//! `kubectl describe` shows.

use composio_operator::api::conditions::{READY, RECONCILING, STALLED};
use composio_operator::api::reddit_connection::{CONNECTED, ConnectionState, USABLE};
use composio_sim::{Config, Fault, ProviderMode, Rule, SeedAuthConfig};
use serde_json::json;

use crate::harness::{KEY, World, condition, state_of};

const LINK: (&str, &str) = ("POST", "/connected_accounts/link");

/// The reason is on show, and the object is stuck until somebody acts.
async fn stalls(world: &World, name: &str, reason: &str, says: &str) {
    let object = world.reads(name, reason).await;
    assert_eq!(
        (condition(&object, STALLED), condition(&object, READY)),
        ("True".into(), "False".into())
    );
    let description = world.describe(name).await;
    assert!(
        description.contains(reason) && description.contains(says),
        "{description}"
    );
}

/// One account, connected, whatever happened before.
async fn ends_well(world: &World, name: &str) {
    world.connect_as(name, name).await;
    world.becomes(name, ConnectionState::Connected).await;
    assert_eq!(world.live_accounts(name).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_stalls_until_the_secret_holds_a_right_one() {
    let world = World::new().await;
    let operator = world.operator_with(&[], None);
    world.api_key_secret("composio", "ak_wrong_one_123456").await;
    world
        .create("alice", json!({"apiKeySecretRef": {"name": "composio"}}))
        .await;
    stalls(
        &world,
        "alice",
        "ApiKeyRejected",
        "replace it with a valid project key",
    )
    .await;
    world.api_key_secret("composio", KEY).await;
    // A key read a moment ago may be used for some seconds more; asking again is allowed.
    for attempt in 0..30 {
        world.request("alice", &format!("try {attempt}")).await;
        let token = format!("try {attempt}");
        let tried = world
            .eventually("alice", "tried again", |o| {
                o.status
                    .as_ref()
                    .is_some_and(|s| s.last_handled_request_at.as_deref() == Some(&token))
            })
            .await;
        if condition(&tried, STALLED) == "False" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    ends_well(&world, "alice").await;
    let log = operator.log();
    assert!(
        !log.contains("ak_wrong_one") && !log.contains(KEY),
        "a key is in the log"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_secret_is_waited_for_and_does_not_block_deletion() {
    let world = World::new().await;
    let _operator = world.operator_with(&[], None);
    world
        .create("bob", json!({"apiKeySecretRef": {"name": "later"}}))
        .await;
    let waiting = world.reads("bob", "ApiKeyNotFound").await;
    assert_eq!(condition(&waiting, RECONCILING), "True");
    assert!(
        world
            .describe("bob")
            .await
            .contains("Secret later does not exist")
    );
    world.api_key_secret("later", KEY).await;
    ends_well(&world, "bob").await;

    world.create("unshared", json!({})).await;
    stalls(&world, "unshared", "ApiKeyNotShared", "set spec.apiKeySecretRef").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_auth_config_stalls() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("carol", json!({"authConfigId": "ac_nowhere"})).await;
    stalls(&world, "carol", "AuthConfigNotFound", "ac_nowhere").await;
    assert!(world.live_accounts("carol").is_empty());
    world.delete("carol").await;
    world.vanishes("carol").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_auth_configs_stall_and_are_listed_until_one_is_named() {
    let mut second = SeedAuthConfig::managed("reddit");
    second.id = Some("ac_second".to_owned());
    let auth_configs = vec![SeedAuthConfig::managed("reddit"), second];
    let world = World::with(Config {
        auth_configs,
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    world.create("dave", json!({})).await;
    stalls(&world, "dave", "AuthConfigAmbiguous", "ac_second").await;
    world
        .patch("dave", json!({"spec": {"authConfigId": "ac_second"}}))
        .await
        .unwrap();
    ends_well(&world, "dave").await;
    assert_eq!(world.account_of("dave").await.auth_config_id, "ac_second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_auth_config_nothing_is_made() {
    let world = World::with(Config {
        auth_configs: vec![],
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    world.create("erin", json!({})).await;
    stalls(
        &world,
        "erin",
        "AuthConfigNotFound",
        "create or enable one in Composio",
    )
    .await;
    assert_eq!(world.links_made(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_another_user_is_refused_and_survives_the_deletion() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("owner", json!({})).await;
    world.connect_as("owner", "owner").await;
    world.becomes("owner", ConnectionState::Connected).await;
    let id = world.account_of("owner").await.id;
    world
        .create(
            "thief",
            json!({"connectedAccountId": id, "deletionPolicy": "Revoke"}),
        )
        .await;
    stalls(&world, "thief", "UserMismatch", "belongs to another userId").await;
    assert!(
        !world.describe("thief").await.contains("user_owner"),
        "whose account it is stays private"
    );
    world.delete("thief").await;
    world.vanishes("thief").await;
    let account = world.simulator.account(&id).unwrap();
    assert!(!account.deleted && !account.revoked_upstream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_does_not_exist_cannot_be_adopted() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .create("frank", json!({"connectedAccountId": "ca_doesnotexist"}))
        .await;
    let object = world.reads("frank", "AccountNotFound").await;
    assert_eq!(state_of(&object), Some(ConnectionState::Disconnected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_collision_is_resolved_by_listing() {
    let world = World::new().await;
    let _operator = world.operator();
    // The request is delivered twice; the second answer says that the alias is taken, by the first.
    world
        .simulator
        .inject(Rule::new(Fault::Duplicate).on(LINK.0, LINK.1));
    world.create("grace", json!({})).await;
    ends_well(&world, "grace").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_lags_behind_makes_no_second_account() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .simulator
        .inject(Rule::new(Fault::DropAfterCommit).on(LINK.0, LINK.1));
    world.simulator.inject(
        Rule::new(Fault::StaleFirstPage { rows: 1 })
            .on("GET", "/connected_accounts")
            .times(2),
    );
    world.create("gerd", json!({})).await;
    ends_well(&world, "gerd").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_broken_or_late_end_in_one_account() {
    let world = World::new().await;
    let _operator = world.operator();
    let html = || Fault::Status {
        status: 502,
        body: None,
        content_type: None,
        commit: true,
    };
    let faults = [
        ("lost", Fault::DropAfterCommit),
        ("refused", Fault::DropBeforeCommit),
        ("html", html()),
        ("truncated", Fault::TruncateJson),
        ("aborted", Fault::AbortBody),
        (
            "slow",
            Fault::Delay {
                millis: 6_000,
                after_commit: true,
            },
        ),
    ];
    for (name, fault) in faults {
        world.simulator.inject(Rule::new(fault).on(LINK.0, LINK.1));
        world.create(name, json!({})).await;
        ends_well(&world, name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_composio_is_down_the_object_says_so_and_recovers() {
    let world = World::new().await;
    let _operator = world.operator();
    let down = || {
        Rule::new(Fault::Status {
            status: 503,
            body: None,
            content_type: None,
            commit: false,
        })
        .for_ever()
    };
    world.simulator.inject(down());
    world.create("heidi", json!({})).await;
    let object = world.reads("heidi", "ComposioUnavailable").await;
    assert_eq!(
        (condition(&object, RECONCILING), condition(&object, STALLED)),
        ("True".into(), "False".into())
    );
    assert!(!world.describe("heidi").await.contains("<html"));
    world.simulator.clear_faults();
    ends_well(&world, "heidi").await;

    // A connected account stays connected through an outage, and says that nobody knows.
    world.simulator.inject(down());
    let object = world.reads("heidi", "ComposioUnavailable").await;
    assert_eq!(state_of(&object), Some(ConnectionState::Connected));
    world.simulator.clear_faults();
    world.reads("heidi", "Connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_429_nothing_is_sent_before_retry_after() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .simulator
        .inject(Rule::new(Fault::RateLimited { retry_after: 4 }).on(LINK.0, LINK.1));
    world.create("ivan", json!({})).await;
    world.reads("ivan", "RateLimited").await;
    ends_well(&world, "ivan").await;
    let calls = world.simulator.calls();
    let limited = calls.iter().position(|call| call.status == Some(429)).unwrap();
    let wait = calls[limited + 1].time.duration_since(calls[limited].time);
    assert!(wait.as_secs_f64() >= 4.0, "the next call came after {wait:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_status_changes_nothing_but_is_said() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("judy", json!({})).await;
    ends_well(&world, "judy").await;
    world.simulator.inject(
        Rule::new(Fault::UnknownStatus {
            value: "HIBERNATING".into(),
        })
        .for_ever(),
    );
    let object = world.reads("judy", "UnknownProviderStatus").await;
    assert_eq!(state_of(&object), Some(ConnectionState::Connected));
    assert_eq!(condition(&object, CONNECTED), "Unknown");
    assert_eq!(
        object.status.unwrap().provider_status.as_deref(),
        Some("HIBERNATING")
    );
    world.simulator.clear_faults();
    world.reads("judy", "Connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_credential_shows_although_composio_says_active() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("kim", json!({})).await;
    ends_well(&world, "kim").await;
    world
        .eventually("kim", "learnt who it is", |o| {
            o.status.as_ref().is_some_and(|s| s.avatar_url.is_some())
        })
        .await;
    let id = world.account_of("kim").await.id;
    world
        .simulator
        .set_provider_mode(&id, ProviderMode::RevokedAtProvider)
        .unwrap();
    world.request("kim", "does it still work?").await;
    let object = world.reads("kim", "CredentialRejected").await;
    assert_eq!(state_of(&object), Some(ConnectionState::Connected));
    assert_eq!(condition(&object, USABLE), "False");
    world.request("kim", "a new link, please").await;
    world.reads("kim", "AwaitingConsent").await;
    ends_well(&world, "kim").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_identity_call_does_not_take_connected_away() {
    let world = World::new().await;
    let _operator = world.operator();
    let down = Fault::Status {
        status: 500,
        body: Some("{}".into()),
        content_type: Some("application/json".into()),
        commit: false,
    };
    world
        .simulator
        .inject(Rule::new(down).on("POST", "/tools/execute/*").for_ever());
    world.create("leo", json!({})).await;
    world.connect_as("leo", "leo").await;
    let object = world
        .eventually("leo", "tried twice", |o| {
            o.status.as_ref().is_some_and(|s| {
                s.identity
                    .as_ref()
                    .is_some_and(|identity| identity.failing_since.is_some())
            })
        })
        .await;
    assert_eq!(state_of(&object), Some(ConnectionState::Connected));
    assert_eq!(
        (condition(&object, READY), condition(&object, USABLE)),
        ("True".into(), "Unknown".into())
    );
    world.simulator.clear_faults();
    world
        .eventually("leo", "learnt who it is", |o| {
            o.status.as_ref().is_some_and(|s| s.avatar_url.is_some())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_deleted_at_composio_is_reported_only_after_a_get_confirms_it() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("mia", json!({})).await;
    ends_well(&world, "mia").await;
    let id = world.account_of("mia").await.id;
    // A list that shows nothing proves nothing.
    world.simulator.inject(
        Rule::new(Fault::EmptyList)
            .on("GET", "/connected_accounts")
            .times(3),
    );
    world.more_calls("GET /connected_accounts", 4).await;
    assert_eq!(
        state_of(&world.connections().get("mia").await.unwrap()),
        Some(ConnectionState::Connected)
    );
    let http = reqwest::Client::new();
    let url = format!("{}/api/v3.1/connected_accounts/{id}", world.simulator.url());
    http.delete(url)
        .header("x-api-key", KEY)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let object = world.reads("mia", "AccountNotFound").await;
    assert_eq!(state_of(&object), Some(ConnectionState::Disconnected));
    world.request("mia", "again").await;
    world.reads("mia", "AwaitingConsent").await;
    ends_well(&world, "mia").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_edited_or_deleted_while_a_call_is_in_the_air_loses_nothing() {
    let world = World::new().await;
    let _operator = world.operator();
    let hang = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).on(LINK.0, LINK.1));
    world.create("nora", json!({})).await;
    world
        .simulator
        .wait_for_call(
            |call| call.fault.as_deref() == Some("hang"),
            crate::harness::PATIENCE,
        )
        .await
        .unwrap();
    world
        .patch("nora", json!({"spec": {"expectedUsername": "nora"}}))
        .await
        .unwrap();
    world.simulator.release(&hang);
    ends_well(&world, "nora").await;
    assert_eq!(
        world.links_made(),
        1,
        "the answer that came after the edit was not lost"
    );

    let hang = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).on(LINK.0, LINK.1));
    let from = world.simulator.calls().last().unwrap().seq;
    world.create("olaf", json!({})).await;
    let is_stuck = |call: &composio_sim::Call| call.seq > from && call.fault.as_deref() == Some("hang");
    world
        .simulator
        .wait_for_call(is_stuck, crate::harness::PATIENCE)
        .await
        .unwrap();
    world.delete("olaf").await;
    world.simulator.release(&hang);
    world.vanishes("olaf").await;
    assert!(world.live_accounts("olaf").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_somebody_else_is_not_overwritten() {
    let world = World::new().await;
    let _operator = world.operator();
    world.api_key_secret("paul-link", "precious").await;
    world.create("paul", json!({})).await;
    stalls(&world, "paul", "LinkSecretConflict", "paul-link").await;
    assert_eq!(world.links_made(), 0);
    let secret = world.secrets().get("paul-link").await.unwrap();
    assert_eq!(secret.data.unwrap()["apiKey"].0, b"precious");
}
