//! A catalogue that fails for one toolkit, or between two pages, for clients that read all of it.

use std::time::Duration;

use composio_sim::{Config, Fault, GeneratedCatalogue, Release, Rule};
use serde_json::{Value, json};

use crate::client::{Reply, World, assert_has, config, slugs};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

const TOOLS: &str = "/tools?limit=1000&toolkit_slug";

impl World {
    /// Reads GitHub's tools under a fault for GitHub alone, and checks that Slack's are not affected.
    async fn github_under(&self, fault: Fault) -> Reply {
        let rule = Rule::new(fault).on("GET", "/tools");
        self.simulator.inject(rule.with_query("toolkit_slug", "github"));
        assert_eq!(self.get(&format!("{TOOLS}=slack")).await.ok()["total_items"], 6);
        self.get(&format!("{TOOLS}=github")).await
    }
}

#[tokio::test]
async fn one_toolkit_fails_in_every_way_while_others_work() {
    let world = World::new().await;
    let error = |status, message: Option<&str>| Fault::ApiError {
        status,
        message: message.map(str::to_owned),
    };
    let message = "Toolkit github not found";
    let refused = world
        .github_under(error(404, Some(message)))
        .await
        .error(404, 10404);
    assert_has(&refused, &json!({"slug": "HTTP_NotFound", "message": message}));
    let internal = world.github_under(error(500, None)).await.error(500, 10500);
    assert_eq!(internal["slug"], "HTTP_InternalServerError");
    for (fault, items, expected) in [
        (
            Fault::EmptyList,
            0,
            json!({"total_items": 0, "next_cursor": null}),
        ),
        (
            Fault::EmptyItems,
            0,
            json!({"total_items": 8, "next_cursor": null}),
        ),
        (Fault::FalseTotal { by: 2 }, 8, json!({"total_items": 10})),
        (Fault::FalseTotal { by: -9 }, 8, json!({"total_items": 0})),
        (
            Fault::LyingLastPage {
                rows: 5,
                always: false,
            },
            5,
            json!({"total_items": 8, "total_pages": 1, "next_cursor": null}),
        ),
        (
            Fault::LyingLastPage {
                rows: 8,
                always: false,
            },
            8,
            json!({"total_items": 8}),
        ),
    ] {
        let page = world.github_under(fault).await.ok();
        assert_eq!(slugs(&page).len(), items);
        assert_has(&page, &expected);
    }
    let item = json!({"slug": {}});
    let bad = Fault::BadItems {
        item: item.clone(),
        rows: 2,
    };
    let items = world.github_under(bad).await.ok()["items"].clone();
    assert_eq!([&items[0], &items[1]], [&item, &item]);
    assert!(items[2]["slug"].is_string());
    let cut = world.github_under(Fault::TruncateJson).await;
    assert_eq!(cut.status, 200);
    assert!(serde_json::from_str::<Value>(&cut.text).is_err());
    let body = r#"{"items": {"slug": "GITHUB_GET_REPOSITORY"}}"#;
    let odd = Fault::Status {
        status: 200,
        body: Some(body.to_owned()),
        content_type: Some("application/json".to_owned()),
        commit: false,
    };
    let odd = world.github_under(odd).await;
    assert_eq!((odd.status, odd.text.as_str()), (200, body));
    let path = format!("{TOOLS}=github");
    assert_eq!(
        world.get(&path).await.ok()["total_items"],
        8,
        "every fault is used up"
    );
}

#[tokio::test]
async fn a_toolkits_detail_fails_by_its_path() {
    let world = World::new().await;
    let error = Fault::ApiError {
        status: 404,
        message: None,
    };
    let rule = Rule::new(error).on("GET", "/toolkits/github");
    world.simulator.inject(rule.for_ever());
    world.get("/toolkits/github").await.error(404, 10404);
    assert_eq!(world.get("/toolkits/slack").await.ok()["slug"], "slack");
    assert_eq!(world.get("/toolkits?limit=10").await.ok()["total_items"], 5);
    assert_eq!(world.simulator.calls()[0].executions, 0);
}

#[tokio::test]
async fn a_page_shifts_between_two_requests() {
    let world = World::assuming(&["page-cap=2"]).await;
    let all = ["github", "slack", "reddit", "hackernews", "codeinterpreter"];
    let read = async || {
        let pages = world.pages("/toolkits?limit=1000").await;
        assert!(
            pages.iter().all(|page| page["total_items"] == 5),
            "the total stays true"
        );
        pages.iter().flat_map(slugs).collect::<Vec<_>>()
    };
    assert_eq!(read().await, all, "two a page, whatever the limit");
    let shift = |by| {
        let rule = Rule::new(Fault::ShiftedPage { by }).on("GET", "/toolkits");
        world.simulator.inject(rule.with_query("cursor", "*"));
    };
    shift(1);
    assert_eq!(read().await, [&all[..2], &all[1..]].concat());
    shift(-1);
    assert_eq!(read().await, [&all[..2], &all[3..]].concat());
    assert_eq!(read().await, all);
    let logged = world.simulator.calls();
    let shifted: Vec<_> = logged.iter().filter(|call| call.fault.is_some()).collect();
    assert_eq!(shifted.len(), 2);
    assert_eq!(
        shifted[0].query, shifted[1].query,
        "the log shows what the client sent"
    );
}

#[tokio::test]
async fn a_release_between_two_pages_is_seen_half() {
    let world = World::assuming(&["page-cap=10"]).await;
    let rule = Rule::new(Fault::Hang { before_commit: true }).on("GET", "/tools");
    let rule = world.simulator.inject(rule.with_query("cursor", "*"));
    let path = format!("{TOOLS}=reddit");
    let meanwhile = async {
        // A request that hangs before its effect is not in the log yet.
        let hangs = async {
            while world.simulator.faults()[0].hits == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, hangs).await.unwrap();
        let release = Release {
            add: 3,
            ..Release::default()
        };
        world.simulator.release_toolkit("reddit", &release).unwrap();
        assert!(world.simulator.release(&rule));
    };
    let (pages, ()) = tokio::join!(world.pages(&path), meanwhile);
    let totals: Vec<_> = pages
        .iter()
        .map(|page| page["total_items"].as_u64().unwrap())
        .collect();
    assert_eq!(totals, [23, 26, 26]);
}

#[tokio::test]
async fn a_page_cap_holds_for_every_list() {
    let mut config = Config {
        auth_config_count: 7,
        generated: Some(GeneratedCatalogue {
            toolkits: 4,
            tools: 20,
            ..GeneratedCatalogue::default()
        }),
        ..config()
    };
    config.assumptions.set("page-cap=3").unwrap();
    let world = World::with(config).await;
    for user in 0..4 {
        world.pending(&format!("u{user}")).await;
    }
    for (path, total) in [
        ("/toolkits?limit=1000", 9),
        ("/tools?limit=1000", 68),
        ("/auth_configs?limit=200", 7),
        ("/connected_accounts?limit=100", 4),
    ] {
        let page = world.get(path).await.ok();
        assert_eq!(page["items"].as_array().unwrap().len(), 3, "{path}");
        assert_eq!(page["total_items"], total, "{path}");
        assert!(page["next_cursor"].is_string(), "{path}");
    }
    let multi = world.post("/toolkits/multi", json!({"limit": 1000})).await.ok();
    assert_eq!(slugs(&multi).len(), 3);
}
