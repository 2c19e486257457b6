//! Reconciles of the controller, seen from both sides.

mod rig;

use composio_sim::{Fault, Rule};
use serde_json::json;

use self::rig::{KEY, OTHER_KEY, Rig};
use super::fixtures::{NAME, object, requested};
use crate::api::RedditConnection;
use crate::api::conditions::{READY, find};
use crate::runtime::Controller;
use crate::telemetry::metrics::Outcome;

const LINK: &str = "POST /connected_accounts/link";

fn ready_reason(rig: &Rig) -> String {
    let status = rig.stored().status.unwrap();
    find(&status.conditions, READY).unwrap().reason.clone()
}

#[tokio::test]
async fn a_settled_object_is_neither_written_nor_asked_about_again() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    rig.connected().await;
    rig.reconcile().await.unwrap();
    rig.new_calls();
    rig.api.clear_calls();
    assert_eq!(rig.reconcile().await.unwrap(), Outcome::Unchanged);
    assert_eq!(rig.api.calls(), []);
    assert_eq!(rig.new_calls(), [""; 0]);
}

#[tokio::test]
async fn a_watch_that_lags_behind_causes_no_change_at_composio() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    rig.simulator
        .inject(Rule::new(Fault::DropBeforeCommit).on("POST", "/connected_accounts/link"));
    rig.reconcile().await.unwrap();
    let mut about_to_create = rig.stored();
    about_to_create.status.as_mut().unwrap().retry = None;
    rig.new_calls();
    let mut suspended = about_to_create.clone();
    suspended.spec.suspend = true;
    rig.store(&suspended);
    rig.reconcile_older(about_to_create.clone()).await.unwrap();
    rig.api.remove::<RedditConnection>("team", NAME);
    rig.reconcile_older(about_to_create.clone()).await.unwrap();
    let calls = rig.new_calls();
    assert!(!calls.iter().any(|call| call == LINK), "{calls:?}");
    rig.store(&about_to_create);
    rig.reconcile_older(about_to_create).await.unwrap();
    let calls = rig.new_calls();
    assert!(
        calls.iter().any(|call| call == LINK),
        "otherwise it is made: {calls:?}"
    );
}

#[tokio::test]
async fn an_intent_is_recorded_over_the_version_that_was_read_and_an_effect_whatever_else_changed() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    let mut outdated = rig.stored();
    outdated.metadata.resource_version = Some("outdated".to_owned());
    rig.reconcile_older(outdated).await.unwrap_err();
    assert_eq!(rig.simulator.accounts().len(), 0);
    // Somebody edits the object whenever its Secret is written.
    let api = rig.api.clone();
    rig.api.intercept(move |call| {
        if call.method == "PATCH" && call.path.contains("/secrets/") {
            api.edit::<RedditConnection>("team", NAME, |object| {
                object["metadata"]["labels"] = json!({ "edited": call.body["data"].is_null().to_string() });
            });
        }
        None
    });
    rig.reconcile().await.unwrap();
    assert!(rig.stored().status.unwrap().connected_account_id.is_some());
    assert_eq!(rig.simulator.accounts().len(), 1);
}

#[tokio::test]
async fn a_link_that_cannot_be_stored_is_not_taken_for_made() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    // The first write, without the link, is what tells early whether it may be written at all.
    rig.refuse(|call| {
        call.method == "PATCH" && call.path.contains("/secrets/") && !call.body["data"].is_null()
    });
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "LinkNotStored");
    assert_eq!(rig.stored().status.unwrap().connected_account_id, None);
    let events: Vec<_> = rig
        .api
        .calls()
        .iter()
        .map(|call| call.body["reason"].clone())
        .collect();
    assert!(!events.contains(&json!("LinkCreated")), "{events:?}");
}

#[tokio::test]
async fn a_secret_that_may_not_be_written_is_noticed_before_there_is_an_account() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    rig.refuse(|call| call.method == "POST" && call.path.ends_with("/secrets"));
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "LinkNotStored");
    assert_eq!(rig.simulator.accounts().len(), 0);
}

#[tokio::test]
async fn a_key_that_was_replaced_or_taken_away_is_not_used_any_more() {
    let rig = Rig::new(&object(
        &json!({ "apiKeySecretRef": { "name": "key" } }),
        &json!({}),
    ))
    .await;
    rig.store_key("key", KEY);
    rig.connected().await;
    assert_eq!((rig.followers(KEY), rig.followers(OTHER_KEY)), (1, 0));
    rig.store_key("other", OTHER_KEY);
    let mut moved = rig.stored();
    moved.spec.api_key_secret_ref.as_mut().unwrap().name = "other".to_owned();
    rig.store(&moved);
    rig.reconcile().await.unwrap();
    assert_eq!((rig.followers(KEY), rig.followers(OTHER_KEY)), (0, 1));
    moved.spec.api_key_secret_ref.as_mut().unwrap().name = "gone".to_owned();
    rig.store(&moved);
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "ApiKeyNotFound");
    assert_eq!((rig.followers(KEY), rig.followers(OTHER_KEY)), (0, 0));
}

#[tokio::test]
async fn the_account_of_an_object_that_is_gone_is_not_polled_any_more() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    let connected = rig.connected().await;
    let uid = connected.metadata.uid.as_deref().unwrap();
    rig.controller.on_deleted(&rig.key(), uid);
    assert_eq!(rig.followers(KEY), 0, "a watch reported it");
    rig.reconcile().await.unwrap();
    assert_eq!(rig.followers(KEY), 1);
    let key = rig.key();
    rig.controller.on_relisted(&|other| *other == key);
    assert_eq!(rig.followers(KEY), 1, "it is still there");
    rig.controller.on_relisted(&|_| false);
    assert_eq!(
        rig.followers(KEY),
        0,
        "a watch that was interrupted lists what is left"
    );
}

#[tokio::test]
async fn a_person_who_asks_has_a_rejected_key_tried_again_once() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    let unauthorized = || Fault::Status {
        status: 401,
        body: Some(
            json!({ "error": { "message": "Invalid API key", "slug": "no", "status": 401 } }).to_string(),
        ),
        content_type: Some("application/json".to_owned()),
        commit: false,
    };
    rig.simulator.inject(Rule::new(unauthorized()).for_ever());
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "ApiKeyRejected");
    rig.new_calls();
    rig.reconcile().await.unwrap();
    assert_eq!(rig.new_calls(), [""; 0], "it is known to be rejected");
    // The same token is seen again and again until a status that answers it is stored.
    let asked = requested(rig.stored(), "once");
    rig.reconcile_older(asked.clone())
        .await
        .unwrap_or(Outcome::Failed);
    assert!(!rig.new_calls().is_empty(), "a person asked");
    rig.reconcile_older(asked).await.unwrap_or(Outcome::Failed);
    assert_eq!(rig.new_calls(), [""; 0], "and was answered");
    rig.simulator.clear_faults();
    rig.store(&requested(rig.stored(), "twice"));
    rig.reconcile().await.unwrap();
    assert_eq!(rig.simulator.accounts().len(), 1);
}

#[tokio::test]
async fn a_request_token_of_any_length_keeps_the_status_small() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    let connected = rig.connected().await;
    let token = "x".repeat(200_000);
    rig.store(&requested(connected, &token));
    rig.reconcile().await.unwrap();
    let status = rig.stored().status.unwrap();
    let handled = status
        .last_handled_request_at
        .clone()
        .expect("the request is answered");
    assert!(serde_json::to_string(&status).unwrap().len() < 8 << 10);
    assert_ne!(handled, token);
    rig.api.clear_calls();
    rig.reconcile().await.unwrap();
    assert!(rig.applied().is_empty(), "and answered once");
}

/// Found as a thousand lists in a row, each of which failed for all who had waited for it.
#[tokio::test]
async fn those_who_wait_for_a_list_of_auth_configs_share_its_failure() {
    let calls_of = async |callers: usize| {
        let rig = Rig::new(&object(&json!({}), &json!({}))).await;
        let unavailable = Fault::Status {
            status: 503,
            body: None,
            content_type: None,
            commit: false,
        };
        rig.simulator.inject(Rule::new(unavailable).for_ever());
        let connection = rig.connection(KEY);
        let asked = (0..callers).map(|_| rig.controller.auth_configs.of(&connection, "reddit"));
        for answer in futures::future::join_all(asked).await {
            answer.unwrap_err();
        }
        let once = rig.new_calls().len();
        rig.simulator.clear_faults();
        connection.client.try_again();
        rig.controller
            .auth_configs
            .of(&connection, "reddit")
            .await
            .unwrap();
        once
    };
    assert_eq!(calls_of(20).await, calls_of(1).await);
}

/// Writes to the API server from the first reconcile until the identity is known.
async fn writes_until_settled(publish: &str) -> Vec<String> {
    let mut new = object(&json!({"link": {"publish": publish}}), &json!({}));
    (new.metadata.finalizers, new.status) = (None, None);
    let rig = Rig::new(&new).await;
    rig.connected().await;
    let calls = rig.api.calls();
    let writes = calls.iter().filter(|call| call.method != "GET");
    let writes: Vec<_> = writes
        .map(|call| format!("{} {}", call.method, call.path))
        .collect();
    rig.api.clear_calls();
    rig.reconcile().await.unwrap();
    assert!(rig.api.calls().iter().all(|call| call.method == "GET"), "settled");
    writes
}

/// Found as sixteen writes, more than half of them for events that told nobody anything.
#[tokio::test]
async fn a_connection_costs_few_writes() {
    let in_status = writes_until_settled("Status").await;
    assert!(in_status.len() <= 8, "{in_status:#?}");
    let in_secret = writes_until_settled("Secret").await;
    assert!(in_secret.len() <= 10, "{in_secret:#?}");
}

/// Found as a link that a new person waited for while the providers of others hung.
#[tokio::test]
async fn a_provider_that_hangs_holds_up_no_reconcile() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    rig.reconcile().await.unwrap();
    let hangs = Fault::Hang { before_commit: true };
    rig.simulator
        .inject(Rule::new(hangs).on("POST", "/tools/execute/*").for_ever());
    rig.simulator.consent(&rig.account_id(), Some("alice")).unwrap();
    rig.poll(&rig.account_id()).await;
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "Connected");
}

/// Found as a request for a new link that an outage had swallowed.
#[tokio::test]
async fn a_request_outlasts_an_outage() {
    let rig = Rig::new(&object(&json!({}), &json!({}))).await;
    let connected = rig.connected().await;
    let first = rig.account_id();
    rig.simulator.expire(&first).unwrap();
    rig.poll(&first).await;
    rig.reconcile().await.unwrap();
    assert_eq!(ready_reason(&rig), "CredentialExpired");
    let outage = Fault::Status {
        status: 503,
        body: None,
        content_type: None,
        commit: false,
    };
    rig.simulator
        .inject(Rule::new(outage).on("GET", "/connected_accounts/*").for_ever());
    rig.store(&requested(rig.stored(), "please"));
    rig.reconcile().await.unwrap();
    let status = rig.stored().status.unwrap();
    assert_eq!(
        (ready_reason(&rig).as_str(), status.last_handled_request_at),
        ("ComposioUnavailable", None)
    );
    rig.simulator.clear_faults();
    let mut due = rig.stored();
    let retry = due.status.as_mut().unwrap().retry.as_mut().unwrap();
    retry.next_attempt_at = connected.status.unwrap().connected_at;
    rig.store(&due);
    rig.reconcile().await.unwrap();
    let status = rig.stored().status.unwrap();
    assert_eq!(status.last_handled_request_at.as_deref(), Some("please"));
    assert_ne!(rig.account_id(), first);
}

/// Found as an account that stayed in the project of an earlier key, and was announced as gone.
#[tokio::test]
async fn an_account_of_another_project_is_cleaned_up_with_its_own_key_or_named() {
    for old_key_is_there in [true, false] {
        let mut rig = Rig::new(&object(&json!({"apiKeySecretRef": {"name": "old"}}), &json!({}))).await;
        rig.store_key("old", OTHER_KEY);
        rig.store_key("new", KEY);
        rig.reconcile().await.unwrap();
        let id = rig.account_id();
        let mut moved = rig.stored();
        moved.spec.api_key_secret_ref.as_mut().unwrap().name =
            if old_key_is_there { "new" } else { "old" }.to_owned();
        rig.store(&moved);
        if !old_key_is_there {
            rig.replace_key("old", KEY);
        }
        rig.api.delete::<RedditConnection>("team", NAME);
        rig.api.clear_calls();
        rig.reconcile().await.unwrap();
        assert!(rig.api.get::<RedditConnection>("team", NAME).is_none());
        let is_left = rig
            .simulator
            .accounts()
            .iter()
            .any(|account| account.id == id && !account.deleted);
        assert_eq!(is_left, !old_key_is_there);
        let notes = rig.event_notes();
        let named = notes
            .iter()
            .any(|note| note.contains(&id) && note.contains("delete it there"));
        assert_eq!(named, !old_key_is_there, "{notes:?}");
        assert!(!notes.iter().any(|note| note.contains("was gone")), "{notes:?}");
    }
}
