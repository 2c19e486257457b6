//! A catalogue that fails for one toolkit, or between two pages, as clients that read all of it meet it.

use std::time::Duration;

use composio_sim::{Assumptions, Config, Fault, GeneratedCatalogue, Release, Rule};
use serde_json::{Value, json};

use crate::client::{Reply, World, config};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

const TOOLS: &str = "/tools?limit=1000&toolkit_slug";

fn slugs(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["slug"].as_str().unwrap().to_owned())
        .collect()
}

/// The path of the page after `page`.
fn next(path: &str, page: &Value) -> Option<String> {
    let cursor = page["next_cursor"].as_str()?.replace('=', "%3D");
    Some(format!("{path}&cursor={cursor}"))
}

impl World {
    /// Reads GitHub's tools under a fault for GitHub alone, and checks that Slack's are none the worse.
    async fn github_under(&self, fault: Fault) -> Reply {
        let rule = Rule::new(fault)
            .on("GET", "/tools")
            .with_query("toolkit_slug", "github");
        self.simulator.inject(rule);
        assert_eq!(self.get(&format!("{TOOLS}=slack")).await.ok()["total_items"], 6);
        self.get(&format!("{TOOLS}=github")).await
    }

    /// Every page's slugs and total, following cursors.
    async fn pages(&self, path: &str) -> Vec<(Vec<String>, u64)> {
        let mut pages = Vec::new();
        let mut following = Some(path.to_owned());
        while let Some(current) = following {
            let page = self.get(&current).await.ok();
            pages.push((slugs(&page), page["total_items"].as_u64().unwrap()));
            following = next(path, &page);
        }
        pages
    }
}

#[tokio::test]
async fn one_toolkit_fails_in_every_way_while_others_work() {
    let world = World::new().await;
    let gateway = world
        .github_under(Fault::Status {
            status: 500,
            body: None,
            content_type: None,
            commit: false,
        })
        .await;
    assert_eq!(
        (gateway.status, gateway.header("content-type")),
        (500, "text/html")
    );
    let refused = world
        .github_under(Fault::ApiError {
            status: 404,
            message: Some("Toolkit github not found".to_owned()),
        })
        .await;
    let error = refused.error(404, 10404);
    assert_eq!(
        (&error["slug"], &error["message"]),
        (&json!("HTTP_NotFound"), &json!("Toolkit github not found"))
    );
    let internal = world
        .github_under(Fault::ApiError {
            status: 500,
            message: None,
        })
        .await;
    assert_eq!(internal.error(500, 10500)["slug"], "HTTP_InternalServerError");

    let empty = world.github_under(Fault::EmptyList).await.ok();
    assert_eq!((slugs(&empty).len(), &empty["total_items"]), (0, &json!(0)));
    let emptied = world.github_under(Fault::EmptyItems).await.ok();
    assert_eq!(
        (
            slugs(&emptied).len(),
            &emptied["total_items"],
            &emptied["next_cursor"]
        ),
        (0, &json!(8), &Value::Null)
    );
    let lying = world.github_under(Fault::FalseTotal { by: 2 }).await.ok();
    assert_eq!((slugs(&lying).len(), &lying["total_items"]), (8, &json!(10)));

    let cut = world.github_under(Fault::TruncateJson).await;
    assert_eq!(cut.status, 200);
    assert!(serde_json::from_str::<Value>(&cut.text).is_err());
    for body in ["{]", "[]", r#"{"items": {"slug": "GITHUB_GET_REPOSITORY"}}"#] {
        let odd = world
            .github_under(Fault::Status {
                status: 200,
                body: Some(body.to_owned()),
                content_type: Some("application/json".to_owned()),
                commit: false,
            })
            .await;
        assert_eq!((odd.status, odd.text.as_str()), (200, body));
    }
    assert_eq!(
        world.get(&format!("{TOOLS}=github")).await.ok()["total_items"],
        8,
        "all used up"
    );
}

#[tokio::test]
async fn a_toolkits_detail_fails_by_its_path() {
    let world = World::new().await;
    let rule = Rule::new(Fault::ApiError {
        status: 404,
        message: None,
    })
    .on("GET", "/toolkits/github");
    world.simulator.inject(rule.for_ever());
    world.get("/toolkits/github").await.error(404, 10404);
    assert_eq!(world.get("/toolkits/slack").await.ok()["slug"], "slack");
    assert_eq!(world.get("/toolkits?limit=10").await.ok()["total_items"], 5);
    assert_eq!(world.simulator.calls()[0].executions, 0);
}

#[tokio::test]
async fn a_page_shifts_under_the_reader() {
    let world = World::with(Config {
        assumptions: Assumptions {
            page_cap: Some(2),
            ..Assumptions::default()
        },
        ..config()
    })
    .await;
    let path = "/toolkits?limit=1000";
    let all = ["github", "slack", "reddit", "hackernews", "codeinterpreter"];
    let read = async || {
        let pages = world.pages(path).await;
        assert!(
            pages.iter().all(|(_, total)| *total == 5),
            "the total stays honest"
        );
        pages.into_iter().flat_map(|(slugs, _)| slugs).collect::<Vec<_>>()
    };
    assert_eq!(read().await, all, "two a page, whatever is asked for");
    let shift = |by| {
        Rule::new(Fault::ShiftedPage { by })
            .on("GET", "/toolkits")
            .with_query("cursor", "*")
    };
    world.simulator.inject(shift(1));
    assert_eq!(
        read().await,
        [
            "github",
            "slack",
            "slack",
            "reddit",
            "hackernews",
            "codeinterpreter"
        ]
    );
    world.simulator.inject(shift(-1));
    assert_eq!(read().await, ["github", "slack", "hackernews", "codeinterpreter"]);
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
    let world = World::with(Config {
        assumptions: Assumptions {
            page_cap: Some(10),
            ..Assumptions::default()
        },
        ..config()
    })
    .await;
    let rule = Rule::new(Fault::Hang { before_commit: true })
        .on("GET", "/tools")
        .with_query("toolkit_slug", "reddit")
        .with_query("cursor", "*");
    let rule = world.simulator.inject(rule);
    let path = format!("{TOOLS}=reddit");
    let meanwhile = async {
        // A call that hangs before its effect is not in the log yet.
        let hangs = || world.simulator.faults()[0].hits == 1;
        tokio::time::timeout(SOON, async {
            while !hangs() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let release = Release {
            add: 3,
            ..Release::default()
        };
        world.simulator.release_toolkit("reddit", &release).unwrap();
        assert!(world.simulator.release(&rule));
    };
    let (pages, ()) = tokio::join!(world.pages(&path), meanwhile);
    let totals: Vec<_> = pages.iter().map(|(_, total)| *total).collect();
    assert_eq!(totals, [23, 26, 26]);
}

#[tokio::test]
async fn a_cap_holds_for_every_list() {
    let world = World::with(Config {
        assumptions: Assumptions {
            page_cap: Some(3),
            ..Assumptions::default()
        },
        auth_config_count: 7,
        generated: Some(GeneratedCatalogue {
            toolkits: 4,
            tools: 20,
            ..GeneratedCatalogue::default()
        }),
        ..config()
    })
    .await;
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
        assert_eq!(
            (page["items"].as_array().unwrap().len(), &page["total_items"]),
            (3, &json!(total)),
            "{path}"
        );
        assert!(page["next_cursor"].is_string(), "{path}");
    }
    let multi = world.post("/toolkits/multi", json!({"limit": 1000})).await.ok();
    assert_eq!(multi["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn stats_add_up_the_bytes_of_answers() {
    let world = World::new().await;
    let one = world.get("/toolkits/reddit").await;
    let two = world.get("/toolkits/nonexistent").await;
    world.simulator.inject(Rule::new(Fault::DropAfterCommit));
    world
        .request(reqwest::Method::GET, "/tools", None)
        .send()
        .await
        .unwrap_err();
    let bytes = world.simulator.stats().bytes;
    assert_eq!(
        bytes["GET /toolkits/{slug}"],
        (one.text.len() + two.text.len()) as u64
    );
    assert_eq!(bytes["GET /tools"], 0);
}
