//! Connected accounts: links, the legacy create, reading, naming, switching, revoking, deleting.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{World, assert_has, id, ids};

const LINK: &str = "/connected_accounts/link";

#[tokio::test]
async fn a_link_makes_an_account_at_once() {
    let world = World::new().await;
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u", "alias": "main"});
    let reply = world.post(LINK, body).await;
    assert_eq!(reply.status, 201);
    let link = reply.json();
    let keys: Vec<_> = link.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["connected_account_id", "expires_at", "link_token", "redirect_url"]
    );
    assert_eq!(link["expires_at"], "2026-03-01T12:10:00.000Z");
    let token = link["link_token"].as_str().unwrap();
    assert!(token.starts_with("lk_"));
    let page = format!("{}/link/{token}", world.simulator.url());
    assert_eq!(link["redirect_url"], page);

    let account = world.account(&id(&link)).await;
    let expected = json!({
        "status": "INITIALIZING", "status_reason": null, "user_id": "u", "alias": "main", "is_disabled": false,
        "toolkit": {"slug": "reddit"}, "created_at": "2026-03-01T12:00:00.000Z",
        "updated_at": "2026-03-01T12:00:00.000Z", "experimental": {"account_type": "PRIVATE"},
        "state": {"authScheme": "OAUTH2", "val": {"status": "INITIALIZING"}},
        "auth_config": {"id": "ac_reddit", "is_composio_managed": true},
    });
    assert_has(&account, &expected);
    assert!(!account.to_string().contains(token), "the link is shown once");
    assert_eq!(world.on_v3().account(&id(&link)).await, account);
}

#[tokio::test]
async fn links_are_validated() {
    let world = World::new().await;
    let body = json!({"auth_config_id": 7, "callback_url": "nowhere"});
    let error = world.post(LINK, body).await.error(400, 10400);
    assert_eq!(error["message"], "Validation error while processing request");
    assert_eq!(
        error["errors"],
        json!([
            "Error in payload.auth_config_id: Expected string, received number",
            "Error in payload.user_id: Required",
            "Error in payload.callback_url: Invalid url",
        ])
    );
    let link =
        |config: &str, user: &str| world.post(LINK, json!({"auth_config_id": config, "user_id": user}));
    link("ac_reddit", "").await.error(400, 10400);
    let unknown = link("ac_none", "u").await.error(404, 10404);
    assert_eq!(unknown["slug"], "Auth_Config_NotFound");
    let disable = "/auth_configs/ac_reddit/DISABLED";
    world.patch(disable, json!({})).await.ok();
    link("ac_reddit", "u").await.error(400, 10400);
    assert!(world.simulator.accounts().is_empty());
}

#[tokio::test]
async fn a_life_from_link_to_deletion() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let path = format!("/connected_accounts/{id}");
    world.advance(5);
    world.simulator.open(&id).unwrap();
    let account = world.account(&id).await;
    assert_has(
        &account,
        &json!({"status": "INITIATED", "updated_at": "2026-03-01T12:00:05.000Z"}),
    );
    assert!(account["state"]["val"]["redirectUrl"].is_string());
    world.advance(5);
    world.simulator.consent(&id, Some("alice")).unwrap();
    let active = json!({
        "status": "ACTIVE", "updated_at": "2026-03-01T12:00:10.000Z", "state": {"val": {"access_token": "eyJh..."}}
    });
    assert_has(&world.account(&id).await, &active);

    let switch = async |enabled: bool| {
        let path = format!("{path}/status");
        world.patch(&path, json!({"enabled": enabled})).await.ok();
        world.account(&id).await
    };
    let reason = "Connection status updated by user";
    let disabled = json!({"status": "INACTIVE", "status_reason": reason, "is_disabled": true});
    assert_has(&switch(false).await, &disabled);
    assert_eq!(switch(true).await["status"], "ACTIVE");

    assert_eq!(world.delete(&path).await.ok(), json!({"success": true}));
    for _ in 0..2 {
        let error = world.get(&path).await.error(404, 606);
        assert_eq!(error["slug"], "ConnectedAccount_ResourceNotFound");
        world.delete(&path).await.error(404, 606);
    }
    assert!(world.ids("account_type=ALL").await.is_empty());
    let kept = world.simulator.account(&id).unwrap();
    assert!(kept.deleted && !kept.revoked_upstream, "deleting does not revoke");

    let id = world.active("u").await;
    let path = format!("/connected_accounts/{id}?revoke_on_delete=true");
    assert!(world.delete(&path).await.ok()["revoke_job_id"].is_string());
    let kept = world.simulator.account(&id).unwrap();
    assert!(kept.deleted && kept.revoked_upstream);
    let reason = "Revoked as part of connection delete";
    assert_eq!(kept.status_reason.as_deref(), Some(reason));
}

#[tokio::test]
async fn pending_accounts_expire_after_ten_minutes_wherever_they_are_looked_at() {
    let world = World::new().await;
    let (untouched, opened) = (world.pending("u").await, world.pending("v").await);
    world.simulator.open(&opened).unwrap();
    world.advance(599);
    assert_eq!(world.status(&untouched).await, "INITIALIZING");
    world.advance(100);
    let listed = world.get("/connected_accounts?statuses=EXPIRED").await.ok();
    assert_eq!(ids(&listed), [opened.clone(), untouched.clone()]);
    let reason = "Connection initiation did not complete within 10 minutes";
    let expired = json!({"status_reason": reason, "updated_at": "2026-03-01T12:10:00.000Z"});
    assert_has(&listed["items"][0], &expired);
    assert_eq!(world.status(&opened).await, "EXPIRED");
}

#[tokio::test]
async fn aliases_are_unique_and_nothing_else_is() {
    let world = World::new().await;
    let create = |user: &str, alias: &str| {
        let body = json!({"auth_config_id": "ac_reddit", "user_id": user, "alias": alias});
        world.post(LINK, body)
    };
    let first = id(&create("u", "main").await.ok());
    let error = create("u", "main").await.error(400, 600);
    assert_eq!(error["slug"], "ConnectedAccount_BadRequest");
    let message = "Alias \"main\" is already in use by another connection for this entity";
    assert_eq!(error["message"], message);
    create("v", "main").await.ok();
    let other = id(&create("u", "other").await.ok());
    let other_path = format!("/connected_accounts/{other}");
    let rename = |alias: &str| world.patch(&other_path, json!({"alias": alias}));
    rename("main").await.error(400, 600);
    world.advance(600);
    create("u", "main").await.error(400, 600);
    world.delete(&format!("/connected_accounts/{first}")).await.ok();
    create("u", "main").await.ok();
    let renamed = rename("").await.ok();
    assert_eq!(
        renamed,
        json!({"id": other, "status": "EXPIRED", "success": true})
    );
    create("u", "other").await.ok();
    for _ in 0..2 {
        world.pending("twin").await;
    }
    assert_eq!(world.ids("user_ids=twin").await.len(), 2);

    let world = World::assuming(&["dead-rows-hold-alias=false"]).await;
    let link = || {
        world.post(
            LINK,
            json!({"auth_config_id": "ac_reddit", "user_id": "u", "alias": "main"}),
        )
    };
    link().await.ok();
    link().await.error(400, 600);
    world.advance(600);
    link().await.ok();
    link().await.error(400, 600);
}

#[tokio::test]
async fn some_routes_exist_on_v3_1_alone() {
    let world = World::new().await;
    let id = world.active("u").await;
    let revoke = |id: &str| format!("/connected_accounts/{id}/revoke");
    let expected = json!({
        "revoked_tokens": ["access_token", "refresh_token"], "connected_account": {"id": id, "status": "REVOKED"}
    });
    assert_eq!(world.post(&revoke(&id), json!({})).await.ok(), expected);
    let again = world.post(&revoke(&id), json!({})).await.ok();
    assert_eq!(again["revoked_tokens"], json!([]));
    let reason = "Revoked via user-initiated revoke endpoint";
    assert_eq!(world.account(&id).await["status_reason"], reason);
    assert!(world.simulator.account(&id).unwrap().revoked_upstream);
    let pending = world.pending("v").await;
    world.post(&revoke(&pending), json!({})).await.error(409, 10409);
    world.post(&revoke("ca_none"), json!({})).await.error(404, 606);

    let complete = "/connected_accounts/complete_auth";
    let session = json!({"session_uri": "s", "user_id": "u"});
    world
        .post(complete, json!({"session_uri": "s"}))
        .await
        .error(400, 10400);
    let unknown = world.post(complete, session.clone()).await.error(404, 10404);
    assert!(unknown["message"].as_str().unwrap().starts_with("Auth session"));

    let world = world.on_v3();
    world.post(&revoke(&id), json!({})).await.error(404, 10404);
    world.post(complete, session).await.error(405, 10405);
}

#[tokio::test]
async fn the_status_call_revives_dead_accounts_only_if_assumed() {
    for (assumption, status) in [
        ("enable-revives-dead=false", "EXPIRED"),
        ("enable-revives-dead=true", "ACTIVE"),
    ] {
        let world = World::assuming(&[assumption]).await;
        let id = world.active("u").await;
        world.simulator.expire(&id).unwrap();
        let path = format!("/connected_accounts/{id}/status");
        for wrong in [json!({}), json!({"enabled": "yes"})] {
            world.patch(&path, wrong).await.error(400, 10400);
        }
        let reply = world.patch(&path, json!({"enabled": true})).await;
        if status == "ACTIVE" {
            reply.ok();
        } else {
            reply.error(400, 600);
        }
        assert_eq!(world.status(&id).await, status);
    }
}

#[tokio::test]
async fn refreshing_demotes_a_working_account_and_replaces_its_link() {
    let world = World::new().await;
    let link = world.link("u").await;
    let id = id(&link);
    world.simulator.consent(&id, None).unwrap();
    world.advance(100);
    let path = format!("/connected_accounts/{id}/refresh");
    let refreshed = world.post(&path, json!({})).await.ok();
    assert_has(&refreshed, &json!({"id": id, "status": "INITIATED"}));
    for (link, status) in [(&link, 410), (&refreshed, 200)] {
        let page = link["redirect_url"].as_str().unwrap();
        assert_eq!(world.bare(Method::GET, page, None).await.status, status);
    }
    world.advance(599);
    assert_eq!(world.status(&id).await, "INITIATED");
    world.simulator.consent(&id, None).unwrap();
    assert_eq!(world.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn the_legacy_create_is_for_secrets_alone() {
    let world = World::new().await;
    let create = |config: &str, connection: Value| {
        let body = json!({"auth_config": {"id": config}, "connection": connection});
        world.post("/connected_accounts", body)
    };
    let retired = create("ac_reddit", json!({"user_id": "u"})).await.error(400, 600);
    let message = retired["message"].as_str().unwrap();
    assert!(message.contains("no longer supported") && message.contains("/api/v3/connected_accounts/link"));
    let seed = json!({"user_id": "u", "auth_config_id": "ac_reddit", "config": {}});
    world.post("/connected_accounts", seed).await.error(400, 10400);

    let own = json!({"type": "use_custom_auth", "authScheme": "BEARER_TOKEN"});
    let config = world.auth_config("slack", own).await;
    create(&config, json!({"user_id": "u"})).await.error(400, 612);
    let state =
        |token: &str| json!({"authScheme": "BEARER_TOKEN", "val": {"status": "ACTIVE", "token": token}});
    let reply = create(
        &config,
        json!({"user_id": "u", "state": state("xoxb-very-secret")}),
    )
    .await;
    assert_eq!(reply.status, 201);
    let made = reply.json();
    let expected =
        json!({"status": "ACTIVE", "connectionData": {"val": {"status": "ACTIVE"}}, "redirect_url": null});
    assert_has(&made, &expected);
    let id = made["id"].as_str().unwrap();
    assert_eq!(world.account(id).await["state"]["val"]["token"], "xoxb...");
    let update = async |id: &str| {
        let body = json!({"connection": {"state": state("abc")}});
        world.patch(&format!("/connected_accounts/{id}"), body).await
    };
    update(id).await.ok();
    assert_eq!(world.account(id).await["state"]["val"]["token"], "REDACTED");
    let oauth = world.active("u").await;
    update(&oauth).await.error(400, 600);
    let log = serde_json::to_string(&world.simulator.calls()).unwrap();
    assert!(!log.contains("very-secret"));

    let credentials = json!({"client_id": "i", "client_secret": "s"});
    let app = json!({"type": "use_custom_auth", "authScheme": "OAUTH2", "credentials": credentials});
    let config = world.auth_config("reddit", app).await;
    let made = create(&config, json!({"user_id": "u"})).await.ok();
    assert_eq!(made["status"], "INITIALIZING");
    assert!(made["redirect_url"].as_str().unwrap().contains("/link/lk_"));
}

#[tokio::test]
async fn access_lists_belong_to_shared_accounts() {
    let world = World::new().await;
    let create = |experimental: Value| {
        let body = json!({"auth_config_id": "ac_reddit", "user_id": "u", "experimental": experimental});
        world.post(LINK, body)
    };
    let private = json!({"account_type": "PRIVATE", "acl_config_for_shared": {}});
    let error = create(private).await.error(400, 600);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("acl_config_for_shared is only valid on SHARED"));
    let many = json!({"allowed_user_ids": vec!["x"; 1_001]});
    let too_many = json!({"account_type": "SHARED", "acl_config_for_shared": many});
    create(too_many).await.error(400, 10400);
    let acl = json!({"allow_all_users": false, "allowed_user_ids": ["v"], "not_allowed_user_ids": []});
    let shared = json!({"account_type": "SHARED", "acl_config_for_shared": acl});
    let link = create(shared.clone()).await.ok();
    assert_eq!(link["experimental"], shared);
    let private = json!({"account_type": "PRIVATE"});
    let path = format!("/connected_accounts/{}", id(&link));
    world.patch(&path, json!({"experimental": private})).await.ok();
    assert_eq!(world.account(&id(&link)).await["experimental"], private);
}
