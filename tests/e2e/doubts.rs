//! What Composio says is doubted, and what can be believed of it is cached.

use composio_operator::api::composio_schema_cache::{CacheState, ComposioSchemaCacheStatus};
use composio_sim::{Fault, Release, Rule};
use serde_json::{Value, json};

use crate::harness::World;
use crate::schemas::{manifest_of, read};

fn on_tools_of(toolkit: &str, fault: Fault) -> Rule {
    let rule = Rule::new(fault).on("GET", "/tools");
    rule.with_query("toolkit_slug", toolkit).for_ever()
}

fn says(status: &ComposioSchemaCacheStatus, toolkit: &str, reason: &str) -> bool {
    let toolkits = &mut status.toolkit_statuses.iter();
    status.progress.is_none() && toolkits.any(|one| one.toolkit == toolkit && one.reason == reason)
}

async fn add_toolkit(world: &World, toolkit: Value) {
    let http = reqwest::Client::new();
    let url = format!("{}/_sim/toolkits", world.simulator.url());
    let answer = http.post(url).json(&toolkit).send().await.unwrap();
    answer.error_for_status().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_short_list_is_cached_what_it_has_and_of_an_unreadable_tool_what_there_was() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .simulator
        .inject(on_tools_of("github", Fault::FalseTotal { by: 5 }));
    let spec = json!({"toolkits": {"discover": "None", "include": ["github", "reddit"]}});
    world.cache("tools", spec).await.unwrap();
    let cache = world
        .cache_is("tools", "says what is missing", |status| {
            says(status, "github", "IncompleteResponse")
        })
        .await;
    assert_eq!(cache.status.unwrap().state, Some(CacheState::Degraded));
    let (document, tools) = read(&world, "schemas-github").await.unwrap();
    assert_eq!((document.facts.missing_tools, tools.is_empty()), (5, false));
    let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
    assert_eq!(manifest.toolkits.len(), 2, "{manifest:?}");
    let written = world.versions().await["schemas-github"].clone();
    world.refreshed("tools", "again").await;
    assert_eq!(
        world.versions().await["schemas-github"],
        written,
        "the same is not written again"
    );

    world.simulator.clear_faults();
    world.refreshed("tools", "whole").await;
    world.cache_becomes("tools", CacheState::Synced).await;
    let (document, _) = read(&world, "schemas-github").await.unwrap();
    assert_eq!(document.facts.missing_tools, 0);

    let (_, before) = read(&world, "schemas-reddit").await.unwrap();
    let release = Release {
        change: 2,
        ..Release::default()
    };
    world.simulator.release_toolkit("reddit", &release).unwrap();
    let bad = Fault::BadItems {
        item: json!({"slug": null}),
        rows: 1,
    };
    world.simulator.inject(on_tools_of("reddit", bad));
    world.refreshed("tools", "one is bad").await;
    world
        .cache_is("tools", "says what is missing", |status| {
            says(status, "reddit", "IncompleteResponse")
        })
        .await;
    let (document, after) = read(&world, "schemas-reddit").await.unwrap();
    assert_eq!(document.facts.missing_tools, 1);
    let slugs = |tools: &[Value]| -> Vec<Value> { tools.iter().map(|tool| tool["slug"].clone()).collect() };
    assert_eq!(slugs(&after), slugs(&before), "nothing is lost");
    let is_old = |tool: &&Value| before.iter().any(|old| old["version"] == tool["version"]);
    assert_eq!(
        after.iter().filter(is_old).count(),
        1,
        "only one is of the version before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolkit_without_tools_is_read_at_each_refresh_and_written_once() {
    let world = World::new().await;
    let _operator = world.operator();
    add_toolkit(&world, json!({"slug": "acme", "tools": 0})).await;
    add_toolkit(
        &world,
        json!({"slug": "oldie", "noAuth": true, "deprecated": true}),
    )
    .await;
    world
        .cache("tools", json!({"toolkits": {"include": ["acme"]}}))
        .await
        .unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let before = world.versions().await;
    assert!(before.contains_key("schemas-acme"), "{before:?}");
    assert!(
        !before.contains_key("schemas-oldie"),
        "it is deprecated: {before:?}"
    );
    let newest = world.simulator.calls().last().unwrap().seq;
    world.refreshed("tools", "again").await;
    let calls = world.simulator.calls_after(newest);
    let of_acme = calls
        .iter()
        .filter(|call| call.query.contains("toolkit_slug=acme"));
    assert_eq!(
        of_acme.count(),
        2,
        "with both choices about deprecated tools: {calls:#?}"
    );
    assert_eq!(world.versions().await, before);
}
