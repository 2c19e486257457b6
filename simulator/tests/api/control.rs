//! The control API and the library's methods for the same purpose.

use std::time::Duration;

use composio_sim::{
    AccountSnapshot, AccountStatus, ApiKey, Call, Config, SeedAuthConfig, Simulator, TimedOut,
};
use reqwest::Method;
use serde_json::json;

use crate::client::{Reply, World, assert_has, config};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

fn calls(reply: &Reply) -> Vec<Call> {
    let lines = reply.text.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_log_shows_every_call_and_no_secret() {
    let world = World::new().await;
    let link = world.link("u").await;
    let list = "/connected_accounts?user_ids=u%2Cv&limit=100";
    world.get(list).await.ok();
    let reply = world.control(Method::GET, "/log", None).await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(
        (reply.header("x-sim-last-seq"), reply.header("x-sim-dropped")),
        ("2", "0")
    );
    assert!(!reply.text.contains(link["link_token"].as_str().unwrap()));
    assert!(!reply.text.contains(&world.key));
    let logged = calls(&reply);
    assert_eq!(logged, world.simulator.calls());
    assert_eq!(logged[0].operation(), "POST /connected_accounts/link");
    assert_eq!(logged[1].query_values("user_ids"), ["u", "v"]);
    let first = json!({
        "seq": 1, "time": "2026-03-01T12:00:00Z", "method": "POST", "path": "/api/v3.1/connected_accounts/link",
        "route": "/connected_accounts/link", "query": "", "body": {"user_id": "u"}, "status": 201, "fault": null,
        "executions": 1, "key": logged[1].key,
    });
    assert_has(&serde_json::to_value(&logged[0]).unwrap(), &first);
    let later = world.control(Method::GET, "/log?after=1", None).await;
    assert_eq!(calls(&later), logged[1..]);

    let listed = world.get(list).await.text.len();
    let missing = world.get("/connected_accounts/ca_none").await.text.len();
    let expected = json!({
        "total": 4, "dropped": 0,
        "operations": {"GET /connected_accounts": {"200": 2}, "GET /connected_accounts/{id}": {"404": 1}},
        "bytes": {"GET /connected_accounts": 2 * listed, "GET /connected_accounts/{id}": missing},
    });
    assert_has(&world.control(Method::GET, "/stats", None).await.ok(), &expected);
    assert_eq!(world.control(Method::DELETE, "/log", None).await.status, 204);
    assert_eq!(world.simulator.stats().total, 0);
    world.get(list).await.ok();
    assert_eq!(world.simulator.calls()[0].seq, 5, "numbering goes on");
}

#[tokio::test]
async fn a_long_log_arrives_whole_and_a_full_one_says_what_it_dropped() {
    let world = World::with(Config {
        rate_limit: 0,
        log_capacity: 2_500,
        ..config()
    })
    .await;
    for _ in 0..2_600 {
        world.get("/toolkits/categories").await.ok();
    }
    let reply = world.control(Method::GET, "/log", None).await;
    assert_eq!(reply.header("x-sim-dropped"), "100");
    assert!(calls(&reply).iter().map(|call| call.seq).eq(101..=2_600));
}

#[tokio::test]
async fn people_and_providers_act_on_accounts() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let provider = json!({"mode": "revoked_at_provider"});
    for (action, body, expected) in [
        ("open", None, json!({"status": "INITIATED"})),
        (
            "consent",
            Some(json!({"username": "alice"})),
            json!({"status": "ACTIVE", "username": "alice"}),
        ),
        ("provider", Some(provider.clone()), json!({"provider": provider})),
        ("disable", None, json!({"status": "INACTIVE"})),
        (
            "expire",
            None,
            json!({"statusReason": "Permanent auth error during token refresh"}),
        ),
    ] {
        assert_has(&world.act(&id, action, body).await.ok(), &expected);
    }
    let refused = world.act(&id, "consent", None).await;
    assert_eq!(refused.status, 409);
    let message = "an account that is EXPIRED cannot be consented";
    assert_eq!(refused.json(), json!({"error": message}));
    let denied = world.pending("u").await;
    assert_eq!(world.act(&denied, "deny", None).await.ok()["status"], "FAILED");
    let expired = world.pending("v").await;
    let reason = "Connection initiation did not complete within 10 minutes";
    assert_eq!(
        world.act(&expired, "expire", None).await.ok()["statusReason"],
        reason
    );
    let revoked = world.active("w").await;
    let expected =
        json!({"status": "REVOKED", "revokedUpstream": true, "statusReason": "Revoked via admin tool"});
    assert_has(&world.act(&revoked, "revoke", None).await.ok(), &expected);

    let moody = Some(json!({"mode": "moody"}));
    assert_eq!(world.act(&id, "provider", moody).await.status, 400);
    assert_eq!(world.act(&id, "tickle", None).await.status, 404);
    assert_eq!(world.act("ca_none", "consent", None).await.status, 404);
    world.delete(&format!("/connected_accounts/{id}")).await.ok();
    assert_eq!(world.act(&id, "consent", None).await.status, 404);

    let all = world.control(Method::GET, "/accounts", None).await.ok();
    let shown: Vec<AccountSnapshot> = serde_json::from_value(all["items"].clone()).unwrap();
    assert_eq!(shown, world.simulator.accounts());
    assert!(shown[0].deleted);
    let events: Vec<_> = shown[0].history.iter().map(|step| step.event.as_str()).collect();
    assert_eq!(
        events,
        [
            "created",
            "opened",
            "consented",
            "disabled",
            "refresh failed",
            "deleted"
        ]
    );
    let of_v = world.control(Method::GET, "/accounts?userId=v", None).await.ok();
    assert_eq!(of_v["items"][0]["id"], expired);
    let path = format!("/accounts/{expired}");
    assert_eq!(world.control(Method::GET, &path, None).await.ok()["id"], expired);
}

#[tokio::test]
async fn time_moves_by_call() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let advance = |body| world.control(Method::POST, "/clock/advance", Some(body));
    let clock = advance(json!({"seconds": 601})).await.ok();
    let expected = json!({"now": "2026-03-01T12:10:01.000Z", "offsetSeconds": 601.0, "manual": true});
    assert_eq!(clock, expected);
    assert_eq!(world.control(Method::GET, "/clock", None).await.ok(), clock);
    assert_eq!(world.status(&id).await, "EXPIRED");
    for wrong in [
        json!({"seconds": -1}),
        json!({}),
        json!({"seconds": 1, "minutes": 1}),
    ] {
        assert_eq!(advance(wrong).await.status, 400);
    }
}

#[tokio::test]
async fn faults_are_managed_by_call() {
    let world = World::new().await;
    let status = async |method: Method, path: &str, body| world.control(method, path, body).await.status;
    let rules = json!({"rules": [
        {"id": "lost", "method": "POST", "path": "/connected_accounts/link", "fault": {"kind": "status", "status": 504}},
        {"path": "/toolkits*", "count": null, "fault": {"kind": "rateLimited", "retryAfter": 3}},
    ]});
    let made = world.control(Method::POST, "/faults", Some(rules)).await;
    assert_eq!(
        (made.status, made.json()),
        (201, json!({"ids": ["lost", "rule-1"]}))
    );
    assert_eq!(world.get("/toolkits/reddit").await.status, 429);
    let listed = world.control(Method::GET, "/faults", None).await.ok();
    assert_has(&listed["rules"][0], &json!({"id": "lost", "hits": 0}));
    assert_has(
        &listed["rules"][1],
        &json!({"id": "rule-1", "hits": 1, "matched": 1}),
    );
    assert_eq!(status(Method::DELETE, "/faults/rule-1", None).await, 204);
    world.get("/toolkits/reddit").await.ok();
    assert_eq!(status(Method::DELETE, "/faults/rule-1", None).await, 404);
    assert_eq!(status(Method::POST, "/faults/lost/release", None).await, 204);
    assert_eq!(status(Method::DELETE, "/faults", None).await, 204);
    assert!(world.simulator.faults().is_empty());
    let wrong = json!({"rules": [{"fault": {"kind": "explode"}}]});
    assert_eq!(status(Method::POST, "/faults", Some(wrong)).await, 400);
    assert_eq!(status(Method::GET, "/nothing", None).await, 404);
}

#[tokio::test]
async fn auth_configs_are_seeded_by_call() {
    let world = World::new().await;
    let seed = |body| world.control(Method::POST, "/auth-configs", Some(body));
    let body = json!({"toolkit": "github", "id": "ac_gh", "name": "Team", "enabled": false});
    let made = seed(body).await;
    assert_eq!((made.status, made.json()), (201, json!({"id": "ac_gh"})));
    let expected = json!({"name": "Team", "status": "DISABLED"});
    assert_has(&world.get("/auth_configs/ac_gh").await.ok(), &expected);
    assert_eq!(seed(json!({"toolkit": "hackernews"})).await.status, 400);
}

#[tokio::test]
async fn links_are_completed_in_the_background_when_due() {
    let world = World::with(Config {
        auto_consent: Some(Duration::from_secs(5)),
        ..config()
    })
    .await;
    let first = world.pending("first").await;
    world.advance(4);
    let second = world.pending("second").await;
    assert_eq!(world.status(&first).await, "INITIALIZING");
    let connected = async |id: &str| {
        let fits = |account: &AccountSnapshot| account.id == id && account.status == AccountStatus::Active;
        world.simulator.wait_for_account(fits, SOON).await.unwrap()
    };
    world.advance(1);
    let account = connected(&first).await;
    assert_eq!(account.username.as_deref(), Some("first"));
    assert_eq!(account.updated_at.to_string(), "2026-03-01T12:00:05Z");
    assert_eq!(world.status(&second).await, "INITIALIZING");
    world.advance(4);
    connected(&second).await;
}

#[tokio::test]
async fn waiting_ends_in_time() {
    let world = World::new().await;
    let none = world.simulator.wait_for_call(|_| true, Duration::ZERO).await;
    assert_eq!(none, Err(TimedOut(Duration::ZERO)));
    world.get("/toolkits").await.ok();
    let past = world.simulator.wait_for_call(|_| true, Duration::ZERO).await;
    assert_eq!(past.unwrap().seq, 1, "past calls count");
}

#[tokio::test]
async fn a_simulator_ends_when_stopped_or_dropped() {
    let simulator = Simulator::start(config()).await.unwrap();
    let listen = simulator.url().strip_prefix("http://").unwrap().parse().unwrap();
    let again = || Simulator::start(Config { listen, ..config() });
    let taken = again().await.unwrap_err().to_string();
    assert_eq!(taken, format!("cannot listen on {listen}"));
    simulator.stop().await;
    drop(again().await.unwrap());
    // The port is free again as soon as the server has noticed.
    while tokio::net::TcpListener::bind(listen).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn broken_configurations_are_refused() {
    let none = Config {
        keys: Vec::new(),
        ..config()
    };
    let two_organizations = Config {
        keys: vec![ApiKey::new("a").org("x"), ApiKey::new("b").org("y")],
        ..config()
    };
    let unknown_toolkit = Config {
        auth_configs: vec![SeedAuthConfig::managed("nothing")],
        ..config()
    };
    for (config, complaint) in [
        (none, "at least one API key is needed"),
        (two_organizations, "project default is in two organizations"),
        (
            unknown_toolkit,
            "no auth config for toolkit nothing: there is no such toolkit",
        ),
    ] {
        assert_eq!(Simulator::start(config).await.unwrap_err().to_string(), complaint);
    }
}
