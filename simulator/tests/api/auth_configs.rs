//! Auth configs.

use serde_json::json;

use crate::client::{World, assert_has, ids};

#[tokio::test]
async fn configs_are_made_read_changed_switched_and_deleted() {
    let world = World::new().await;
    let body = json!({"toolkit": {"slug": "GITHUB"}, "auth_config": {
        "type": "use_custom_auth", "authScheme": "OAUTH2", "name": "ours",
        "credentials": {"client_id": "id", "client_secret": "hushhush"}}});
    let reply = world.post("/auth_configs", body).await;
    assert_eq!(reply.status, 201);
    let made = reply.json();
    let id = &made["auth_config"]["id"];
    let expected = json!({
        "toolkit": {"slug": "github"},
        "auth_config": {"id": id, "auth_scheme": "OAUTH2", "is_composio_managed": false},
    });
    assert_eq!(made, expected);

    let path = format!("/auth_configs/{}", id.as_str().unwrap());
    let expected = json!({
        "type": "custom", "name": "ours", "status": "ENABLED", "no_of_connections": 0, "tool_access_config": {},
        "credentials": {"client_id": "id", "client_secret": "hush..."}, "toolkit": {"slug": "github"},
        "created_at": "2026-03-01T12:00:00.000Z", "last_updated_at": "2026-03-01T12:00:00.000Z",
    });
    assert_has(&world.get(&path).await.ok(), &expected);

    world.advance(7);
    let change = json!({"type": "custom", "name": "renamed"});
    world.patch(&path, change).await.ok();
    let expected = json!({
        "name": "renamed", "credentials": {"client_id": "id"}, "last_updated_at": "2026-03-01T12:00:07.000Z"
    });
    assert_has(&world.get(&path).await.ok(), &expected);
    world
        .patch(&path, json!({"name": "untyped"}))
        .await
        .error(400, 10400);

    let switch = async |status: &str| world.patch(&format!("{path}/{status}"), json!({})).await;
    assert_eq!(switch("DISABLED").await.ok()["success"], true);
    assert_eq!(world.get(&path).await.ok()["status"], "DISABLED");
    switch("ASLEEP").await.error(400, 10400);
    assert_eq!(world.delete(&path).await.ok()["success"], true);
    world.get(&path).await.error(404, 10404);
    world.delete(&path).await.error(404, 10404);
    switch("ENABLED").await.error(404, 10404);
}

#[tokio::test]
async fn what_a_toolkit_does_not_have_is_refused() {
    let world = World::new().await;
    let create = |body| world.post("/auth_configs", body);
    let managed = |slug: &str| create(json!({"toolkit": {"slug": slug}}));
    let none = managed("hackernews").await.error(400, 303);
    assert_eq!(none["slug"], "Auth_Config_NoAuthApp");
    managed("nonexistent").await.error(404, 10404);
    create(json!({"toolkit": "reddit"})).await.error(400, 10400);
    let untyped = json!({"toolkit": {"slug": "slack"}, "auth_config": {"type": "use_custom_auth"}});
    create(untyped).await.error(400, 10400);
    let default = managed("slack").await.ok();
    assert_eq!(default["auth_config"]["is_composio_managed"], true);
}

#[tokio::test]
async fn lists_hide_disabled_configs_and_count_connections() {
    let world = World::new().await;
    let twin = json!({"type": "use_composio_managed_auth", "name": "twin"});
    let older = world.auth_config("reddit", twin.clone()).await;
    let newer = world.auth_config("reddit", twin).await;
    let path = format!("/auth_configs/{older}/DISABLED");
    world.patch(&path, json!({})).await.ok();
    world.active("u").await;
    world.pending("v").await;
    let list = async |query: &str| world.get(&format!("/auth_configs?{query}")).await.ok();
    let (older, newer) = (older.as_str(), newer.as_str());
    for (query, expected) in [
        ("toolkit_slug=reddit", vec![newer, "ac_reddit"]),
        ("show_disabled=true", vec![newer, older, "ac_reddit"]),
        ("search=TWIN&show_disabled=true&limit=200", vec![newer, older]),
        ("toolkit_slug=slack,github", vec![]),
        ("is_composio_managed=false", vec![]),
    ] {
        assert_eq!(ids(&list(query).await), expected, "{query}");
    }
    let connections = list("search=ac_reddit").await["items"][0]["no_of_connections"].clone();
    assert_eq!(connections, 1, "pending accounts do not count");
    world.get("/auth_configs?limit=201").await.error(400, 10400);
}

#[tokio::test]
async fn accounts_outlive_their_config() {
    let world = World::new().await;
    let id = world.active("u").await;
    let disable = "/auth_configs/ac_reddit/DISABLED";
    world.patch(disable, json!({})).await.ok();
    let reason = "Auth config is disabled";
    let expected = json!({"status": "ACTIVE", "status_reason": reason, "auth_config": {"is_disabled": true}});
    assert_has(&world.account(&id).await, &expected);
    let delete = "/auth_configs/ac_reddit?revoke_on_delete=true";
    assert!(world.delete(delete).await.ok()["revoke_job_id"].is_string());
    assert_eq!(world.status(&id).await, "REVOKED");
}
