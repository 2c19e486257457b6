//! Running tools: who may, on whose account, and with what result.

use composio_sim::{Access, ApiKey, Area, Config, ProviderMode};
use serde_json::{Value, json};

use crate::client::{Reply, World, assert_has, config};

const ABOUT: &str = "/tools/execute/REDDIT_GET_REDDIT_USER_ABOUT";

async fn about_me(world: &World, user: Option<&str>, account: Option<&str>) -> Reply {
    let body = json!({"user_id": user, "connected_account_id": account, "arguments": {"username": "me"}});
    world.post(ABOUT, body).await
}

/// Runs a tool for the user `alice`.
async fn run(world: &World, tool: &str, arguments: Value) -> Value {
    let body = json!({"user_id": "alice", "arguments": arguments});
    world.post(&format!("/tools/execute/{tool}"), body).await.ok()
}

#[tokio::test]
async fn a_working_account_tells_who_it_belongs_to() {
    let world = World::new().await;
    for name in ["older", "newer"] {
        let id = world.pending("u").await;
        world.simulator.consent(&id, Some(name)).unwrap();
        let result = about_me(&world, Some("u"), Some(&id)).await.ok();
        let profile = json!({"name": name, "subreddit": {"display_name": format!("u_{name}")}});
        let expected = json!({"successful": true, "error": null, "data": {"kind": "t2", "data": profile}});
        assert_has(&result, &expected);
        let profile = &result["data"]["data"];
        assert!(
            profile["icon_img"].as_str().unwrap().contains("&amp;"),
            "escaped as Reddit does"
        );
        assert!(result["log_id"].as_str().unwrap().starts_with("log_"));
    }
    world.pending("u").await;
    let result = about_me(&world, Some("u"), None).await.ok();
    assert_eq!(
        result["data"]["data"]["name"], "newer",
        "the newest working account is taken"
    );
}

#[tokio::test]
async fn the_matrix_of_refusals() {
    let world = World::new().await;
    let active = world.active("u").await;
    let refused = async |user: &str, account: Option<&str>, status, code| {
        let reply = about_me(&world, Some(user), account).await;
        reply.error(status, code)
    };
    let error = about_me(&world, None, Some(&active)).await.error(400, 1811);
    assert_eq!(error["slug"], "ActionExecute_ConnectedAccountEntityIdRequired");
    about_me(&world, None, None).await.error(400, 1811);
    let error = refused("other", Some(&active), 400, 1812).await;
    assert_eq!(error["slug"], "ActionExecute_ConnectedAccountEntityIdMismatch");
    refused("u", Some("ca_unknown"), 404, 1810).await;
    refused("nobody", None, 404, 1810).await;

    let pending = world.pending("p").await;
    refused("p", Some(&pending), 422, 10422).await;
    world.simulator.open(&pending).unwrap();
    refused("p", Some(&pending), 422, 10422).await;
    refused("p", None, 404, 1810).await;
    world.simulator.deny(&pending).unwrap();
    refused("p", Some(&pending), 422, 10422).await;
    world.simulator.disable(&active).unwrap();
    refused("u", Some(&active), 422, 10422).await;
    let revoked = world.active("r").await;
    world.act(&revoked, "revoke", None).await.ok();
    refused("r", Some(&revoked), 422, 10422).await;
    let expired = world.active("e").await;
    world.simulator.expire(&expired).unwrap();
    let error = refused("e", Some(&expired), 410, 1820).await;
    assert!(error["message"].as_str().unwrap().contains("is in EXPIRED state"));
    let deleted = world.active("d").await;
    world.delete(&format!("/connected_accounts/{deleted}")).await.ok();
    refused("d", Some(&deleted), 404, 1810).await;
    refused("d", None, 404, 1810).await;
}

#[tokio::test]
async fn what_is_not_documented_can_be_switched() {
    let world = World::assuming(&["no-account-status=400", "dead-execute-unprocessable=false"]).await;
    about_me(&world, Some("nobody"), None).await.error(400, 1810);
    let id = world.active("u").await;
    world.simulator.disable(&id).unwrap();
    about_me(&world, Some("u"), Some(&id)).await.error(400, 1810);
    let pending = world.pending("p").await;
    let reply = about_me(&world, Some("p"), Some(&pending)).await;
    reply.error(422, 10422);
}

#[tokio::test]
async fn bodies_are_validated() {
    let world = World::new().await;
    world.active("u").await;
    let about = "REDDIT_GET_REDDIT_USER_ABOUT";
    for (tool, body, status, code) in [
        (about, json!({"user_id": "u"}), 400, 10400),
        (about, json!({"user_id": 1, "arguments": {}}), 400, 10400),
        (about, json!({"user_id": "u", "text": "who am I"}), 501, 10501),
        ("REDDIT_FLY", json!({"user_id": "u", "arguments": {}}), 404, 2401),
        (
            about,
            json!({"user_id": "u", "arguments": {}, "version": "19990101_00"}),
            404,
            2401,
        ),
        (
            "REDDIT_GET_RANDOM",
            json!({"user_id": "u", "arguments": {}}),
            501,
            10501,
        ),
        ("REDDIT_GET_RANDOM/input", json!({"text": "me"}), 501, 10501),
    ] {
        let reply = world.post(&format!("/tools/execute/{tool}"), body).await;
        reply.error(status, code);
    }
    let both = json!({"user_id": "u", "arguments": {}, "text": "who am I"});
    let error = world.post(ABOUT, both).await.error(400, 10400);
    let complaint = "Error in payload.text.arguments: Only one of 'text' or 'arguments' must be provided";
    assert_eq!(error["errors"], json!([complaint]));
    for (arguments, complaint) in [
        (json!({}), "{'username'}"),
        (json!({"username": 7}), "valid string"),
    ] {
        let body = json!({"user_id": "u", "arguments": arguments});
        let result = world.post(ABOUT, body).await.ok();
        assert_eq!(
            result["successful"], false,
            "a tool's own complaint is no HTTP error"
        );
        assert!(result["error"].as_str().unwrap().contains(complaint));
    }
}

#[tokio::test]
async fn versions_change_the_shape() {
    let mut world = World::new().await;
    world.active("alice").await;
    for (prefix, version, name) in [
        ("/api/v3.1", None, "/data/data/name"),
        ("/api/v3.1", Some("00000000_00"), "/data/response_data/data/name"),
        ("/api/v3", None, "/data/response_data/data/name"),
        ("/api/v3", Some("20260424_00"), "/data/data/name"),
    ] {
        world.prefix = prefix;
        let body = json!({"user_id": "alice", "arguments": {"username": "me"}, "version": version});
        let result = world.post(ABOUT, body).await.ok();
        assert_eq!(
            result.pointer(name),
            Some(&json!("alice")),
            "{prefix} {version:?}"
        );
    }
}

#[tokio::test]
async fn reddit_tools_return_what_reddit_would() {
    let world = World::new().await;
    world.active("alice").await;
    let prefs = run(&world, "REDDIT_GET_ME_PREFS", json!({"fields": "lang,numsites"})).await;
    assert_eq!(prefs["data"], json!({"lang": "en", "numsites": 25}));
    let scopes = run(&world, "REDDIT_GET_SCOPES", json!({"scopes": "identity"})).await;
    assert_eq!(scopes["data"]["identity"]["id"], "identity");
    for (name, available) in [("Alice", false), ("zoe", true)] {
        let result = run(&world, "REDDIT_GET_USERNAME_AVAILABLE", json!({"user": name})).await;
        assert_eq!(result["data"], json!({"available": available}), "{name}");
    }
    let zoe = json!({"username": "zoe"});
    let stranger = run(&world, "REDDIT_GET_REDDIT_USER_ABOUT", zoe.clone()).await;
    assert!(stranger["error"].as_str().unwrap().contains("404"));
    world.active("zoe").await;
    let found = run(&world, "REDDIT_GET_REDDIT_USER_ABOUT", zoe).await;
    assert_eq!(found["data"]["data"]["name"], "zoe");
}

#[tokio::test]
async fn tools_without_authentication_need_no_account() {
    let world = World::new().await;
    for (tool, arguments, expected) in [
        (
            "GET_FRONTPAGE",
            json!({"min_points": 200}),
            vec!["4005", "4001", "4004"],
        ),
        (
            "GET_LATEST_POSTS",
            json!({"size": 2, "page": 1}),
            vec!["4004", "4003"],
        ),
        (
            "GET_TODAYS_POSTS",
            json!({}),
            vec!["4006", "4005", "4004", "4003"],
        ),
        ("SEARCH_POSTS", json!({"query": "RUST"}), vec!["4004"]),
    ] {
        let result = run(&world, &format!("HACKERNEWS_{tool}"), arguments).await;
        let hits = result["data"]["hits"].as_array().unwrap();
        let ids: Vec<_> = hits.iter().map(|hit| hit["objectID"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{tool}");
    }
    let item = run(&world, "HACKERNEWS_GET_ITEM_WITH_ID", json!({"item_id": 4_001})).await;
    assert_eq!(item["data"]["title"], "Idempotency keys, revisited");
    let missing = run(&world, "HACKERNEWS_GET_USER", json!({"username": "nobody"})).await;
    assert!(missing["error"].as_str().unwrap().contains("404"));
    let path = "/tools/execute/CODEINTERPRETER_CREATE_SANDBOX";
    let sandbox = world.post(path, json!({"arguments": {}})).await.ok();
    assert!(
        sandbox["data"]["sandbox_id"].is_string(),
        "not even a user id is needed"
    );
    let code = json!({"code_to_execute": "print(1)"});
    let code = run(&world, "CODEINTERPRETER_EXECUTE_CODE", code).await;
    assert_eq!(code["successful"], false);
}

#[tokio::test]
async fn providers_fail_without_composio_noticing() {
    let world = World::new().await;
    let id = world.active("alice").await;
    let about = async |mode| {
        world.simulator.set_provider_mode(&id, mode).unwrap();
        let result = about_me(&world, Some("alice"), Some(&id)).await.ok();
        assert_eq!(world.status(&id).await, "ACTIVE");
        result
    };
    for (mode, words) in [
        (ProviderMode::RevokedAtProvider, ["401", "invalid_grant"]),
        (ProviderMode::Down, ["503", "Server Error: Service Unavailable"]),
    ] {
        let result = about(mode).await;
        assert_eq!(result["successful"], false);
        let error = result["error"].as_str().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let suspended = about(ProviderMode::Suspended).await;
    let profile = json!({"name": "alice", "is_suspended": true});
    assert_eq!(suspended["data"]["data"], profile);
    let slow = about(ProviderMode::Slow { millis: 1 }).await;
    assert_eq!(slow["data"]["data"]["name"], "alice");
}

#[tokio::test]
async fn the_proxy_wants_a_scoped_key_on_v3_1() {
    let scoped = ApiKey::new("ak_proxy").scoped([(Area::ProxyExecute, Access::Write)]);
    let keys = vec![ApiKey::new("ak_default"), scoped];
    let world = World::with(Config { keys, ..config() }).await;
    let mut world = world.with_key("ak_default");
    let id = world.active("alice").await;
    let proxy = async |world: &World, endpoint: &str, account: Option<&str>| {
        let body = json!({"endpoint": endpoint, "method": "GET", "connected_account_id": account});
        world.post("/tools/execute/proxy", body).await
    };
    let me = "/api/v1/me";
    let refused = proxy(&world, me, Some(&id)).await.error(403, 812);
    assert_eq!(refused["slug"], "APIKey_InsufficientPermissions");
    world.prefix = "/api/v3";
    let expected = json!({"status": 200, "data": {"name": "alice"}});
    assert_has(&proxy(&world, me, Some(&id)).await.ok(), &expected);
    world.prefix = "/api/v3.1";
    let world = world.with_key("ak_proxy");
    for endpoint in [me, "https://www.reddit.com/api/v1/me"] {
        assert_has(&proxy(&world, endpoint, Some(&id)).await.ok(), &expected);
    }
    for elsewhere in [
        "https://evil.example/api/v1/me",
        "https://reddit.com.evil.example/api/v1/me",
    ] {
        let error = proxy(&world, elsewhere, Some(&id)).await.error(400, 10400);
        assert_eq!(error["slug"], "OriginMismatch", "{elsewhere}");
    }
    let error = proxy(&world, me, None).await.error(400, 10400);
    assert_eq!(error["slug"], "MissingAuthContext");
    let reply = proxy(&world, "/api/v1/me/karma", Some(&id)).await;
    reply.error(501, 10501);
    let mode = ProviderMode::RevokedAtProvider;
    world.simulator.set_provider_mode(&id, mode).unwrap();
    let revoked = proxy(&world, me, Some(&id)).await.ok();
    assert_eq!(revoked["status"], 401, "the provider's status comes inside");
}
