//! A generated catalogue, and a catalogue that changes while clients read it.

use std::collections::BTreeSet;

use composio_sim::{
    CatalogueError, Config, GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT, NewToolkit,
    Release, SeedAuthConfig, Touch,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, World, config};

fn slugs(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["slug"].as_str().unwrap()).collect()
}

impl World {
    /// Every item of a list, following its cursors.
    async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}{cursor}")).await.ok();
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else {
                assert_eq!(page["total_items"], items.len(), "the total is true");
                return items;
            };
            cursor = format!("&cursor={}", next.replace('=', "%3D"));
        }
    }

    async fn toolkits(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.bare(method, &format!("/_sim/toolkits{path}"), body).await
    }
}

fn generated(toolkits: usize, tools: usize, giants: bool) -> Config {
    Config {
        generated: Some(GeneratedCatalogue {
            toolkits,
            tools,
            giants,
            ..GeneratedCatalogue::default()
        }),
        ..config()
    }
}

#[tokio::test]
async fn a_whole_catalogue_is_read_page_by_page() {
    let world = World::with(generated(1_000, 12_000, false)).await;
    let toolkits = world.all("/toolkits?limit=1000").await;
    assert_eq!(toolkits.len(), 1_005);
    let distinct: BTreeSet<_> = slugs(&toolkits).into_iter().collect();
    assert_eq!(distinct.len(), 1_005);
    let counted: u64 = toolkits
        .iter()
        .map(|item| item["meta"]["tools_count"].as_u64().unwrap())
        .sum();
    let page = world.get("/tools?limit=1000").await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1_000);
    assert_eq!(
        (&page["total_items"], &page["total_pages"]),
        (&json!(counted), &json!(13))
    );
    assert_eq!(counted, 12_000 + 48, "beside the built-in tools");

    let toolkit = &toolkits[500];
    let tools = world
        .all(&format!(
            "/tools?limit=1000&toolkit_slug={}",
            toolkit["slug"].as_str().unwrap()
        ))
        .await;
    assert_eq!(toolkit["meta"]["tools_count"], tools.len());
    for tool in &tools {
        assert_eq!(tool["toolkit"]["slug"], toolkit["slug"]);
        assert_eq!(tool["version"], toolkit["meta"]["version"]);
        let again = world
            .get(&format!("/tools/{}", tool["slug"].as_str().unwrap()))
            .await
            .ok();
        assert_eq!(again, *tool, "lists and the detail call show the same");
    }
}

#[tokio::test]
async fn giants_are_served_whole() {
    let world = World::with(generated(0, 0, true)).await;
    let giant = world
        .get(&format!("/tools?limit=1000&toolkit_slug={GIANT_TOOLKIT}"))
        .await
        .ok();
    assert_eq!(
        (&giant["total_items"], &giant["next_cursor"]),
        (&json!(950), &Value::Null)
    );
    let huge = world
        .get(&format!("/tools?limit=1000&toolkit_slug={HUGE_TOOL_TOOLKIT}"))
        .await
        .ok();
    let items = huge["items"].as_array().unwrap();
    assert_eq!(items.len(), 5);
    let tool = items.iter().find(|item| item["slug"] == HUGE_TOOL).unwrap();
    assert!(tool.to_string().len() > 1_900_000);
}

#[tokio::test]
async fn as_many_auth_configs_exist_as_asked_for() {
    let world = World::with(Config {
        auth_configs: vec![SeedAuthConfig::managed("reddit")],
        auth_config_count: 501,
        ..generated(40, 200, false)
    })
    .await;
    let configs = world.all("/auth_configs?limit=200").await;
    let ids: BTreeSet<_> = configs
        .iter()
        .map(|config| config["id"].as_str().unwrap())
        .collect();
    assert_eq!((configs.len(), ids.len()), (501, 501));
    assert!(ids.contains("ac_reddit"));
    let toolkits: BTreeSet<_> = configs
        .iter()
        .map(|config| config["toolkit"]["slug"].as_str().unwrap())
        .collect();
    let listed = world.all("/toolkits?limit=1000").await;
    let needing: Vec<_> = listed
        .iter()
        .filter(|item| item["no_auth"] == false)
        .cloned()
        .collect();
    assert_eq!(
        toolkits,
        slugs(&needing).into_iter().collect(),
        "every toolkit that needs one has one"
    );
    let types: BTreeSet<_> = configs
        .iter()
        .map(|config| config["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, BTreeSet::from(["custom", "default"]));
    world.get("/auth_configs?limit=201").await.error(400, 10400);

    let more = world.simulator.seed_many(3).unwrap();
    assert_eq!(world.all("/auth_configs?limit=200").await.len(), 504);
    assert!(more.iter().all(|id| !ids.contains(id.as_str())));
}

#[tokio::test]
async fn a_release_changes_what_it_says_and_leaves_the_past_alone() {
    let world = World::new().await;
    let reddit = "/tools?limit=1000&toolkit_slug=reddit";
    let before = world.all(reddit).await;
    let item = |toolkits: Vec<Value>| {
        toolkits
            .into_iter()
            .find(|item| item["slug"] == "reddit")
            .unwrap()
    };
    let listed = item(world.all("/toolkits?limit=1000").await);

    let body = json!({"add": 2, "remove": 1, "change": 3, "break": 1, "version": "20270101_00"});
    let released = world.toolkits(Method::POST, "/reddit/release", Some(&body)).await;
    assert_eq!(released.status, 201);
    let released = released.json();
    let named = |what: &str| {
        let slugs = released[what].as_array().unwrap().iter();
        slugs
            .map(|slug| slug.as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        ["added", "removed", "changed", "broken"].map(|what| named(what).len()),
        [2, 1, 3, 1]
    );
    assert_eq!(
        (&released["version"], &released["previousVersion"]),
        (&json!("20270101_00"), &json!("20260424_00"))
    );

    let after = world.all(reddit).await;
    let set = |tools: &[Value]| {
        slugs(tools)
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(&set(&after) - &set(&before), named("added"));
    assert_eq!(&set(&before) - &set(&after), named("removed"));
    for tool in &after {
        let Some(old) = before.iter().find(|old| old["slug"] == tool["slug"]) else {
            assert_eq!(tool["available_versions"], json!(["20270101_00"]));
            continue;
        };
        let slug = tool["slug"].as_str().unwrap();
        assert_eq!(
            tool["description"] != old["description"],
            named("changed").contains(slug),
            "{slug}"
        );
        assert_eq!(
            tool["input_parameters"] != old["input_parameters"],
            named("broken").contains(slug),
            "{slug}"
        );
        assert_eq!(tool["version"], "20270101_00");
    }
    for pinned in [
        "toolkit_versions=20260424_00",
        "toolkit_versions%5Breddit%5D=20260424_00",
    ] {
        let pinned = world.all(&format!("{reddit}&{pinned}")).await;
        assert_eq!(set(&pinned), set(&before));
        let same = |field: &str| pinned.iter().zip(&before).all(|(a, b)| a[field] == b[field]);
        assert!(same("description") && same("input_parameters") && same("version"));
    }

    let now = item(world.all("/toolkits?limit=1000").await);
    assert_eq!(
        (&now["meta"]["version"], &now["meta"]["tools_count"]),
        (&json!("20270101_00"), &json!(24))
    );
    assert!(now["meta"]["updated_at"].as_str() > listed["meta"]["updated_at"].as_str());
    let detail = world.get("/toolkits/reddit").await.ok();
    assert_eq!(detail["meta"]["updated_at"], now["meta"]["updated_at"]);
    assert_eq!(detail["meta"]["available_versions"][1], "20260424_00");
    let old = world.get("/toolkits/reddit?version=20260424_00").await.ok();
    assert_eq!(
        (&old["meta"]["version"], &old["meta"]["tools_count"]),
        (&json!("20260424_00"), &json!(23))
    );

    let removed = named("removed").pop_first().unwrap();
    world.get(&format!("/tools/{removed}")).await.error(404, 2401);
    assert_eq!(
        world
            .get(&format!("/tools/{removed}?version=20260424_00"))
            .await
            .ok()["slug"],
        removed
    );
    let gone = world
        .post(
            &format!("/tools/execute/{removed}"),
            json!({"arguments": {}, "user_id": "u"}),
        )
        .await;
    gone.error(410, 10410);
}

#[tokio::test]
async fn releases_are_refused_where_they_make_no_sense() {
    let world = World::new().await;
    let cases = [
        ("/nowhere/release", json!({}), 404),
        ("/reddit/release", json!({"remove": 24}), 409),
        ("/reddit/release", json!({"version": "20260424_00"}), 400),
        ("/reddit/release", json!({"delete": 1}), 400),
        ("/reddit/release", json!({"add": -1}), 400),
        ("/nowhere/touch", json!({}), 404),
        ("/reddit/touch", json!({"name": "Digg"}), 400),
        ("", json!({}), 400),
        ("", json!({"slug": "Reddit"}), 400),
        ("", json!({"slug": "reddit"}), 409),
    ];
    for (path, body, status) in cases {
        let reply = world.toolkits(Method::POST, path, Some(&body)).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
        assert!(!reply.json()["error"].as_str().unwrap().is_empty());
    }
    let refused = world.simulator.release_toolkit("nowhere", &Release::default());
    assert_eq!(refused, Err(CatalogueError::NoToolkit("nowhere".to_owned())));
    assert_eq!(
        world.get("/toolkits/reddit").await.ok()["meta"]["version"],
        "20260424_00"
    );
}

#[tokio::test]
async fn an_empty_release_and_a_touch_change_no_tool() {
    let world = World::new().await;
    let contents = async || {
        let tools = world.all("/tools?limit=1000&toolkit_slug=slack").await;
        let contents = tools
            .iter()
            .map(|tool| (tool["description"].clone(), tool["input_parameters"].clone()));
        contents.collect::<Vec<_>>()
    };
    let (before, was) = (contents().await, world.get("/toolkits/slack").await.ok());
    let touched = world.toolkits(Method::POST, "/slack/touch", None).await.ok();
    assert_eq!(touched["version"], was["meta"]["version"]);
    let now = world.get("/toolkits/slack").await.ok();
    assert!(now["meta"]["updated_at"].as_str() > was["meta"]["updated_at"].as_str());
    assert_eq!(now["meta"]["version"], was["meta"]["version"]);
    let described = Touch {
        description: Some("Chat.".to_owned()),
    };
    world.simulator.touch_toolkit("slack", &described).unwrap();
    assert_eq!(
        world.get("/toolkits/slack").await.ok()["meta"]["description"],
        "Chat."
    );
    world.toolkits(Method::POST, "/slack/release", None).await.ok();
    let now = world.get("/toolkits/slack").await.ok();
    assert!(now["meta"]["version"].as_str() > was["meta"]["version"].as_str());
    assert_eq!(contents().await, before);
}

#[tokio::test]
async fn toolkits_appear_and_vanish() {
    let world = World::new().await;
    let body = json!({"slug": "_acme_desk", "tools": 30, "noAuth": true});
    let added = world.toolkits(Method::POST, "", Some(&body)).await;
    assert_eq!(added.status, 201);
    assert_eq!(added.json()["tools"], 30);
    let tools = world.all("/tools?limit=1000&toolkit_slug=_acme_desk").await;
    assert_eq!(tools.len(), 30);
    assert!(tools.iter().all(|tool| {
        let slug = tool["slug"].as_str().unwrap();
        slug.starts_with("_ACME_DESK_") && tool["no_auth"] == true
    }));
    let toolkits = world.all("/toolkits?limit=1000").await;
    assert_eq!(slugs(&toolkits).last(), Some(&"_acme_desk"));

    world
        .simulator
        .add_toolkit(&NewToolkit {
            deprecated: true,
            ..NewToolkit::new("fax")
        })
        .unwrap();
    assert_eq!(
        world.all("/toolkits?limit=1000").await.len(),
        6,
        "deprecated toolkits are hidden"
    );
    assert_eq!(
        world
            .all("/toolkits?limit=1000&include_deprecated=true")
            .await
            .len(),
        7
    );

    let gone = world.toolkits(Method::DELETE, "/reddit", None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.toolkits(Method::DELETE, "/reddit", None).await.status, 404);
    world.get("/toolkits/reddit").await.error(404, 10404);
    world.get("/tools/REDDIT_GET_SCOPES").await.error(404, 2401);
    assert!(
        world
            .all("/tools?limit=1000&toolkit_slug=reddit")
            .await
            .is_empty()
    );
    let toolkits = world.all("/toolkits?limit=1000").await;
    assert!(!slugs(&toolkits).contains(&"reddit"));
    let configs = world.all("/auth_configs?limit=200").await;
    assert_eq!(configs[0]["toolkit"]["slug"], "reddit", "its auth config stays");
    assert_eq!(
        world.simulator.remove_toolkit("reddit"),
        Err(CatalogueError::NoToolkit("reddit".to_owned()))
    );
}
