//! Keys, projects, scopes, the rate limit, and what every answer carries.

use composio_sim::{Access, ApiKey, Area, Assumptions, Config};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{World, config, send};

#[tokio::test]
async fn keys_are_checked_and_never_shown_whole() {
    let world = World::new().await;
    let missing = world
        .bare(Method::GET, "/api/v3.1/toolkits", None)
        .await
        .error(401, 10401);
    assert_eq!(missing["slug"], "HTTP_Unauthorized");
    let stranger = World {
        key: "ak_stranger_secret".to_owned(),
        ..world
    };
    let reply = stranger.get("/connected_accounts").await;
    assert!(!reply.text.contains("stranger"), "{}", reply.text);
    assert_eq!(reply.error(401, 10401)["message"], "Invalid API key: ak_s...");
    let log = serde_json::to_string(&stranger.simulator.calls()).unwrap();
    assert!(!log.contains("stranger"), "{log}");
}

#[tokio::test]
async fn scoped_keys_reach_as_far_as_their_scopes() {
    let scopes = [
        (Area::ConnectedAccounts, Access::Read),
        (Area::Toolkits, Access::Read),
    ];
    let keys = vec![ApiKey::new("ak_scoped").scoped(scopes)];
    let world = World::with(Config { keys, ..config() }).await;
    let world = World {
        key: "ak_scoped".to_owned(),
        ..world
    };
    world.get("/connected_accounts").await.ok();
    let link = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
    let refused = world.post("/connected_accounts/link", link).await.error(403, 812);
    assert_eq!(
        refused["message"],
        "This route requires connected_accounts write access."
    );
    world.get("/toolkits").await.ok();
    world.post("/toolkits/multi", json!({})).await.error(403, 812);
    world.get("/tools").await.error(403, 812);
    assert!(world.simulator.accounts().is_empty());
    assert_eq!(world.simulator.calls()[1].executions, 0);
}

#[tokio::test]
async fn projects_do_not_see_each_other() {
    let keys = vec![
        ApiKey::new("ak_a").project("a"),
        ApiKey::new("ak_a2").project("a"),
        ApiKey::new("ak_b").project("b"),
    ];
    let world = World::with(Config { keys, ..config() }).await;
    let mut world = World {
        key: "ak_a".to_owned(),
        ..world
    };
    let id = world.pending("u").await;
    world.key = "ak_a2".to_owned();
    assert_eq!(world.ids("").await, [id.as_str()], "keys of one project share it");
    world.key = "ak_b".to_owned();
    assert!(world.ids("").await.is_empty());
    world
        .get(&format!("/connected_accounts/{id}"))
        .await
        .error(404, 606);
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
    let world = World::with(Config {
        keys,
        rate_limit: 3,
        ..config()
    })
    .await;
    let mut world = World {
        key: "ak_a".to_owned(),
        ..world
    };
    for (key, remaining) in [("ak_a", "2"), ("ak_b", "1"), ("ak_a", "0")] {
        key.clone_into(&mut world.key);
        let reply = world.get("/toolkits").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit"), "3");
        assert_eq!(reply.header("x-ratelimit-remaining"), remaining);
        assert_eq!(reply.header("x-ratelimit-window-size"), "60s");
        assert_eq!(reply.header("retry-after"), "");
    }
    world.advance(15);
    let refused = world.get("/toolkits").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.json(),
        json!({"message": "Rate limit exceeded. Limit: 3 requests per 1 minutes"}),
        "flat"
    );
    assert_eq!(
        (
            refused.header("retry-after"),
            refused.header("x-ratelimit-remaining")
        ),
        ("45", "0")
    );
    world.key = "ak_c".to_owned();
    world.get("/toolkits").await.ok();
    world.advance(45);
    world.key = "ak_b".to_owned();
    assert_eq!(world.get("/toolkits").await.header("x-ratelimit-remaining"), "2");
    let limited: Vec<_> = world
        .simulator
        .calls()
        .iter()
        .map(|call| call.executions)
        .collect();
    assert_eq!(limited, [1, 1, 1, 0, 1, 1]);
}

#[tokio::test]
async fn refusals_carry_the_headers_too_and_zero_means_no_limit() {
    let world = World::new().await;
    let reply = world.get("/connected_accounts/ca_none").await;
    assert_eq!(
        (reply.status, reply.header("x-ratelimit-remaining")),
        (404, "1999")
    );
    let stranger = world.bare(Method::GET, "/api/v3.1/toolkits", None).await;
    assert_eq!(
        (stranger.status, stranger.header("x-ratelimit-remaining")),
        (401, "2000"),
        "counts against nobody"
    );
    assert_eq!(stranger.header("x-ratelimit-window-size"), "60s");
    let unlimited = World::with(Config {
        rate_limit: 0,
        ..config()
    })
    .await;
    assert_eq!(unlimited.get("/toolkits").await.header("x-ratelimit"), "");
}

#[tokio::test]
async fn answers_carry_the_request_id() {
    let world = World::new().await;
    let reply = send(
        world
            .request(Method::GET, "/toolkits", None)
            .header("x-request-id", "mine"),
    )
    .await;
    assert_eq!(reply.header("x-request-id"), "mine");
    assert_eq!(world.simulator.calls()[0].request_id, "mine");
    assert_eq!(world.get("/toolkits").await.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn unknown_routes_methods_and_bodies() {
    let world = World::new().await;
    let error = world.get("/nonexistent").await.error(404, 10404);
    assert_eq!(error["message"], "Route GET /api/v3.1/nonexistent not found");
    world.delete("/toolkits").await.error(405, 10405);
    let request = world
        .request(Method::POST, "/connected_accounts/link", None)
        .body("{not json");
    send(request).await.error(400, 10400);
    let request = world.request(Method::POST, "/connected_accounts/link", None);
    send(request).await.error(400, 10400);
}

#[tokio::test]
async fn unknown_body_fields_are_ignored_unless_assumed_otherwise() {
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u", "surprise": 1});
    let world = World::new().await;
    world.post("/connected_accounts/link", body.clone()).await.ok();
    let assumptions = Assumptions {
        reject_unknown_fields: true,
        ..Assumptions::default()
    };
    let strict = World::with(Config {
        assumptions,
        ..config()
    })
    .await;
    strict
        .post("/connected_accounts/link", body)
        .await
        .error(400, 10400);
}

#[tokio::test]
async fn bodies_too_large_to_read_are_refused_unread() {
    let world = World::new().await;
    let mut connection = tokio::net::TcpStream::connect(world.simulator.address())
        .await
        .unwrap();
    let head =
        "POST /api/v3.1/connected_accounts/link HTTP/1.1\r\nhost: sim\r\ncontent-length: 9000000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}
