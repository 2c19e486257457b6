//! What a connection goes through when nothing is broken.

use composio_operator::api::conditions::{READY, STALLED};
use composio_operator::api::reddit_connection::{CONNECTED, ConnectionState, REAUTH_REQUIRED, USABLE};
use composio_sim::AccountStatus;
use serde_json::json;

use crate::harness::{KEY, World, condition, reason_of, resource_version, state_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applied_object_becomes_connected_and_a_deleted_one_leaves_nothing() {
    let world = World::new().await;
    let operator = world.operator();
    world.create("alice", json!({})).await;

    let pending = world.becomes("alice", ConnectionState::Pending).await;
    assert_eq!(condition(&pending, READY), "False");
    let link = world.link("alice").await;
    world.connect_as("alice", "alice_on_reddit").await;

    let connected = world
        .eventually("alice", "learnt who it is", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.avatar_url.is_some() && status.link.is_none())
        })
        .await;
    let status = connected.status.as_ref().unwrap();
    assert_eq!(status.state, Some(ConnectionState::Connected));
    assert_eq!(status.provider_status.as_deref(), Some("ACTIVE"));
    assert_eq!(status.display_name.as_deref(), Some("alice_on_reddit"));
    assert_eq!(
        status.profile_url.as_deref(),
        Some("https://www.reddit.com/user/alice_on_reddit")
    );
    assert!(!status.avatar_url.as_ref().unwrap().contains("&amp;"));
    assert!(status.connected_at.is_some() && status.retry.is_none());
    for (type_, expected) in [
        (READY, "True"),
        (CONNECTED, "True"),
        (USABLE, "True"),
        (STALLED, "False"),
        (REAUTH_REQUIRED, "False"),
    ] {
        assert_eq!(condition(&connected, type_), expected, "{type_}");
    }
    assert!(
        world.secrets().get_opt("alice-link").await.unwrap().is_none(),
        "a spent link is removed"
    );

    world.delete("alice").await;
    world.vanishes("alice").await;
    assert!(world.live_accounts("alice").is_empty());
    assert_eq!(world.links_made(), 1);

    let events = world
        .plane
        .kubectl([
            "get",
            "events.events.k8s.io",
            "--namespace",
            &world.namespace,
            "--output",
            "yaml",
        ])
        .await
        .unwrap()
        .ok()
        .unwrap();
    for reason in ["LinkCreated", "Connected", "AccountDeleted"] {
        assert!(
            events.contains(&format!("reason: {reason}")),
            "no event {reason}:\n{events}"
        );
    }
    let token = link.rsplit('/').next().unwrap();
    let log = operator.log();
    for (place, text) in [("log", &log), ("events", &events)] {
        assert!(!text.contains(token), "the link is in the {place}");
        assert!(!text.contains(KEY), "the key is in the {place}");
    }
    assert!(
        !log.contains("forbidden"),
        "the chart's roles do not suffice:\n{log}"
    );
    assert!(operator.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_applied_again_at_once_it_gets_a_new_link() {
    let world = World::new().await;
    let _operator = world.operator();
    for round in 1..=3 {
        world.create("again", json!({})).await;
        world.link("again").await;
        assert_eq!(world.links_made(), round);
        world.delete("again").await;
        // The garbage collector may not have come by for the Secret of the link.
        world.vanishes("again").await;
        assert!(world.live_accounts("again").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_object_is_left_alone() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("bob", json!({})).await;
    world.connect_as("bob", "bob").await;
    let settled = world
        .eventually("bob", "settled", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.avatar_url.is_some() && status.link.is_none())
        })
        .await;
    // What was under way when it settled has ended once a further look has come and gone.
    world.more_calls("GET /connected_accounts", 2).await;
    let before = world.simulator.calls().last().unwrap().seq;
    world.more_calls("GET /connected_accounts", 3).await;
    let calls = world.simulator.calls_after(before);
    assert!(
        calls
            .iter()
            .all(|call| call.operation() == "GET /connected_accounts"),
        "{calls:#?}"
    );
    let after = world.connections().get("bob").await.unwrap();
    assert_eq!(resource_version(&settled), resource_version(&after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_renewed_until_the_renewals_are_used_up_and_then_on_request() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("carol", json!({"link": {"renewals": 1}})).await;
    let first = world.link("carol").await;

    let account = world.account_of("carol").await;
    world.simulator.expire(&account.id).unwrap();
    let renewed = world
        .eventually("carol", "got a second link", |object| {
            let status = object.status.clone().unwrap_or_default();
            status.link_attempts == 2 && status.connected_account_id.is_some_and(|id| id != account.id)
        })
        .await;
    assert_eq!(state_of(&renewed), Some(ConnectionState::Pending));
    assert_ne!(world.link("carol").await, first);
    assert_eq!(
        world.live_accounts("carol").len(),
        1,
        "the expired account is removed"
    );

    let account = world.account_of("carol").await;
    world.simulator.expire(&account.id).unwrap();
    let stalled = world.reads("carol", "LinkExpired").await;
    assert_eq!(state_of(&stalled), Some(ConnectionState::Error));
    assert_eq!(
        (condition(&stalled, STALLED), condition(&stalled, REAUTH_REQUIRED)),
        ("True".into(), "True".into())
    );

    world.request("carol", "please").await;
    let asked = world.reads("carol", "AwaitingConsent").await;
    assert_eq!(
        asked.status.unwrap().last_handled_request_at.as_deref(),
        Some("please")
    );
    world.connect_as("carol", "carol").await;
    world.becomes("carol", ConnectionState::Connected).await;
    assert_eq!(world.live_accounts("carol").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_really_runs_out_by_the_clock_is_renewed() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("clark", json!({})).await;
    world.link("clark").await;
    world
        .simulator
        .clock()
        .advance(std::time::Duration::from_secs(601));
    world
        .eventually("clark", "renewed", |object| {
            object.status.as_ref().is_some_and(|s| s.link_renewals == 1)
        })
        .await;
    world.connect_as("clark", "clark").await;
    world.becomes("clark", ConnectionState::Connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_consent_waits_for_a_request() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("dora", json!({})).await;
    world.link("dora").await;
    let denied = world.account_of("dora").await;
    world.simulator.open(&denied.id).unwrap();
    world.simulator.deny(&denied.id).unwrap();
    let failed = world.reads("dora", "ConsentFailed").await;
    assert_eq!(state_of(&failed), Some(ConnectionState::Error));
    world.request("dora", "again").await;
    world.reads("dora", "AwaitingConsent").await;
    world.connect_as("dora", "dora").await;
    world.becomes("dora", ConnectionState::Connected).await;
    assert!(
        world
            .live_accounts("dora")
            .iter()
            .all(|account| account.id != denied.id)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_disabled_and_enabled_as_the_spec_asks() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("erin", json!({})).await;
    world.connect_as("erin", "erin").await;
    world.becomes("erin", ConnectionState::Connected).await;
    let id = world.account_of("erin").await.id;

    world
        .patch("erin", json!({"spec": {"enabled": false}}))
        .await
        .unwrap();
    let disabled = world.reads("erin", "Disabled").await;
    assert_eq!(state_of(&disabled), Some(ConnectionState::Disconnected));
    assert_eq!(
        (condition(&disabled, READY), condition(&disabled, CONNECTED)),
        ("True".into(), "False".into())
    );
    assert_eq!(
        world.simulator.account(&id).unwrap().status,
        AccountStatus::Inactive
    );

    world
        .patch("erin", json!({"spec": {"enabled": true}}))
        .await
        .unwrap();
    world.becomes("erin", ConnectionState::Connected).await;
    assert_eq!(
        world.simulator.account(&id).unwrap().status,
        AccountStatus::Active
    );

    world.simulator.disable(&id).unwrap();
    world.reads("erin", "DisabledAtComposio").await;
    world.request("erin", "enable it").await;
    world.becomes("erin", ConnectionState::Connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_person_is_refused_and_the_account_disabled() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("frank", json!({"expectedUsername": "Frank"})).await;
    world.connect_as("frank", "mallory").await;
    let refused = world.reads("frank", "IdentityMismatch").await;
    assert_eq!(state_of(&refused), Some(ConnectionState::Error));
    let account = world.account_of("frank").await;
    assert_eq!(
        account.status,
        AccountStatus::Inactive,
        "no agent may act as the wrong person"
    );

    world.request("frank", "the right one now").await;
    world
        .eventually("frank", "got a new link", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|s| s.link_attempts == 2 && s.connected_account_id.is_some())
        })
        .await;
    world.connect_as("frank", "frank").await;
    let connected = world.reads("frank", "Connected").await;
    assert_eq!(connected.status.unwrap().display_name.as_deref(), Some("frank"));
    assert_eq!(world.live_accounts("frank").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_account_is_watched_and_never_touched() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("grace", json!({})).await;
    world.connect_as("grace", "grace").await;
    world.becomes("grace", ConnectionState::Connected).await;
    let id = world.account_of("grace").await.id;

    let spec = json!({"userId": "user_grace", "managementPolicy": "Observe", "connectedAccountId": id});
    world.create("watcher", spec).await;
    let watching = world
        .eventually("watcher", "learnt who it is", |o| {
            o.status.as_ref().is_some_and(|s| s.display_name.is_some())
        })
        .await;
    assert!(
        watching
            .metadata
            .finalizers
            .is_none_or(|finalizers| finalizers.is_empty())
    );
    world.simulator.expire(&id).unwrap();
    world.reads("watcher", "CredentialExpired").await;
    world.delete("watcher").await;
    world.vanishes("watcher").await;
    assert_eq!(world.live_accounts("grace").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_account_is_retained_unless_told_otherwise() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("heidi", json!({"deletionPolicy": "Retain"})).await;
    world.connect_as("heidi", "heidi").await;
    world.becomes("heidi", ConnectionState::Connected).await;
    let id = world.account_of("heidi").await.id;
    world.delete("heidi").await;
    world.vanishes("heidi").await;
    assert_eq!(world.live_accounts("heidi").len(), 1, "Retain");

    world
        .create(
            "adopted",
            json!({"userId": "user_heidi", "connectedAccountId": id}),
        )
        .await;
    let adopted = world.becomes("adopted", ConnectionState::Connected).await;
    assert!(adopted.status.unwrap().adopted);
    world.delete("adopted").await;
    world.vanishes("adopted").await;
    assert_eq!(
        world.live_accounts("heidi").len(),
        1,
        "adopted accounts are retained"
    );

    let spec = json!({"userId": "user_heidi", "connectedAccountId": id, "deletionPolicy": "Revoke"});
    world.create("ending", spec).await;
    world.becomes("ending", ConnectionState::Connected).await;
    world.delete("ending").await;
    world.vanishes("ending").await;
    assert!(world.live_accounts("heidi").is_empty());
    assert!(world.simulator.account(&id).unwrap().revoked_upstream, "Revoke");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_object_waits_and_can_be_deleted() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("ivan", json!({"suspend": true})).await;
    world.reads("ivan", "Suspended").await;
    assert_eq!(world.links_made(), 0);
    world
        .patch("ivan", json!({"spec": {"suspend": false}}))
        .await
        .unwrap();
    world.link("ivan").await;
    world
        .patch("ivan", json!({"spec": {"suspend": true}}))
        .await
        .unwrap();
    world.reads("ivan", "Suspended").await;
    world.delete("ivan").await;
    world.vanishes("ivan").await;
    assert!(world.live_accounts("ivan").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_status_is_published_only_if_asked_for() {
    let world = World::new().await;
    let _operator = world.operator();
    world.create("judy", json!({"link": {"publish": "Status"}})).await;
    let link = world.link("judy").await;
    assert!(link.contains("/link/lk_"), "not a link");
    assert!(world.secrets().get_opt("judy-link").await.unwrap().is_none());
    world.connect_as("judy", "judy").await;
    let connected = world.eventually("judy", "dropped the link", |o| {
        state_of(o) == Some(ConnectionState::Connected) && o.status.as_ref().is_some_and(|s| s.link.is_none())
    });
    assert_eq!(reason_of(&connected.await).as_deref(), Some("Connected"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_link_secret_leads_to_a_new_link() {
    let world = World::new().await;
    let operator = world.operator();
    world.create("kim", json!({})).await;
    let first = world.link("kim").await;
    world
        .secrets()
        .delete("kim-link", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    // Secrets are not watched: the next pass, here that of a new start, finds out.
    operator.kill().await;
    let _operator = world.operator();
    world
        .eventually("kim", "renewed", |o| {
            o.status.as_ref().is_some_and(|s| s.link_attempts == 2)
        })
        .await;
    assert_ne!(world.link("kim").await, first);
    assert_eq!(world.live_accounts("kim").len(), 1);
}
