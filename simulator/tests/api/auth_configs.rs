//! Auth configs.

use serde_json::json;

use crate::client::{World, ids};

#[tokio::test]
async fn configs_are_made_read_changed_switched_and_deleted() {
    let world = World::new().await;
    let body = json!({"toolkit": {"slug": "GITHUB"}, "auth_config": {
        "type": "use_custom_auth", "authScheme": "OAUTH2", "name": "ours",
        "credentials": {"client_id": "id", "client_secret": "hushhush"}}});
    let reply = world.post("/auth_configs", body).await;
    assert_eq!(reply.status, 201);
    let made = reply.json();
    assert_eq!(
        made["toolkit"],
        json!({"slug": "github"}),
        "slugs come back in lower case"
    );
    let id = made["auth_config"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made["auth_config"],
        json!({"id": id, "auth_scheme": "OAUTH2", "is_composio_managed": false})
    );

    let path = format!("/auth_configs/{id}");
    let config = world.get(&path).await.ok();
    let expected = json!({
        "type": "custom", "name": "ours", "status": "ENABLED", "no_of_connections": 0, "tool_access_config": {},
        "credentials": {"client_id": "id", "client_secret": "hush..."},
        "created_at": "2026-03-01T12:00:00.000Z", "last_updated_at": "2026-03-01T12:00:00.000Z",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&config[field], value, "{field}");
    }
    assert_eq!(config["toolkit"]["slug"], "github");

    world.advance(7);
    world
        .patch(&path, json!({"type": "custom", "name": "renamed"}))
        .await
        .ok();
    let config = world.get(&path).await.ok();
    assert_eq!(config["name"], "renamed");
    assert_eq!(
        config["credentials"]["client_id"], "id",
        "what the body does not name stays"
    );
    assert_eq!(config["last_updated_at"], "2026-03-01T12:00:07.000Z");
    world
        .patch(&path, json!({"name": "untyped"}))
        .await
        .error(400, 10400);

    assert_eq!(
        world.patch(&format!("{path}/DISABLED"), json!({})).await.ok()["success"],
        true
    );
    assert_eq!(world.get(&path).await.ok()["status"], "DISABLED");
    world
        .patch(&format!("{path}/ASLEEP"), json!({}))
        .await
        .error(400, 10400);
    assert_eq!(world.delete(&path).await.ok()["success"], true);
    world.get(&path).await.error(404, 10404);
    world.delete(&path).await.error(404, 10404);
    world
        .patch(&format!("{path}/ENABLED"), json!({}))
        .await
        .error(404, 10404);
}

#[tokio::test]
async fn what_a_toolkit_does_not_have_is_refused() {
    let world = World::new().await;
    let managed =
        |slug: &str| json!({"toolkit": {"slug": slug}, "auth_config": {"type": "use_composio_managed_auth"}});
    let none = world
        .post("/auth_configs", managed("hackernews"))
        .await
        .error(400, 303);
    assert_eq!(none["slug"], "Auth_Config_NoAuthApp");
    world
        .post("/auth_configs", managed("nonexistent"))
        .await
        .error(404, 10404);
    world
        .post("/auth_configs", json!({"toolkit": "reddit"}))
        .await
        .error(400, 10400);
    let untyped = json!({"toolkit": {"slug": "slack"}, "auth_config": {"type": "use_custom_auth"}});
    world.post("/auth_configs", untyped).await.error(400, 10400);
    let default = world
        .post("/auth_configs", json!({"toolkit": {"slug": "slack"}}))
        .await
        .ok();
    assert_eq!(default["auth_config"]["is_composio_managed"], true);
}

#[tokio::test]
async fn lists_hide_disabled_configs_and_count_connections() {
    let world = World::new().await;
    let make = |name: &'static str| {
        let body = json!({"toolkit": {"slug": "reddit"}, "auth_config": {"type": "use_composio_managed_auth", "name": name}});
        world.post("/auth_configs", body)
    };
    let ids_made = [make("twin").await.ok(), make("twin").await.ok()]
        .map(|made| made["auth_config"]["id"].as_str().unwrap().to_owned());
    assert_ne!(ids_made[0], ids_made[1], "repeated creates make twins");
    let [older, newer] = &ids_made;
    world
        .patch(&format!("/auth_configs/{older}/DISABLED"), json!({}))
        .await
        .ok();
    world.active("u").await;
    world.pending("v").await;
    let list = async |query: &str| world.get(&format!("/auth_configs?{query}")).await.ok();
    assert_eq!(
        ids(&list("toolkit_slug=reddit").await),
        [newer.as_str(), "ac_reddit"]
    );
    assert_eq!(
        ids(&list("show_disabled=true").await),
        [newer.as_str(), older.as_str(), "ac_reddit"]
    );
    assert_eq!(
        ids(&list("search=TWIN&show_disabled=true&limit=200").await),
        [newer.as_str(), older.as_str()]
    );
    assert!(ids(&list("toolkit_slug=slack,github").await).is_empty());
    assert!(ids(&list("is_composio_managed=false").await).is_empty());
    let page = list("limit=1&show_disabled=true").await;
    assert_eq!(
        (&page["total_items"], &page["total_pages"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(
        list("search=ac_reddit").await["items"][0]["no_of_connections"],
        1,
        "working ones only"
    );
    world.get("/auth_configs?limit=201").await.error(400, 10400);
}

#[tokio::test]
async fn accounts_outlive_their_config() {
    let world = World::new().await;
    let id = world.active("u").await;
    world
        .patch("/auth_configs/ac_reddit/DISABLED", json!({}))
        .await
        .ok();
    let account = world.get(&format!("/connected_accounts/{id}")).await.ok();
    assert_eq!(
        (&account["status"], &account["auth_config"]["is_disabled"]),
        (&json!("ACTIVE"), &json!(true))
    );
    assert_eq!(account["status_reason"], "Auth config is disabled");
    let answer = world
        .delete("/auth_configs/ac_reddit?revoke_on_delete=true")
        .await
        .ok();
    assert!(answer["revoke_job_id"].is_string());
    assert_eq!(world.status(&id).await, "REVOKED");
}
