//! Keys, projects, scopes, the rate limit, and what every response carries.

use composio_sim::{Access, ApiKey, Area, Config};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{World, config, send};

async fn with_keys(keys: Vec<ApiKey>) -> World {
    World::with(Config { keys, ..config() }).await
}

#[tokio::test]
async fn keys_are_checked_and_never_shown_whole() {
    let world = World::new().await;
    let missing = world.bare(Method::GET, "/api/v3.1/toolkits", None).await;
    assert_eq!(
        missing.header("x-ratelimit-remaining"),
        "2000",
        "counts against no organization"
    );
    assert_eq!(missing.error(401, 10401)["slug"], "HTTP_Unauthorized");
    let world = world.with_key("ak_stranger_secret");
    let error = world.get("/connected_accounts").await.error(401, 10401);
    assert_eq!(error["message"], "Invalid API key: ak_s...");
    let log = serde_json::to_string(&world.simulator.calls()).unwrap();
    let debug = format!("{:?}", ApiKey::new("ak_stranger_secret"));
    assert!(![error.to_string(), log, debug].concat().contains("stranger"));
}

#[tokio::test]
async fn scoped_keys_reach_as_far_as_their_scopes() {
    let reading = [
        (Area::ConnectedAccounts, Access::Read),
        (Area::Toolkits, Access::Read),
    ];
    let world = with_keys(vec![ApiKey::new("ak_scoped").scoped(reading)]).await;
    let world = world.with_key("ak_scoped");
    for allowed in ["/connected_accounts", "/toolkits"] {
        world.get(allowed).await.ok();
    }
    for (method, path, scope) in [
        (
            Method::POST,
            "/connected_accounts/link",
            "connected_accounts write",
        ),
        (
            Method::PATCH,
            "/auth_configs/ac_reddit/DISABLED",
            "auth_configs write",
        ),
        (Method::POST, "/toolkits/multi", "toolkits write"),
        (Method::GET, "/tools/REDDIT_GET_NEW", "tools read"),
        (
            Method::POST,
            "/tools/execute/REDDIT_GET_NEW",
            "tool_execution write",
        ),
        (
            Method::POST,
            "/tools/execute/REDDIT_GET_NEW/input",
            "tool_execution write",
        ),
        (Method::POST, "/tools/execute/proxy", "proxy_execute write"),
    ] {
        let reply = send(world.request(method, path, Some(&json!({})))).await;
        let message = format!("This route requires {scope} access.");
        assert_eq!(reply.error(403, 812)["message"], message);
    }
    assert_eq!(world.simulator.calls()[2].executions, 0);
}

#[tokio::test]
async fn projects_do_not_see_each_other() {
    let key = |key: &str, project: &str| ApiKey::new(key).project(project);
    let keys = vec![key("ak_a", "a"), key("ak_a2", "a"), key("ak_b", "b")];
    let world = with_keys(keys).await.with_key("ak_a");
    let id = world.pending("u").await;
    let world = world.with_key("ak_a2");
    assert_eq!(world.ids("").await, [id.as_str()], "keys of one project share it");
    let world = world.with_key("ak_b");
    assert!(world.ids("").await.is_empty());
    let path = format!("/connected_accounts/{id}");
    world.get(&path).await.error(404, 606);
    world.pending("u").await;
    assert_eq!(world.simulator.accounts().len(), 2);
}

#[tokio::test]
async fn the_limit_is_a_fixed_minute_for_the_whole_organization() {
    let keys = vec![
        ApiKey::new("ak_a").project("a"),
        ApiKey::new("ak_b").project("b"),
        ApiKey::new("ak_c").project("c").org("other"),
    ];
    let mut world = World::with(Config {
        keys,
        rate_limit: 3,
        ..config()
    })
    .await;
    for (key, remaining) in [("ak_a", "2"), ("ak_b", "1"), ("ak_a", "0")] {
        world = world.with_key(key);
        // Refusals count and carry the headers too.
        let reply = world.get("/toolkits/nonexistent").await;
        let headers = [
            "x-ratelimit",
            "x-ratelimit-remaining",
            "x-ratelimit-window-size",
            "retry-after",
        ];
        assert_eq!(
            headers.map(|name| reply.header(name)),
            ["3", remaining, "60s", ""]
        );
    }
    world.advance(15);
    let refused = world.get("/toolkits").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "45"));
    let message = "Rate limit exceeded. Limit: 3 requests per 1 minutes";
    assert_eq!(refused.json(), json!({"message": message}), "flat");
    world = world.with_key("ak_c");
    world.get("/toolkits").await.ok();
    world.advance(45);
    world = world.with_key("ak_b");
    assert_eq!(world.get("/toolkits").await.header("x-ratelimit-remaining"), "2");
    let executions = world
        .simulator
        .calls()
        .iter()
        .map(|call| call.executions)
        .collect::<Vec<_>>();
    assert_eq!(executions, [1, 1, 1, 0, 1, 1]);

    let unlimited = World::with(Config {
        rate_limit: 0,
        ..config()
    })
    .await;
    assert_eq!(unlimited.get("/toolkits").await.header("x-ratelimit"), "");
}

#[tokio::test]
async fn responses_carry_the_request_id() {
    let world = World::new().await;
    let request = world.request(Method::GET, "/toolkits", None);
    let reply = send(request.header("x-request-id", "mine")).await;
    assert_eq!(reply.header("x-request-id"), "mine");
    assert_eq!(world.simulator.calls()[0].request_id, "mine");
    assert_eq!(world.get("/toolkits").await.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn unknown_routes_methods_and_bodies_are_refused() {
    let world = World::new().await;
    let error = world.get("/nonexistent").await.error(404, 10404);
    assert_eq!(error["message"], "Route GET /api/v3.1/nonexistent not found");
    world.delete("/toolkits").await.error(405, 10405);
    for body in ["{not json", "[]", "null", ""] {
        let request = world.request(Method::POST, "/connected_accounts/link", None);
        send(request.body(body)).await.error(400, 10400);
    }
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u", "surprise": 1});
    world.post("/connected_accounts/link", body.clone()).await.ok();
    let strict = World::assuming(&["reject-unknown-fields=true"]).await;
    let error = strict
        .post("/connected_accounts/link", body)
        .await
        .error(400, 10400);
    let complaint = "Error in payload: Unrecognized key(s) in object: 'surprise'";
    assert_eq!(error["errors"], json!([complaint]));
}

#[tokio::test]
async fn bodies_too_large_to_read_are_refused_unread() {
    let world = World::new().await;
    let address = world.simulator.url().strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        "POST /api/v3.1/connected_accounts/link HTTP/1.1\r\nhost: sim\r\ncontent-length: 9000000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}
