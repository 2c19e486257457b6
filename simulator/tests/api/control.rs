//! The control API and its library twin.

use std::time::Duration;

use composio_sim::{AccountSnapshot, Call, Config, Simulator, Stats, TimedOut};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, World, config};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

impl World {
    async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.bare(method, &format!("/_sim{path}"), body.as_ref()).await
    }

    async fn deed(&self, id: &str, deed: &str, body: Option<Value>) -> Reply {
        self.control(Method::POST, &format!("/accounts/{id}/{deed}"), body)
            .await
    }
}

fn lines(reply: &Reply) -> Vec<Call> {
    reply
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn the_log_shows_every_call_and_no_secret() {
    let world = World::new().await;
    let link = world.link("u").await;
    world.get("/connected_accounts?user_ids=u,v&limit=100").await.ok();
    let reply = world.control(Method::GET, "/log", None).await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(
        (reply.header("x-sim-last-seq"), reply.header("x-sim-dropped")),
        ("2", "0")
    );
    assert!(!reply.text.contains(link["link_token"].as_str().unwrap()));
    assert!(!reply.text.contains(&world.key));
    let calls = lines(&reply);
    assert_eq!(calls, world.simulator.calls());
    let [first, second] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(
        (first.seq, first.method.as_str(), first.status),
        (1, "POST", Some(201))
    );
    assert_eq!(first.path, "/api/v3.1/connected_accounts/link");
    assert_eq!(first.operation(), "POST /connected_accounts/link");
    assert_eq!(first.body["user_id"], "u");
    assert_eq!(first.time.to_string(), "2026-03-01T12:00:00Z");
    assert_eq!(second.query, "user_ids=u,v&limit=100");
    assert_eq!(second.query_values("user_ids"), ["u", "v"]);
    assert_eq!(first.key, second.key);
    let later = world.control(Method::GET, "/log?after=1", None).await;
    assert_eq!(lines(&later), calls[1..]);

    let stats: Stats = serde_json::from_value(world.control(Method::GET, "/stats", None).await.ok()).unwrap();
    assert_eq!(stats, world.simulator.stats());
    assert_eq!(
        (stats.total, stats.operations["GET /connected_accounts"]["200"]),
        (2, 1)
    );
    assert_eq!(world.control(Method::DELETE, "/log", None).await.status, 204);
    assert!(world.simulator.calls().is_empty());
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
    let seqs: Vec<_> = lines(&reply).iter().map(|call| call.seq).collect();
    assert_eq!(seqs, (101..=2_600).collect::<Vec<_>>());
}

#[tokio::test]
async fn people_and_providers_are_played() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let opened: AccountSnapshot = serde_json::from_value(world.deed(&id, "open", None).await.ok()).unwrap();
    assert_eq!(opened.status.as_str(), "INITIATED");
    let consented = world
        .deed(&id, "consent", Some(json!({"username": "alice"})))
        .await
        .ok();
    assert_eq!(
        (&consented["status"], &consented["username"]),
        (&json!("ACTIVE"), &json!("alice"))
    );
    let refused = world.deed(&id, "consent", None).await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (409, Some("an account that is ACTIVE cannot be consented"))
    );
    let mode = world
        .deed(&id, "provider", Some(json!({"mode": "revoked_at_provider"})))
        .await
        .ok();
    assert_eq!(mode["provider"], json!({"mode": "revoked_at_provider"}));
    assert_eq!(world.deed(&id, "disable", None).await.ok()["status"], "INACTIVE");
    let expired = world.deed(&id, "expire", None).await.ok();
    assert_eq!(
        expired["statusReason"],
        "Permanent auth error during token refresh"
    );

    let second = world.pending("u").await;
    assert_eq!(world.deed(&second, "deny", None).await.ok()["status"], "FAILED");
    let third = world.pending("v").await;
    let expired = world.deed(&third, "expire", None).await.ok();
    assert_eq!(expired["statusReason"], composio_sim::REASON_LINK_EXPIRED);
    let fourth = world.active("w").await;
    let revoked = world.deed(&fourth, "revoke", None).await.ok();
    assert_eq!(
        (&revoked["status"], &revoked["revokedUpstream"]),
        (&json!("REVOKED"), &json!(true))
    );

    assert_eq!(world.deed("ca_none", "consent", None).await.status, 404);
    assert_eq!(world.deed(&id, "tickle", None).await.status, 404);
    assert_eq!(
        world
            .deed(&id, "provider", Some(json!({"mode": "moody"})))
            .await
            .status,
        400
    );
    world.delete(&format!("/connected_accounts/{id}")).await.ok();
    assert_eq!(world.deed(&id, "consent", None).await.status, 404);

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
    assert_eq!(of_v["items"][0]["id"], third);
    assert_eq!(
        world
            .control(Method::GET, &format!("/accounts/{third}"), None)
            .await
            .ok()["id"],
        third
    );
}

#[tokio::test]
async fn time_moves_by_call() {
    let world = World::new().await;
    let id = world.pending("u").await;
    let clock = world
        .control(Method::POST, "/clock/advance", Some(json!({"seconds": 601})))
        .await
        .ok();
    assert_eq!(
        clock,
        json!({"now": "2026-03-01T12:10:01.000Z", "offsetSeconds": 601.0, "manual": true})
    );
    assert_eq!(world.control(Method::GET, "/clock", None).await.ok(), clock);
    assert_eq!(world.status(&id).await, "EXPIRED");
    for wrong in [
        json!({"seconds": -1}),
        json!({}),
        json!({"seconds": 1, "minutes": 1}),
    ] {
        assert_eq!(
            world
                .control(Method::POST, "/clock/advance", Some(wrong))
                .await
                .status,
            400
        );
    }
}

#[tokio::test]
async fn faults_are_managed_by_call() {
    let world = World::new().await;
    let rules = json!({"rules": [
        {"id": "lost", "method": "POST", "path": "/connected_accounts/link", "fault": {"kind": "status", "status": 504}},
        {"path": "/toolkits*", "count": null, "fault": {"kind": "rateLimited", "retryAfter": 3}},
    ]});
    let made = world.control(Method::POST, "/faults", Some(rules)).await;
    assert_eq!(
        (made.status, made.json()),
        (201, json!({"ids": ["lost", "rule-1"]}))
    );
    world.get("/toolkits/reddit").await;
    let listed = world.control(Method::GET, "/faults", None).await.ok();
    assert_eq!(listed["rules"][1]["hits"], 1);
    assert_eq!(listed["rules"][0]["hits"], 0);
    assert_eq!(
        world.control(Method::DELETE, "/faults/rule-1", None).await.status,
        204
    );
    world.get("/toolkits/reddit").await.ok();
    assert_eq!(
        world.control(Method::DELETE, "/faults/rule-1", None).await.status,
        404
    );
    assert_eq!(
        world
            .control(Method::POST, "/faults/lost/release", None)
            .await
            .status,
        204
    );
    assert_eq!(world.control(Method::DELETE, "/faults", None).await.status, 204);
    assert!(world.simulator.faults().is_empty());
    let wrong = json!({"rules": [{"fault": {"kind": "explode"}}]});
    assert_eq!(
        world.control(Method::POST, "/faults", Some(wrong)).await.status,
        400
    );
}

#[tokio::test]
async fn auth_configs_are_seeded_by_call() {
    let world = World::new().await;
    let body = json!({"toolkit": "github", "id": "ac_gh", "name": "Team", "enabled": false});
    let made = world.control(Method::POST, "/auth-configs", Some(body)).await;
    assert_eq!((made.status, made.json()), (201, json!({"id": "ac_gh"})));
    let config = world.get("/auth_configs/ac_gh").await.ok();
    assert_eq!(
        (&config["name"], &config["status"]),
        (&json!("Team"), &json!("DISABLED"))
    );
    let refused = world
        .control(
            Method::POST,
            "/auth-configs",
            Some(json!({"toolkit": "hackernews"})),
        )
        .await;
    assert_eq!(refused.status, 400);
    assert_eq!(world.control(Method::GET, "/nothing", None).await.status, 404);
}

#[tokio::test]
async fn somebody_in_the_background_completes_links_when_due() {
    let world = World::with(Config {
        auto_consent: Some(Duration::from_secs(5)),
        ..config()
    })
    .await;
    let first = world.pending("first").await;
    world.advance(4);
    let second = world.pending("second").await;
    assert_eq!(world.status(&first).await, "INITIALIZING");
    world.advance(1);
    let connected =
        |id: String| move |account: &AccountSnapshot| account.id == id && account.status.as_str() == "ACTIVE";
    let account = world
        .simulator
        .wait_for_account(connected(first), SOON)
        .await
        .unwrap();
    assert_eq!(account.username.as_deref(), Some("first"));
    assert_eq!(
        account.history.last().unwrap().at.to_string(),
        "2026-03-01T12:00:05Z"
    );
    assert_eq!(world.status(&second).await, "INITIALIZING");
    world.advance(4);
    world
        .simulator
        .wait_for_account(connected(second), SOON)
        .await
        .unwrap();
}

#[tokio::test]
async fn waiting_ends_in_time() {
    let world = World::new().await;
    let none = world.simulator.wait_for_call(|_| true, Duration::ZERO).await;
    assert_eq!(none, Err(TimedOut(Duration::ZERO)));
    world.get("/toolkits").await.ok();
    let past = world
        .simulator
        .wait_for_call(|call| call.path.ends_with("/toolkits"), Duration::ZERO)
        .await;
    assert_eq!(past.unwrap().seq, 1, "past calls count");
}

#[tokio::test]
async fn a_simulator_ends_when_stopped_or_dropped() {
    let simulator = Simulator::start(config()).await.unwrap();
    let (url, address) = (simulator.url().to_owned(), simulator.address());
    assert_eq!(url, format!("http://{address}"));
    simulator.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let again = Simulator::start(Config {
        listen: address,
        ..config()
    })
    .await
    .unwrap();
    drop(again);
    // The port is free again as soon as the server has noticed.
    while tokio::net::TcpListener::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn broken_configurations_are_refused() {
    let two = vec![
        composio_sim::ApiKey::new("a").org("x"),
        composio_sim::ApiKey::new("b").org("y"),
    ];
    for (config, complaint) in [
        (
            Config {
                keys: Vec::new(),
                ..config()
            },
            "at least one API key is needed",
        ),
        (
            Config {
                keys: two,
                ..config()
            },
            "project default is in two organizations",
        ),
        (
            Config {
                auth_configs: vec![composio_sim::SeedAuthConfig::managed("nothing")],
                ..config()
            },
            "no auth config for toolkit nothing: there is no such toolkit",
        ),
    ] {
        assert_eq!(Simulator::start(config).await.unwrap_err().to_string(), complaint);
    }
    let taken = Simulator::start(config()).await.unwrap();
    let again = Simulator::start(Config {
        listen: taken.address(),
        ..config()
    })
    .await
    .unwrap_err();
    assert!(again.to_string().starts_with("cannot listen on 127.0.0.1:"));
}
