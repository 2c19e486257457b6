//! Running tools: who may, on whose account, and what comes of it.

use composio_sim::{Access, ApiKey, Area, Assumptions, Config, ProviderMode};
use serde_json::{Value, json};

use crate::client::{Reply, World, config};

const ABOUT: &str = "/tools/execute/REDDIT_GET_REDDIT_USER_ABOUT";

async fn about_me(world: &World, user: Option<&str>, account: Option<&str>) -> Reply {
    let body = json!({"user_id": user, "connected_account_id": account, "arguments": {"username": "me"}});
    world.post(ABOUT, body).await
}

#[tokio::test]
async fn a_working_account_tells_who_it_belongs_to() {
    let world = World::new().await;
    let id = world.pending("u").await;
    world.simulator.consent(&id, Some("alice")).unwrap();
    let answer = about_me(&world, Some("u"), Some(&id)).await.ok();
    assert_eq!(
        (&answer["successful"], &answer["error"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(answer["data"]["kind"], "t2");
    assert_eq!(answer["data"]["data"]["name"], "alice");
    assert!(
        answer["data"]["data"]["icon_img"]
            .as_str()
            .unwrap()
            .contains("&amp;")
    );
    assert!(answer["log_id"].as_str().unwrap().starts_with("log_"));
}

#[tokio::test]
async fn the_matrix_of_refusals() {
    let world = World::new().await;
    let active = world.active("u").await;
    let error = about_me(&world, None, Some(&active)).await.error(400, 1811);
    assert_eq!(error["slug"], "ActionExecute_ConnectedAccountEntityIdRequired");
    about_me(&world, None, None).await.error(400, 1811);
    let error = about_me(&world, Some("other"), Some(&active))
        .await
        .error(400, 1812);
    assert_eq!(error["slug"], "ActionExecute_ConnectedAccountEntityIdMismatch");
    about_me(&world, Some("u"), Some("ca_unknown"))
        .await
        .error(404, 1810);
    about_me(&world, Some("nobody"), None).await.error(404, 1810);

    let pending = world.pending("p").await;
    about_me(&world, Some("p"), Some(&pending))
        .await
        .error(422, 10422);
    world.simulator.open(&pending).unwrap();
    about_me(&world, Some("p"), Some(&pending))
        .await
        .error(422, 10422);
    about_me(&world, Some("p"), None).await.error(404, 1810);
    world.simulator.deny(&pending).unwrap();
    about_me(&world, Some("p"), Some(&pending))
        .await
        .error(422, 10422);
    world.simulator.disable(&active).unwrap();
    about_me(&world, Some("u"), Some(&active)).await.error(422, 10422);
    let revoked = world.active("r").await;
    world.simulator.revoke(&revoked).unwrap();
    about_me(&world, Some("r"), Some(&revoked))
        .await
        .error(422, 10422);
    let expired = world.active("e").await;
    world.simulator.expire(&expired).unwrap();
    let error = about_me(&world, Some("e"), Some(&expired)).await.error(410, 1820);
    assert!(error["message"].as_str().unwrap().contains("is in EXPIRED state"));
    let deleted = world.active("d").await;
    world.delete(&format!("/connected_accounts/{deleted}")).await.ok();
    about_me(&world, Some("d"), Some(&deleted)).await.error(404, 1810);
    about_me(&world, Some("d"), None).await.error(404, 1810);
}

#[tokio::test]
async fn what_is_not_documented_can_be_switched() {
    let assumptions = Assumptions {
        no_account_status: 400,
        dead_execute_unprocessable: false,
        ..Assumptions::default()
    };
    let world = World::with(Config {
        assumptions,
        ..config()
    })
    .await;
    about_me(&world, Some("nobody"), None).await.error(400, 1810);
    let id = world.active("u").await;
    world.simulator.disable(&id).unwrap();
    about_me(&world, Some("u"), Some(&id)).await.error(400, 1810);
    let pending = world.pending("p").await;
    about_me(&world, Some("p"), Some(&pending))
        .await
        .error(422, 10422);
}

#[tokio::test]
async fn without_an_account_id_the_newest_working_account_is_taken() {
    let world = World::new().await;
    for name in ["older", "newer"] {
        let id = world.pending("u").await;
        world.simulator.consent(&id, Some(name)).unwrap();
    }
    world.pending("u").await;
    let answer = about_me(&world, Some("u"), None).await.ok();
    assert_eq!(answer["data"]["data"]["name"], "newer");
}

#[tokio::test]
async fn bodies_are_validated() {
    let world = World::new().await;
    let id = world.active("u").await;
    let both = json!({"user_id": "u", "connected_account_id": id, "arguments": {}, "text": "who am I"});
    let error = world.post(ABOUT, both).await.error(400, 10400);
    assert_eq!(
        error["errors"],
        json!(["Error in payload.text.arguments: Only one of 'text' or 'arguments' must be provided"])
    );
    world.post(ABOUT, json!({"user_id": "u"})).await.error(400, 10400);
    world
        .post(ABOUT, json!({"user_id": 1, "arguments": {}}))
        .await
        .error(400, 10400);
    world
        .post(ABOUT, json!({"user_id": "u", "text": "who am I"}))
        .await
        .error(501, 10501);
    world
        .post(
            "/tools/execute/REDDIT_FLY",
            json!({"user_id": "u", "arguments": {}}),
        )
        .await
        .error(404, 2401);
    let pinned = json!({"user_id": "u", "arguments": {"username": "me"}, "version": "19990101_00"});
    world.post(ABOUT, pinned).await.error(404, 2401);
    world
        .post(
            "/tools/execute/REDDIT_GET_RANDOM",
            json!({"user_id": "u", "arguments": {}}),
        )
        .await
        .error(501, 10501);
    world
        .post(&format!("{ABOUT}/input"), json!({"text": "me"}))
        .await
        .error(501, 10501);
    let missing = world
        .post(ABOUT, json!({"user_id": "u", "arguments": {}}))
        .await
        .ok();
    assert_eq!(
        missing["successful"], false,
        "a tool's own complaint is no HTTP error"
    );
    assert!(missing["error"].as_str().unwrap().contains("'username'"));
}

#[tokio::test]
async fn versions_change_the_shape() {
    let world = World::new().await;
    world.active("alice").await;
    let run = async |world: &World, version: Option<&str>| {
        let body = json!({"user_id": "alice", "arguments": {"username": "me"}, "version": version});
        world.post(ABOUT, body).await.ok()["data"].clone()
    };
    assert_eq!(run(&world, None).await["data"]["name"], "alice");
    assert_eq!(
        run(&world, Some("00000000_00")).await["response_data"]["data"]["name"],
        "alice"
    );
    let old = World {
        prefix: "/api/v3",
        ..world
    };
    assert_eq!(run(&old, None).await["response_data"]["data"]["name"], "alice");
    assert_eq!(run(&old, Some("20260424_00")).await["data"]["name"], "alice");
}

#[tokio::test]
async fn tools_without_authentication_need_no_account() {
    let world = World::new().await;
    let front = world
        .post(
            "/tools/execute/HACKERNEWS_GET_FRONTPAGE",
            json!({"user_id": "u", "arguments": {}}),
        )
        .await;
    let front = front.ok();
    assert_eq!(front["successful"], true);
    assert!(front["data"]["hits"][0]["title"].is_string());
    world
        .post(
            "/tools/execute/HACKERNEWS_GET_FRONTPAGE",
            json!({"arguments": {}}),
        )
        .await
        .ok();
    let sandbox = world
        .post(
            "/tools/execute/CODEINTERPRETER_CREATE_SANDBOX",
            json!({"arguments": {}}),
        )
        .await
        .ok();
    assert!(sandbox["data"]["sandbox_id"].is_string());
    let code = json!({"arguments": {"code_to_execute": "print(1)"}});
    let code = world
        .post("/tools/execute/CODEINTERPRETER_EXECUTE_CODE", code)
        .await
        .ok();
    assert_eq!(code["successful"], false);
}

#[tokio::test]
async fn providers_fail_without_composio_noticing() {
    let world = World::new().await;
    let id = world.active("alice").await;
    let cases = [
        (ProviderMode::RevokedAtProvider, vec!["401", "invalid_grant"]),
        (ProviderMode::Down, vec!["503 Server Error: Service Unavailable"]),
    ];
    for (mode, words) in cases {
        world.simulator.set_provider_mode(&id, mode).unwrap();
        let answer = about_me(&world, Some("alice"), Some(&id)).await.ok();
        assert_eq!(answer["successful"], false);
        let error = answer["error"].as_str().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(world.status(&id).await, "ACTIVE");
    }
    world
        .simulator
        .set_provider_mode(&id, ProviderMode::Suspended)
        .unwrap();
    let answer = about_me(&world, Some("alice"), Some(&id)).await.ok();
    assert_eq!(
        answer["data"]["data"],
        json!({"name": "alice", "is_suspended": true})
    );
    world
        .simulator
        .set_provider_mode(&id, ProviderMode::Slow { millis: 1 })
        .unwrap();
    let answer = about_me(&world, Some("alice"), Some(&id)).await.ok();
    assert_eq!(answer["data"]["data"]["name"], "alice");
}

#[tokio::test]
async fn the_proxy_wants_a_scoped_key_on_v3_1() {
    let scoped = ApiKey::new("ak_proxy").scoped([(Area::ProxyExecute, Access::Write)]);
    let keys = vec![ApiKey::new("ak_default"), scoped];
    let world = World::with(Config { keys, ..config() }).await;
    let mut world = World {
        key: "ak_default".to_owned(),
        ..world
    };
    let id = world.active("alice").await;
    let me = json!({"endpoint": "/api/v1/me", "method": "GET", "connected_account_id": id});
    let refused = world
        .post("/tools/execute/proxy", me.clone())
        .await
        .error(403, 812);
    assert_eq!(refused["slug"], "APIKey_InsufficientPermissions");
    world.prefix = "/api/v3";
    let answer = world.post("/tools/execute/proxy", me.clone()).await.ok();
    assert_eq!(
        (&answer["status"], &answer["data"]["name"]),
        (&json!(200), &json!("alice")),
        "flat, unlike about"
    );
    world.prefix = "/api/v3.1";
    world.key = "ak_proxy".to_owned();
    assert_eq!(
        world.post("/tools/execute/proxy", me.clone()).await.ok()["data"]["name"],
        "alice"
    );
    let with = |field: &str, value: &str| {
        let mut body = me.clone();
        body[field] = json!(value);
        body
    };
    let elsewhere = with("endpoint", "https://evil.example/api/v1/me");
    assert_eq!(
        world
            .post("/tools/execute/proxy", elsewhere)
            .await
            .error(400, 10400)["slug"],
        "OriginMismatch"
    );
    let nobody = json!({"endpoint": "/api/v1/me", "method": "GET"});
    assert_eq!(
        world.post("/tools/execute/proxy", nobody).await.error(400, 10400)["slug"],
        "MissingAuthContext"
    );
    world
        .post("/tools/execute/proxy", with("endpoint", "/api/v1/me/karma"))
        .await
        .error(501, 10501);
    world
        .simulator
        .set_provider_mode(&id, ProviderMode::RevokedAtProvider)
        .unwrap();
    let revoked = world.post("/tools/execute/proxy", me).await.ok();
    assert_eq!(revoked["status"], 401, "the provider's status comes inside");
}
