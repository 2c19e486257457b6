//! Connected accounts: links, the legacy create, reading, naming, switching, revoking, deleting.

use composio_sim::{Assumptions, REASON_BY_USER, REASON_LINK_EXPIRED, REASON_REVOKED_BY_CALL};
use serde_json::{Value, json};

use crate::client::{World, config, id, ids};

#[tokio::test]
async fn a_link_makes_an_account_at_once() {
    let world = World::new().await;
    let reply = world
        .post(
            "/connected_accounts/link",
            json!({"auth_config_id": "ac_reddit", "user_id": "u", "alias": "main"}),
        )
        .await;
    assert_eq!(reply.status, 201);
    let link = reply.json();
    let keys: Vec<_> = link.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        ["connected_account_id", "expires_at", "link_token", "redirect_url"],
        "no id, no status"
    );
    assert_eq!(link["expires_at"], "2026-03-01T12:10:00.000Z");
    let token = link["link_token"].as_str().unwrap();
    assert!(token.starts_with("lk_"));
    assert_eq!(
        link["redirect_url"],
        format!("{}/link/{token}", world.simulator.url())
    );

    let account = world
        .get(&format!("/connected_accounts/{}", id(&link)))
        .await
        .ok();
    let expected = json!({
        "status": "INITIALIZING", "status_reason": null, "user_id": "u", "alias": "main", "is_disabled": false,
        "toolkit": {"slug": "reddit"}, "created_at": "2026-03-01T12:00:00.000Z",
        "updated_at": "2026-03-01T12:00:00.000Z", "experimental": {"account_type": "PRIVATE"},
        "state": {"authScheme": "OAUTH2", "val": {"status": "INITIALIZING"}},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&account[field], value, "{field}");
    }
    assert_eq!(account["auth_config"]["id"], "ac_reddit");
    assert_eq!(account["auth_config"]["is_composio_managed"], true);
    assert!(!account.to_string().contains(token), "the link is told once");
}

#[tokio::test]
async fn links_are_validated() {
    let world = World::new().await;
    let path = "/connected_accounts/link";
    let error = world
        .post(path, json!({"auth_config_id": 7, "callback_url": "nowhere"}))
        .await
        .error(400, 10400);
    assert_eq!(error["message"], "Validation error while processing request");
    assert_eq!(
        error["errors"],
        json!([
            "Error in payload.auth_config_id: Expected string, received number",
            "Error in payload.user_id: Required",
            "Error in payload.callback_url: Invalid url",
        ])
    );
    world
        .post(path, json!({"auth_config_id": "ac_reddit", "user_id": ""}))
        .await
        .error(400, 10400);
    let unknown = world
        .post(path, json!({"auth_config_id": "ac_none", "user_id": "u"}))
        .await
        .error(404, 10404);
    assert_eq!(unknown["slug"], "Auth_Config_NotFound");
    world
        .bare(
            reqwest::Method::PATCH,
            "/api/v3.1/auth_configs/ac_reddit/DISABLED",
            None,
        )
        .await
        .error(401, 10401);
    world
        .patch("/auth_configs/ac_reddit/DISABLED", json!({}))
        .await
        .ok();
    world
        .post(path, json!({"auth_config_id": "ac_reddit", "user_id": "u"}))
        .await
        .error(400, 10400);
    assert!(
        world.simulator.accounts().is_empty(),
        "no refusal left an account behind"
    );
}

#[tokio::test]
async fn a_life_from_link_to_deletion() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let path = format!("/connected_accounts/{id}");
    world.advance(5);
    world.simulator.open(&id).unwrap();
    let account = world.get(&path).await.ok();
    assert_eq!(
        (&account["status"], &account["updated_at"]),
        (&json!("INITIATED"), &json!("2026-03-01T12:00:05.000Z"))
    );
    assert!(account["state"]["val"]["redirectUrl"].is_string());
    world.advance(5);
    world.simulator.consent(&id, Some("alice")).unwrap();
    let account = world.get(&path).await.ok();
    assert_eq!(
        (&account["status"], &account["updated_at"]),
        (&json!("ACTIVE"), &json!("2026-03-01T12:00:10.000Z"))
    );
    assert_eq!(account["state"]["val"]["access_token"], "eyJh...", "masked");

    world
        .patch(&format!("{path}/status"), json!({"enabled": false}))
        .await
        .ok();
    let account = world.get(&path).await.ok();
    assert_eq!(account["status"], "INACTIVE");
    assert_eq!(
        (&account["status_reason"], &account["is_disabled"]),
        (&json!(REASON_BY_USER), &json!(true))
    );
    world
        .patch(&format!("{path}/status"), json!({"enabled": true}))
        .await
        .ok();
    assert_eq!(world.status(&id).await, "ACTIVE");

    assert_eq!(world.delete(&path).await.ok(), json!({"success": true}));
    for _ in 0..2 {
        let error = world.get(&path).await.error(404, 606);
        assert_eq!(error["slug"], "ConnectedAccount_ResourceNotFound");
        world.delete(&path).await.error(404, 606);
    }
    assert!(world.ids("account_type=ALL").await.is_empty());
    let kept = world.simulator.account(&id).unwrap();
    assert!(kept.deleted && !kept.revoked_upstream, "deleting does not revoke");
}

#[tokio::test]
async fn pending_accounts_expire_after_ten_minutes_wherever_they_are_looked_at() {
    let world = World::new().await;
    let (untouched, opened) = (world.pending("u").await, world.pending("v").await);
    world.simulator.open(&opened).unwrap();
    world.advance(599);
    assert_eq!(world.status(&untouched).await, "INITIALIZING");
    world.advance(1);
    let listed = world.get("/connected_accounts?statuses=EXPIRED").await.ok();
    assert_eq!(ids(&listed), [opened.clone(), untouched.clone()]);
    assert_eq!(listed["items"][0]["status_reason"], REASON_LINK_EXPIRED);
    assert_eq!(listed["items"][0]["updated_at"], "2026-03-01T12:10:00.000Z");
    assert_eq!(world.status(&opened).await, "EXPIRED");
}

#[tokio::test]
async fn aliases_are_unique_and_nothing_else_is() {
    let world = World::new().await;
    let create = |user: &'static str, alias: &'static str| {
        world.post(
            "/connected_accounts/link",
            json!({"auth_config_id": "ac_reddit", "user_id": user, "alias": alias}),
        )
    };
    let first = id(&create("u", "main").await.ok());
    let error = create("u", "main").await.error(400, 600);
    assert_eq!(error["slug"], "ConnectedAccount_BadRequest");
    assert_eq!(
        error["message"],
        "Alias \"main\" is already in use by another connection for this entity"
    );
    create("v", "main").await.ok();
    let other = id(&create("u", "other").await.ok());
    world
        .patch(&format!("/connected_accounts/{other}"), json!({"alias": "main"}))
        .await
        .error(400, 600);
    world.advance(600);
    create("u", "main").await.error(400, 600);
    world.delete(&format!("/connected_accounts/{first}")).await.ok();
    create("u", "main").await.ok();
    let renamed = world
        .patch(&format!("/connected_accounts/{other}"), json!({"alias": ""}))
        .await
        .ok();
    assert_eq!(
        renamed,
        json!({"id": other, "status": "EXPIRED", "success": true})
    );
    create("u", "other").await.ok();
    for _ in 0..2 {
        world.pending("twin").await;
    }
    assert_eq!(
        world.ids("user_ids=twin").await.len(),
        2,
        "creates without alias never deduplicate"
    );
}

#[tokio::test]
async fn revoking_is_a_matter_of_v3_1() {
    let world = World::new().await;
    let id = world.active("u").await;
    let path = format!("/connected_accounts/{id}/revoke");
    let first = world.post(&path, json!({})).await.ok();
    assert_eq!(
        first,
        json!({"revoked_tokens": ["access_token", "refresh_token"], "connected_account": {"id": id, "status": "REVOKED"}})
    );
    let second = world.post(&path, json!({})).await.ok();
    assert_eq!(second["revoked_tokens"], json!([]));
    let account = world.get(&format!("/connected_accounts/{id}")).await.ok();
    assert_eq!(account["status_reason"], REASON_REVOKED_BY_CALL);
    assert!(world.simulator.account(&id).unwrap().revoked_upstream);
    let pending = world.pending("v").await;
    world
        .post(&format!("/connected_accounts/{pending}/revoke"), json!({}))
        .await
        .error(409, 10409);
    world
        .post("/connected_accounts/ca_none/revoke", json!({}))
        .await
        .error(404, 606);

    let old = World {
        prefix: "/api/v3",
        ..world
    };
    old.post(&path, json!({})).await.error(404, 10404);
}

#[tokio::test]
async fn deleting_can_revoke() {
    let world = World::new().await;
    let id = world.active("u").await;
    let answer = world
        .delete(&format!("/connected_accounts/{id}?revoke_on_delete=true"))
        .await
        .ok();
    assert_eq!(answer["success"], true);
    assert!(answer["revoke_job_id"].is_string());
    let kept = world.simulator.account(&id).unwrap();
    assert!(kept.deleted && kept.revoked_upstream);
    assert_eq!(
        kept.status_reason.as_deref(),
        Some("Revoked as part of connection delete")
    );
}

#[tokio::test]
async fn the_status_call_does_not_raise_the_dead_unless_assumed() {
    let world = World::new().await;
    let id = world.active("u").await;
    let path = format!("/connected_accounts/{id}/status");
    world.simulator.expire(&id).unwrap();
    world.patch(&path, json!({"enabled": true})).await.error(400, 600);
    world
        .patch(&path, json!({"enabled": "yes"}))
        .await
        .error(400, 10400);
    world.patch(&path, json!({})).await.error(400, 10400);
    assert_eq!(world.status(&id).await, "EXPIRED");

    let assumptions = Assumptions {
        enable_revives_dead: true,
        ..Assumptions::default()
    };
    let world = World::with(composio_sim::Config {
        assumptions,
        ..config()
    })
    .await;
    let id = world.active("u").await;
    world.simulator.expire(&id).unwrap();
    world
        .patch(
            &format!("/connected_accounts/{id}/status"),
            json!({"enabled": true}),
        )
        .await
        .ok();
    assert_eq!(world.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn refreshing_demotes_a_working_account() {
    let world = World::new().await;
    let id = world.active("u").await;
    let answer = world
        .post(&format!("/connected_accounts/{id}/refresh"), json!({}))
        .await
        .ok();
    assert_eq!(
        (&answer["id"], &answer["status"]),
        (&json!(id), &json!("INITIATED"))
    );
    let page = world
        .bare(
            reqwest::Method::GET,
            answer["redirect_url"].as_str().unwrap(),
            None,
        )
        .await;
    assert_eq!(page.status, 200);
    world.simulator.consent(&id, None).unwrap();
    assert_eq!(
        world.status(&id).await,
        "ACTIVE",
        "the same account can be authorized again"
    );
}

#[tokio::test]
async fn the_legacy_create_is_for_secrets_alone() {
    let world = World::new().await;
    let create = |config: &str, connection: Value| {
        world.post(
            "/connected_accounts",
            json!({"auth_config": {"id": config}, "connection": connection}),
        )
    };
    let retired = create("ac_reddit", json!({"user_id": "u"})).await.error(400, 600);
    let message = retired["message"].as_str().unwrap();
    assert!(message.contains("no longer supported") && message.contains("/api/v3/connected_accounts/link"));
    let seed = json!({"user_id": "u", "auth_config_id": "ac_reddit", "config": {}});
    world.post("/connected_accounts", seed).await.error(400, 10400);

    let own = json!({"toolkit": {"slug": "slack"}, "auth_config": {"type": "use_custom_auth", "authScheme": "BEARER_TOKEN"}});
    let config = world.post("/auth_configs", own).await.ok()["auth_config"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    create(&config, json!({"user_id": "u"})).await.error(400, 612);
    let state =
        json!({"authScheme": "BEARER_TOKEN", "val": {"status": "ACTIVE", "token": "xoxb-very-secret"}});
    let reply = create(&config, json!({"user_id": "u", "state": state})).await;
    assert_eq!(reply.status, 201);
    let made = reply.json();
    assert_eq!(
        (&made["status"], &made["connectionData"]["val"]["status"]),
        (&json!("ACTIVE"), &json!("ACTIVE"))
    );
    assert_eq!(made["redirect_url"], Value::Null);
    let path = format!("/connected_accounts/{}", made["id"].as_str().unwrap());
    let account = world.get(&path).await.ok();
    assert_eq!(account["state"]["val"]["token"], "xoxb...");
    let new = json!({"connection": {"state": {"authScheme": "BEARER_TOKEN", "val": {"token": "abc"}}}});
    world.patch(&path, new.clone()).await.ok();
    assert_eq!(world.get(&path).await.ok()["state"]["val"]["token"], "REDACTED");
    let oauth = world.active("u").await;
    world
        .patch(&format!("/connected_accounts/{oauth}"), new)
        .await
        .error(400, 600);
    assert!(
        !serde_json::to_string(&world.simulator.calls())
            .unwrap()
            .contains("very-secret")
    );

    let app = json!({"toolkit": {"slug": "reddit"}, "auth_config": {
        "type": "use_custom_auth", "authScheme": "OAUTH2", "credentials": {"client_id": "i", "client_secret": "s"}}});
    let config = world.post("/auth_configs", app).await.ok()["auth_config"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let made = create(&config, json!({"user_id": "u"})).await.ok();
    assert_eq!(made["status"], "INITIALIZING");
    assert!(made["redirect_url"].as_str().unwrap().contains("/link/lk_"));
}

#[tokio::test]
async fn access_lists_belong_to_shared_accounts() {
    let world = World::new().await;
    let create = |experimental: Value| {
        world.post(
            "/connected_accounts/link",
            json!({"auth_config_id": "ac_reddit", "user_id": "u", "experimental": experimental}),
        )
    };
    let error = create(json!({"account_type": "PRIVATE", "acl_config_for_shared": {}}))
        .await
        .error(400, 600);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("acl_config_for_shared is only valid on SHARED")
    );
    let many = vec!["x"; 1_001];
    let too_many = json!({"account_type": "SHARED", "acl_config_for_shared": {"allowed_user_ids": many}});
    create(too_many).await.error(400, 10400);
    let acl = json!({"allow_all_users": false, "allowed_user_ids": ["v"], "not_allowed_user_ids": []});
    let link = create(json!({"account_type": "SHARED", "acl_config_for_shared": acl}))
        .await
        .ok();
    assert_eq!(link["experimental"]["acl_config_for_shared"], acl);
    let path = format!("/connected_accounts/{}", id(&link));
    world
        .patch(&path, json!({"experimental": {"account_type": "PRIVATE"}}))
        .await
        .ok();
    assert_eq!(
        world.get(&path).await.ok()["experimental"],
        json!({"account_type": "PRIVATE"})
    );
}

#[tokio::test]
async fn no_session_can_be_redeemed() {
    let world = World::new().await;
    let path = "/connected_accounts/complete_auth";
    world
        .post(path, json!({"session_uri": "s"}))
        .await
        .error(400, 10400);
    world
        .post(path, json!({"session_uri": "s", "user_id": "u"}))
        .await
        .error(404, 10404);
}

#[tokio::test]
async fn both_prefixes_show_the_same_accounts() {
    let world = World::new().await;
    let id = world.active("u").await;
    let new = world.get(&format!("/connected_accounts/{id}")).await.ok();
    let old = World {
        prefix: "/api/v3",
        ..world
    };
    assert_eq!(old.get(&format!("/connected_accounts/{id}")).await.ok(), new);
}
