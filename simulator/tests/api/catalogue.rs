//! A generated catalogue, and a catalogue that changes while clients read it.

use std::collections::{BTreeMap, BTreeSet};

use composio_sim::{Config, GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT, SeedAuthConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, World, assert_has, config, slugs};

/// The distinct values of one text field.
fn distinct(items: &[Value], field: &str) -> BTreeSet<String> {
    let values = items.iter().map(|item| item[field].as_str().unwrap().to_owned());
    values.collect()
}

impl World {
    async fn toolkits(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.control(method, &format!("/toolkits{path}"), body).await
    }

    async fn tools_of(&self, toolkit: &str) -> Vec<Value> {
        let path = format!("/tools?limit=1000&toolkit_slug={toolkit}");
        self.all(&path).await
    }

    /// `meta` in the toolkit's detail.
    async fn meta(&self, toolkit: &str) -> Value {
        self.get(&format!("/toolkits/{toolkit}")).await.ok()["meta"].clone()
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
    assert_eq!(
        (toolkits.len(), distinct(&toolkits, "slug").len()),
        (1_005, 1_005)
    );
    let counts = toolkits
        .iter()
        .map(|item| item["meta"]["tools_count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 12_000 + 48, "beside the built-in tools");
    let page = world.get("/tools?limit=1000").await.ok();
    assert_eq!(slugs(&page).len(), 1_000);
    assert_has(&page, &json!({"total_items": 12_048, "total_pages": 13}));

    let toolkit = &toolkits[500];
    let tools = world.tools_of(toolkit["slug"].as_str().unwrap()).await;
    assert_eq!(toolkit["meta"]["tools_count"], tools.len());
    let expected = json!({"toolkit": {"slug": toolkit["slug"]}, "version": toolkit["meta"]["version"]});
    for tool in &tools {
        assert_has(tool, &expected);
        let path = format!("/tools/{}", tool["slug"].as_str().unwrap());
        assert_eq!(
            world.get(&path).await.ok(),
            *tool,
            "lists and the detail call show the same"
        );
    }
}

#[tokio::test]
async fn giants_are_served_whole() {
    let world = World::with(generated(0, 0, true)).await;
    let path = format!("/tools?limit=1000&toolkit_slug={GIANT_TOOLKIT}");
    let giant = world.get(&path).await.ok();
    assert_has(&giant, &json!({"total_items": 950, "next_cursor": null}));
    let tools = world.tools_of(HUGE_TOOL_TOOLKIT).await;
    assert_eq!(tools.len(), 5);
    let huge = tools.iter().find(|tool| tool["slug"] == HUGE_TOOL).unwrap();
    assert!(huge.to_string().len() > 1_900_000);
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
    let ids = distinct(&configs, "id");
    assert_eq!((configs.len(), ids.len()), (501, 501));
    assert!(ids.contains("ac_reddit"));
    let mut needing = world.all("/toolkits?limit=1000").await;
    needing.retain(|toolkit| toolkit["no_auth"] == false);
    let covered = configs
        .iter()
        .map(|config| config["toolkit"]["slug"].as_str().unwrap().to_owned());
    assert_eq!(covered.collect::<BTreeSet<_>>(), distinct(&needing, "slug"));
    let types = BTreeSet::from(["custom".to_owned(), "default".to_owned()]);
    assert_eq!(distinct(&configs, "type"), types);
}

#[tokio::test]
async fn a_release_changes_what_it_says_and_leaves_the_past_alone() {
    let world = World::new().await;
    let acme = json!({"slug": "acme", "tools": 7});
    assert_eq!(world.toolkits(Method::POST, "", Some(acme)).await.status, 201);
    for slug in ["reddit", "acme", "acme"] {
        let (before, was) = (world.tools_of(slug).await, world.meta(slug).await);
        let body = json!({"add": 2, "remove": 1, "change": 3, "break": 1});
        let released = world
            .toolkits(Method::POST, &format!("/{slug}/release"), Some(body))
            .await;
        assert_eq!(released.status, 201);
        let released = released.json();
        assert_eq!(released["previousVersion"], was["version"]);
        let version = &released["version"];
        assert!(version.as_str() > was["version"].as_str());
        let named =
            |what: &str| -> BTreeSet<String> { serde_json::from_value(released[what].clone()).unwrap() };
        let counts = ["added", "removed", "changed", "broken"].map(|what| named(what).len());
        assert_eq!(counts, [2, 1, 3, 1]);

        let after = world.tools_of(slug).await;
        let (old, new) = (distinct(&before, "slug"), distinct(&after, "slug"));
        assert_eq!((&new - &old, &old - &new), (named("added"), named("removed")));
        let old: BTreeMap<_, _> = before.iter().map(|tool| (tool["slug"].as_str(), tool)).collect();
        for tool in &after {
            assert_eq!(tool["version"], *version);
            let name = tool["slug"].as_str().unwrap();
            let Some(old) = old.get(&Some(name)) else {
                assert_eq!(tool["available_versions"], json!([version]));
                continue;
            };
            let differs = |field: &str| tool[field] != old[field];
            assert_eq!(differs("description"), named("changed").contains(name), "{name}");
            assert_eq!(
                differs("input_parameters"),
                named("broken").contains(name),
                "{name}"
            );
            assert!(!differs("output_parameters") && !differs("name") && !differs("tags"));
            if named("broken").contains(name) {
                let added = format!("required_since_{}", version.as_str().unwrap());
                let input = &tool["input_parameters"];
                assert!(input["properties"].get(&added).is_some());
                assert!(input["required"].as_array().unwrap().contains(&json!(added)));
            }
        }
        let past = was["version"].as_str().unwrap();
        for pin in [
            "toolkit_versions".to_owned(),
            format!("toolkit_versions%5B{slug}%5D"),
        ] {
            let pinned = world.tools_of(&format!("{slug}&{pin}={past}")).await;
            let contents = |tools: &[Value]| {
                let fields = ["slug", "version", "description", "input_parameters"];
                let content = |tool: &Value| fields.map(|field| tool[field].clone());
                tools.iter().map(content).collect::<Vec<_>>()
            };
            assert_eq!(contents(&pinned), contents(&before));
        }

        let now = world.meta(slug).await;
        assert_has(
            &now,
            &json!({"version": version, "tools_count": before.len() + 1}),
        );
        assert!(now["updated_at"].as_str() > was["updated_at"].as_str());
        let toolkits = world.all("/toolkits?limit=1000").await;
        let listed = toolkits.iter().find(|toolkit| toolkit["slug"] == slug).unwrap();
        assert_eq!(listed["meta"]["updated_at"], now["updated_at"]);
        let old = world.get(&format!("/toolkits/{slug}?version={past}")).await.ok();
        assert_has(
            &old["meta"],
            &json!({"version": past, "tools_count": before.len()}),
        );

        let removed = named("removed").pop_first().unwrap();
        world.get(&format!("/tools/{removed}")).await.error(404, 2401);
        let pinned = world.get(&format!("/tools/{removed}?version={past}")).await;
        assert_eq!(pinned.ok()["slug"], removed);
        let body = json!({"arguments": {}, "user_id": "u"});
        let gone = world.post(&format!("/tools/execute/{removed}"), body).await;
        gone.error(410, 10410);
    }
}

#[tokio::test]
async fn changes_are_refused_where_they_make_no_sense() {
    let world = World::new().await;
    let cases = [
        ("/nowhere/release", json!({}), 404),
        ("/reddit/release", json!({"remove": 20, "change": 4}), 409),
        ("/reddit/release", json!({"remove": usize::MAX, "change": 1}), 409),
        ("/reddit/release", json!({"version": "20260424_00"}), 400),
        ("/reddit/release", json!({"version": "latest"}), 400),
        ("/reddit/release", json!({"delete": 1}), 400),
        ("/reddit/release", json!({"add": -1}), 400),
        ("/nowhere/touch", json!({}), 404),
        ("/reddit/touch", json!({"name": "Digg"}), 400),
        ("", json!({}), 400),
        ("", json!({"slug": "Reddit"}), 400),
        ("", json!({"slug": "reddit"}), 409),
    ];
    for (path, body, status) in cases {
        let reply = world.toolkits(Method::POST, path, Some(body.clone())).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
        assert!(!reply.json()["error"].as_str().unwrap().is_empty());
    }
    assert_eq!(world.meta("reddit").await["version"], "20260424_00");
}

#[tokio::test]
async fn an_empty_release_and_a_touch_change_no_tool() {
    let world = World::new().await;
    let contents = async || {
        let tools = world.tools_of("slack").await;
        let content = |tool: &Value| (tool["description"].clone(), tool["input_parameters"].clone());
        tools.iter().map(content).collect::<Vec<_>>()
    };
    let (before, was) = (contents().await, world.meta("slack").await);
    let body = json!({"description": "Chat."});
    let touched = world
        .toolkits(Method::POST, "/slack/touch", Some(body))
        .await
        .ok();
    assert_eq!(touched["version"], was["version"]);
    let now = world.meta("slack").await;
    assert!(now["updated_at"].as_str() > was["updated_at"].as_str());
    assert_has(&now, &json!({"version": was["version"], "description": "Chat."}));
    let body = json!({"version": "20270101_00"});
    world
        .toolkits(Method::POST, "/slack/release", Some(body))
        .await
        .ok();
    assert_eq!(world.meta("slack").await["version"], "20270101_00");
    assert_eq!(contents().await, before);
}

#[tokio::test]
async fn toolkits_appear_and_vanish() {
    let world = World::new().await;
    let add = |body| world.toolkits(Method::POST, "", Some(body));
    let added = add(json!({"slug": "_acme_desk", "tools": 30, "noAuth": true})).await;
    assert_eq!((added.status, added.json()["tools"].clone()), (201, json!(30)));
    let tools = world.tools_of("_acme_desk").await;
    assert_eq!(tools.len(), 30);
    assert!(tools.iter().all(|tool| tool["no_auth"] == true));
    assert!(
        distinct(&tools, "slug")
            .iter()
            .all(|slug| slug.starts_with("_ACME_DESK_"))
    );
    add(json!({"slug": "fax", "deprecated": true})).await.ok();
    let listed = async |more: &str| slugs(&world.get(&format!("/toolkits?limit=1000{more}")).await.ok());
    assert_eq!(
        listed("").await.last().unwrap(),
        "_acme_desk",
        "deprecated toolkits are hidden"
    );
    assert_eq!(listed("&include_deprecated=true").await.last().unwrap(), "fax");

    for status in [204, 404] {
        assert_eq!(
            world.toolkits(Method::DELETE, "/reddit", None).await.status,
            status
        );
    }
    world.get("/toolkits/reddit").await.error(404, 10404);
    world.get("/tools/REDDIT_GET_SCOPES").await.error(404, 2401);
    assert!(world.tools_of("reddit").await.is_empty());
    assert!(!listed("").await.contains(&"reddit".to_owned()));
    let config = world.get("/auth_configs/ac_reddit").await.ok();
    assert_eq!(config["toolkit"]["slug"], "reddit", "its auth config stays");
}
