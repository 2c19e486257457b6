//! Answers that come late, things that vanish or change in between, and changes that do nothing. Each of these once
//! ended wrongly.

use composio_operator::api::RedditConnection;
use composio_operator::api::reddit_connection::{ConnectionState, USABLE};
use composio_sim::{ApiKey, Call, Config, Fault, Rule};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::harness::{KEY, PATIENCE, World, condition, reason_of};

const LINK: (&str, &str) = ("POST", "/connected_accounts/link");
const EXECUTE: &str = "POST /tools/execute/{slug}";

/// Makes an object and a person who connects, and waits until nothing is left to do. Returns the account's id.
async fn settled(world: &World, name: &str, spec: serde_json::Value) -> String {
    world.create(name, spec).await;
    world.connect_as(name, name).await;
    let object = world
        .eventually(name, "settled", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.avatar_url.is_some() && status.link.is_none())
        })
        .await;
    object.status.unwrap().connected_account_id.unwrap()
}

fn count(calls: &[Call], operation: &str) -> usize {
    calls.iter().filter(|call| call.operation() == operation).count()
}

fn is_look_at(call: &Call, account: &str) -> bool {
    call.query_values("connected_account_ids")
        .iter()
        .any(|id| id == account)
}

/// The calls from the next look at `witness` over three more: time enough for anything else that is still polled.
async fn calls_while_looking_at(world: &World, witness: &str) -> Vec<Call> {
    let next = async |after: u64| {
        let is_next = |call: &Call| call.seq > after && is_look_at(call, witness);
        world
            .simulator
            .wait_for_call(is_next, PATIENCE)
            .await
            .unwrap()
            .seq
    };
    let first = next(world.simulator.calls().last().unwrap().seq).await;
    let mut last = first;
    for _ in 0..3 {
        last = next(last).await;
    }
    world.simulator.calls_after(first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_a_deleted_object_is_not_written_to_its_namesake() {
    let world = World::new().await;
    let _operator = world.operator();
    let hang = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).on(LINK.0, LINK.1));
    world
        .create("x", json!({"userId": "user_old", "deletionPolicy": "Retain"}))
        .await;
    let is_stuck = |call: &Call| call.fault.as_deref() == Some("hang");
    world.simulator.wait_for_call(is_stuck, PATIENCE).await.unwrap();
    world.delete("x").await;
    world.vanishes("x").await;
    world
        .create("x", json!({"userId": "user_new", "deletionPolicy": "Delete"}))
        .await;
    world.simulator.release(&hang);

    let object = world
        .eventually("x", "got an account", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.connected_account_id.is_some())
        })
        .await;
    let id = object.status.unwrap().connected_account_id.unwrap();
    assert_eq!(world.simulator.account(&id).unwrap().user_id, "user_new");
    world.reads("x", "AwaitingConsent").await;

    world.delete("x").await;
    world.vanishes("x").await;
    let accounts = world.simulator.accounts();
    let left: Vec<_> = accounts.iter().filter(|account| !account.deleted).collect();
    assert_eq!(left.len(), 1, "{accounts:#?}");
    assert_eq!(left[0].user_id, "user_old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_another_object_in_the_status_survives_the_deletion() {
    let world = World::new().await;
    let _operator = world.operator();
    let id = settled(&world, "owner", json!({})).await;
    world.create("x", json!({})).await;
    world.link("x").await;
    // As after a restore of an old backup.
    let status = json!({"status": {"connectedAccountId": id}});
    world
        .connections()
        .patch_status("x", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    world.reads("x", "UserMismatch").await;
    world.delete("x").await;
    world.vanishes("x").await;
    assert_eq!(world.live_accounts("owner").len(), 1);
    assert!(
        world.live_accounts("x").is_empty(),
        "its own account is found by its alias"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_enabled_again_the_credential_is_probed_again() {
    let world = World::new().await;
    let _operator = world.operator();
    settled(&world, "x", json!({})).await;
    let probes = || count(&world.simulator.calls(), EXECUTE);
    let before = probes();
    world
        .patch("x", json!({"spec": {"enabled": false}}))
        .await
        .unwrap();
    let disabled = world.reads("x", "Disabled").await;
    assert_eq!(condition(&disabled, USABLE), "False");
    world
        .patch("x", json!({"spec": {"enabled": true}}))
        .await
        .unwrap();
    world
        .eventually("x", "was found usable again", |object| {
            condition(object, USABLE) == "True"
        })
        .await;
    assert!(probes() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_consented_before_the_link_was_lost_keeps_the_account() {
    let world = World::new().await;
    let _operator = world.operator();
    let rarely = json!({"polling": {"fast": "1h", "slow": "1h", "settled": "1h"}});
    world.create("x", rarely).await;
    world
        .eventually("x", "was looked at", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.provider_status.is_some())
        })
        .await;
    world.connect_as("x", "x").await;
    world
        .secrets()
        .delete("x-link", &DeleteParams::default())
        .await
        .unwrap();
    // What is remembered of the account is out of date when this change is looked at.
    world
        .patch("x", json!({"metadata": {"labels": {"any": "change"}}}))
        .await
        .unwrap();
    world.becomes("x", ConnectionState::Connected).await;
    assert_eq!(world.links_made(), 1);
    assert_eq!(world.live_accounts("x").len(), 1);
}

/// A request was tried, and waits for the next try.
fn is_open(object: &RedditConnection, token: &str) -> bool {
    let retry = object.status.as_ref().and_then(|status| status.retry.as_ref());
    retry.is_some_and(|retry| retry.request.as_deref() == Some(token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_effect_is_a_failure_that_waits() {
    let world = World::new().await;
    let _operator = world.operator();
    let id = settled(&world, "x", json!({})).await;
    let says_yes = Fault::Status {
        status: 200,
        body: Some(r#"{"success":true}"#.into()),
        content_type: Some("application/json".into()),
        commit: false,
    };
    let rule = Rule::new(says_yes).on("PATCH", "/connected_accounts/*");
    world.simulator.inject(rule.for_ever());
    let changes = || {
        let calls = world.simulator.calls();
        calls.iter().filter(|call| call.method == "PATCH").count()
    };

    world
        .patch("x", json!({"spec": {"enabled": false}}))
        .await
        .unwrap();
    let object = world.reads("x", "ChangeNotApplied").await;
    let retry = object.status.unwrap().retry.unwrap();
    assert!(retry.next_attempt_at.is_some());
    let failures = usize::try_from(retry.failures).unwrap();
    assert!(changes() <= failures + 1, "{} for {failures} failures", changes());
    world.request("x", "disable it").await;
    let tried = world
        .eventually("x", "tried again", |object| is_open(object, "disable it"))
        .await;
    assert_eq!(reason_of(&tried).as_deref(), Some("ChangeNotApplied"));

    // The other way, asked for by a person alone.
    world
        .patch("x", json!({"spec": {"enabled": true}}))
        .await
        .unwrap();
    world.reads("x", "Connected").await;
    world.simulator.disable(&id).unwrap();
    world.reads("x", "DisabledAtComposio").await;
    let before = changes();
    world.request("x", "enable it").await;
    let tried = world
        .eventually("x", "tried", |object| is_open(object, "enable it"))
        .await;
    assert_eq!(reason_of(&tried).as_deref(), Some("ChangeNotApplied"));
    assert_eq!(changes(), before + 1, "one request, one try");

    world.simulator.clear_faults();
    world.request("x", "once more").await;
    world.becomes("x", ConnectionState::Connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_api_key_is_not_used_any_more() {
    const REMOVED: &str = "ak_end_to_end_removed_17";
    let keys = vec![ApiKey::new(REMOVED)];
    let world = World::with(Config {
        keys,
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    world.api_key_secret("mine", REMOVED).await;
    let witness = settled(&world, "witness", json!({})).await;
    let id = settled(&world, "x", json!({"apiKeySecretRef": {"name": "mine"}})).await;
    let looks_at_x = |call: &Call| is_look_at(call, &id);
    let look = world.simulator.wait_for_call(looks_at_x, PATIENCE).await.unwrap();

    world
        .secrets()
        .delete("mine", &DeleteParams::default())
        .await
        .unwrap();
    // A key read a moment ago may be used for some seconds more. Secrets are not watched: a pass finds out.
    let mut noticed = Box::pin(world.reads("x", "ApiKeyNotFound"));
    for change in 0.. {
        let labels = json!({"metadata": {"labels": {"change": change.to_string()}}});
        world.patch("x", labels).await.unwrap();
        tokio::select! {
            _ = &mut noticed => break,
            _ = calls_while_looking_at(&world, &witness) => {}
        }
    }
    let calls = calls_while_looking_at(&world, &witness).await;
    assert!(calls.iter().all(|call| call.key != look.key), "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_api_key_is_not_used_any_more() {
    const OLD: &str = "ak_end_to_end_old_31";
    const NEW: &str = "ak_end_to_end_new_32";
    let keys = vec![ApiKey::new(OLD), ApiKey::new(NEW)];
    let world = World::with(Config {
        keys,
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    world.api_key_secret("old", OLD).await;
    world.api_key_secret("new", NEW).await;
    let id = settled(&world, "x", json!({"apiKeySecretRef": {"name": "old"}})).await;
    let looks_at_x = |call: &Call| is_look_at(call, &id);
    let old = world.simulator.wait_for_call(looks_at_x, PATIENCE).await.unwrap();
    world
        .patch("x", json!({"spec": {"apiKeySecretRef": {"name": "new"}}}))
        .await
        .unwrap();
    let looks_with_new_key = |call: &Call| is_look_at(call, &id) && call.key != old.key;
    world
        .simulator
        .wait_for_call(looks_with_new_key, PATIENCE)
        .await
        .unwrap();
    let calls = calls_while_looking_at(&world, &id).await;
    assert!(calls.iter().all(|call| call.key != old.key), "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_vanished_without_a_last_pass_is_not_followed_any_more() {
    let world = World::new().await;
    let _operator = world.operator();
    let witness = settled(&world, "witness", json!({})).await;
    // Nothing holds it back: the operator only hears that it is gone.
    let id = settled(&world, "x", json!({"deletionPolicy": "Retain"})).await;
    let object = world.connections().get("x").await.unwrap();
    assert!(object.metadata.finalizers.is_none_or(|list| list.is_empty()));
    world.delete("x").await;
    world.vanishes("x").await;
    let calls = calls_while_looking_at(&world, &witness).await;
    assert!(calls.iter().all(|call| !is_look_at(call, &id)), "{calls:#?}");
    assert_eq!(world.live_accounts("x").len(), 1, "Retain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_answered_late_after_a_failed_one_leaves_no_account() {
    let world = World::new().await;
    let _operator = world.operator();
    let requested_at = |object: &RedditConnection| {
        let link = object.status.as_ref()?.link.as_ref()?;
        Some(link.requested_at.0)
    };
    // Long enough for the record of the intent to become old.
    world
        .simulator
        .inject(Rule::new(Fault::RateLimited { retry_after: 11 }).on(LINK.0, LINK.1));
    let hang = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: true }).on(LINK.0, LINK.1));
    world.create("x", json!({})).await;
    let limited = world.reads("x", "RateLimited").await;
    let first = requested_at(&limited).unwrap();
    world
        .eventually("x", "recorded its second try", |object| {
            requested_at(object).is_some_and(|second| second > first)
        })
        .await;
    // Nobody waits for the answer any more.
    world.reads("x", "ComposioUnavailable").await;
    world.delete("x").await;
    world.reads("x", "Deleting").await;
    assert!(world.simulator.accounts().is_empty());

    world.simulator.release(&hang);
    let account = world.account_of("x").await;
    // A deleted object is looked at again by time; any change is sooner.
    world
        .patch("x", json!({"metadata": {"labels": {"any": "change"}}}))
        .await
        .expect("the object is held back");
    let is_deleted = |seen: &composio_sim::AccountSnapshot| seen.id == account.id && seen.deleted;
    world
        .simulator
        .wait_for_account(is_deleted, PATIENCE)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_it_ends_by_itself_and_gives_the_lease_back() {
    /// The lease that the chart's role is for, with the release name the harness uses.
    const LEASE: &str = "operator-composio-operator";
    let world = World::new().await;
    let operator = world.operator_with(&["--leader-elect", "--lease-name", LEASE], Some(KEY));
    settled(&world, "x", json!({})).await;
    let leases = Api::<Lease>::namespaced(world.client.clone(), &world.namespace);
    let holder = async || leases.get(LEASE).await.unwrap().spec.unwrap().holder_identity;
    assert!(holder().await.is_some_and(|holder| !holder.is_empty()));
    let log = operator.log.clone();
    assert!(operator.stop().await);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("asked to stop"), "{log}");
    assert!(!log.contains("did not end in time"), "{log}");
    assert!(holder().await.is_none_or(|holder| holder.is_empty()));
}
