//! Schema caches: what lies in the ConfigMaps, and what happens when something goes wrong.

use std::collections::BTreeMap;

use composio_operator::api::composio_schema_cache::{COMPLETE, CacheState, ComposioSchemaCacheStatus};
use composio_operator::api::conditions::{self, READY, STALLED};
use composio_operator::api::{ComposioSchemaCache, REQUESTED_AT_ANNOTATION};
use composio_operator::schemas::manifest::{MANIFEST_KEY, Manifest};
use composio_operator::schemas::pack::{TOOLKIT_KEY, TOOLS_KEY, ToolkitDocument, unpack};
use composio_operator::schemas::sha256_hex;
use composio_sim::{
    Config, Fault, GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT, Release, Rule, Touch,
};
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, World};

/// Everything this cache needs to be quick about in tests is on request; the interval is never waited for.
impl World {
    pub fn caches(&self) -> Api<ComposioSchemaCache> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn cache(&self, name: &str, spec: Value) -> kube::Result<ComposioSchemaCache> {
        let object = json!({ "metadata": { "name": name }, "spec": spec });
        let object = serde_json::from_value(with_type(object)).unwrap();
        self.caches().create(&PostParams::default(), &object).await
    }

    pub async fn created(&self, cache: &ComposioSchemaCache) -> ComposioSchemaCache {
        self.caches().create(&PostParams::default(), cache).await.unwrap()
    }

    pub async fn cache_is(
        &self,
        name: &str,
        what: &str,
        fits: impl Fn(&ComposioSchemaCacheStatus) -> bool,
    ) -> ComposioSchemaCache {
        let condition = |object: Option<&ComposioSchemaCache>| {
            object
                .and_then(|object| object.status.as_ref())
                .is_some_and(&fits)
        };
        let found = tokio::time::timeout(PATIENCE, await_condition(self.caches(), name, condition)).await;
        let Ok(found) = found else {
            let last = self.caches().get(name).await.unwrap().status;
            panic!("{name} never {what}: {last:#?}\n{}", self.last_log());
        };
        found.unwrap().unwrap()
    }

    pub async fn cache_becomes(&self, name: &str, state: CacheState) -> ComposioSchemaCache {
        self.cache_is(name, state.as_str(), |status| status.state == Some(state))
            .await
    }

    /// Composio with a small catalogue and two toolkits of unusual size.
    pub async fn with_giants() -> Self {
        let generated = GeneratedCatalogue {
            toolkits: 3,
            tools: 12,
            giants: true,
            ..GeneratedCatalogue::default()
        };
        Self::with(Config {
            generated: Some(generated),
            ..Config::default()
        })
        .await
    }

    /// Waits until it has failed for that reason.
    pub async fn cache_fails(&self, name: &str, reason: &str) -> ComposioSchemaCache {
        self.cache_is(name, reason, |status| {
            status.retry.as_ref().is_some_and(|retry| retry.reason == reason)
        })
        .await
    }

    /// Asks for a sync now and waits until it has been done.
    pub async fn refreshed(&self, name: &str, token: &str) -> ComposioSchemaCache {
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT_ANNOTATION: token } } });
        self.caches()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        self.cache_is(name, "handled the request", |status| {
            status.last_handled_request_at.as_deref() == Some(token) && status.progress.is_none()
        })
        .await
    }

    pub async fn versions(&self) -> BTreeMap<String, String> {
        let selector = ListParams::default().labels("composio-operator.dev/schema-cache");
        let maps = self.config_maps().list(&selector).await.unwrap();
        maps.into_iter()
            .map(|map| (map.name_any(), map.resource_version().unwrap()))
            .collect()
    }
}

fn with_type(mut object: Value) -> Value {
    object["apiVersion"] = "composio-operator.dev/v1alpha1".into();
    object["kind"] = "ComposioSchemaCache".into();
    object
}

fn manifest_of(map: &ConfigMap) -> Manifest {
    serde_json::from_str(&map.data.as_ref().unwrap()[MANIFEST_KEY]).unwrap()
}

/// Reads a toolkit as the documentation tells readers to: the toolkit's own ConfigMap says which parts there are and
/// what they hash to; a part that does not match is of another version, and everything is read again.
pub async fn read(world: &World, name: &str) -> Option<(ToolkitDocument, Vec<Value>)> {
    let head = world.config_maps().get_opt(name).await.unwrap()?;
    let document: ToolkitDocument = serde_json::from_str(&head.data.as_ref()?[TOOLKIT_KEY]).unwrap();
    let mut tools = Vec::new();
    for reference in &document.parts {
        let map = world
            .config_maps()
            .get_opt(&reference.config_map)
            .await
            .unwrap()?;
        let part = composio_operator::controllers::schema_cache::config_maps::content(&map);
        let found = unpack(&part).ok()?;
        // Sorted JSON is read and written to the same text.
        if sha256_hex([Value::from(found.clone()).to_string().as_bytes()]) != reference.sha256 {
            return None;
        }
        tools.extend(found);
    }
    Some((document, tools))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_arrive_in_config_maps_and_stay_untouched_while_nothing_changes() {
    let world = World::new().await;
    let _operator = world.operator();
    let spec = json!({"toolkits": {"include": ["github"], "exclude": ["codeinterpreter"]}, "output": {"labels": {"team": "agents"}}});
    world.cache("tools", spec).await.unwrap();
    let cache = world.cache_becomes("tools", CacheState::Synced).await;
    let status = cache.status.clone().unwrap();
    assert_eq!(
        (status.toolkits, status.manifest.as_deref()),
        (Some(3), Some("schemas-manifest"))
    );

    let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
    let slugs: Vec<_> = manifest
        .toolkits
        .iter()
        .map(|entry| entry.slug.as_str())
        .collect();
    assert_eq!(
        slugs,
        ["github", "hackernews", "reddit"],
        "auth configs, no-auth toolkits and those included"
    );
    assert_eq!(
        status.content_hash.as_deref(),
        Some(manifest.content_hash.as_str())
    );
    for entry in &manifest.toolkits {
        let (document, tools) = read(&world, &entry.config_maps[0]).await.unwrap();
        assert_eq!((document.tools, &document.sha256), (entry.tools, &entry.sha256));
        assert_eq!(tools.len(), entry.tools);
        assert!(
            tools
                .iter()
                .all(|tool| tool["toolkit"]["slug"] == *entry.slug && tool["inputParameters"].is_object())
        );
    }
    assert_eq!(status.tools, Some(i64::try_from(manifest.totals.tools).unwrap()));
    let reddit = world.config_maps().get("schemas-reddit").await.unwrap();
    assert_eq!(reddit.labels()["team"], "agents");
    assert_eq!(reddit.owner_references()[0].uid, cache.uid().unwrap());
    assert!(reddit.data.as_ref().unwrap()[TOOLS_KEY].contains("REDDIT_GET_REDDIT_USER_ABOUT"));

    let before = (
        world.versions().await,
        world.simulator.calls().last().unwrap().seq,
    );
    world.refreshed("tools", "again").await;
    assert_eq!(
        world.versions().await,
        before.0,
        "an unchanged refresh writes nothing"
    );
    let calls = world.simulator.calls_after(before.1);
    assert!(calls.len() <= 5, "{calls:#?}");

    world
        .caches()
        .delete("tools", &DeleteParams::default())
        .await
        .unwrap();
    let gone = |map: Option<&ConfigMap>| map.is_none();
    for name in before.0.keys() {
        let wait = await_condition(world.config_maps(), name, gone);
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the ConfigMaps go with their cache")
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_edits_are_repaired() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .cache("tools", json!({"toolkits": {"noAuth": false}}))
        .await
        .unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let maps = world.config_maps();
    let good = maps.get("schemas-reddit").await.unwrap().data;

    let edits = [
        ("edited", json!({"data": {TOOLS_KEY: "[]"}})),
        ("emptied", json!({"data": null})),
        (
            "mixed up",
            json!({"data": {TOOLS_KEY: null}, "binaryData": {"tools.json.gz": "AAAA"}}),
        ),
    ];
    for (what, patch) in edits {
        maps.patch("schemas-reddit", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        let repaired =
            |map: Option<&ConfigMap>| map.is_some_and(|map| map.data == good && map.binary_data.is_none());
        let wait = tokio::time::timeout(
            PATIENCE,
            await_condition(maps.clone(), "schemas-reddit", repaired),
        );
        assert!(wait.await.is_ok(), "{what} is not repaired: {}", world.last_log());
    }
    for name in ["schemas-reddit", "schemas-manifest"] {
        let uid = maps.get(name).await.unwrap().uid();
        maps.delete(name, &DeleteParams::default()).await.unwrap();
        let back = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid() != uid);
        let wait = tokio::time::timeout(PATIENCE, await_condition(maps.clone(), name, back));
        assert!(
            wait.await.is_ok(),
            "{name} does not come back: {}",
            world.last_log()
        );
    }
    assert_eq!(maps.get("schemas-reddit").await.unwrap().data, good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_maps_of_others_are_never_overwritten() {
    let world = World::new().await;
    let _operator = world.operator();
    let foreign: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "schemas-reddit"}, "data": {"precious": "yes"}}))
            .unwrap();
    world
        .config_maps()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    world.cache("tools", json!({})).await.unwrap();
    let cache = world.cache_becomes("tools", CacheState::Degraded).await;
    let conditions = cache.status.unwrap().conditions;
    let stalled = conditions::find(&conditions, STALLED).unwrap();
    assert_eq!(
        (stalled.status.as_str(), stalled.reason.as_str()),
        ("True", "ConfigMapConflict")
    );
    assert!(stalled.message.contains("schemas-reddit"), "{}", stalled.message);
    let kept = world.config_maps().get("schemas-reddit").await.unwrap();
    assert_eq!((kept.data, kept.metadata.owner_references), (foreign.data, None));
    assert!(
        read(&world, "schemas-hackernews").await.is_some(),
        "the rest is cached"
    );

    // A second cache with the same prefix touches nothing of the first.
    let before = world.versions().await;
    world.cache("second", json!({})).await.unwrap();
    let second = world.cache_becomes("second", CacheState::Failed).await;
    let conditions = second.status.unwrap().conditions;
    let stalled = conditions::find(&conditions, STALLED).unwrap();
    assert_eq!(
        (stalled.status.as_str(), stalled.reason.as_str()),
        ("True", "ConfigMapConflict")
    );
    assert_eq!(world.versions().await, before);

    world
        .config_maps()
        .delete("schemas-reddit", &DeleteParams::default())
        .await
        .unwrap();
    world.refreshed("tools", "mended").await;
    world.cache_becomes("tools", CacheState::Synced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_toolkit_that_fails_does_not_fail_the_rest() {
    let world = World::new().await;
    let _operator = world.operator();
    world.simulator.inject(
        Rule::new(Fault::Status {
            status: 500,
            body: None,
            content_type: None,
            commit: false,
        })
        .on("GET", "/toolkits/github")
        .for_ever(),
    );
    let spec = json!({"toolkits": {"include": ["github", "nosuch_toolkit"]}});
    world.cache("tools", spec).await.unwrap();
    let cache = world
        .cache_is("tools", "named both", |status| {
            status.failing_toolkits == Some(2) && status.progress.is_none()
        })
        .await;
    let status = cache.status.unwrap();
    assert_eq!(status.state, Some(CacheState::Degraded));
    let named: Vec<_> = status
        .toolkit_statuses
        .iter()
        .map(|one| (one.toolkit.as_str(), one.reason.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("github", "ComposioUnavailable"),
            ("nosuch_toolkit", "ToolkitNotFound")
        ]
    );
    assert_eq!(conditions::kstatus_violation(&status.conditions), None);
    assert!(read(&world, "schemas-reddit").await.is_some());

    world.simulator.clear_faults();
    world
        .cache_is("tools", "cached github", |status| {
            status.failing_toolkits == Some(1)
        })
        .await;
    assert!(
        read(&world, "schemas-github").await.is_some(),
        "tried again without being asked"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_cache_specs_are_refused_with_the_reason() {
    let world = World::new().await;
    let cases = [
        (
            json!({"toolkits": {"discover": "None"}}),
            "toolkits.include must name a toolkit",
        ),
        (
            json!({"toolkits": {"include": ["GitHub"]}}),
            "spec.toolkits.include[0]",
        ),
        (
            json!({"toolkits": {"include": ["a"], "exclude": ["a"]}}),
            "must not be both",
        ),
        (
            json!({"versions": {"reddit": "no version"}}),
            "spec.versions.reddit",
        ),
        (json!({"refreshInterval": "10s"}), "between 1m and 720h"),
        (
            json!({"output": {"namePrefix": "Bad_Prefix"}}),
            "output.namePrefix",
        ),
        (
            json!({"output": {"labels": {"composio-operator.dev/x": "y"}}}),
            "belong to the operator",
        ),
    ];
    for (spec, says) in cases {
        let error = world.cache("bad", spec.clone()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{spec}: {error}");
    }
    world.cache("good", json!({"suspend": true})).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"output": {"namePrefix": "other"}}}));
    let error = world
        .caches()
        .patch("good", &PatchParams::default(), &patch)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("output.namePrefix is immutable"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_change_reach_every_config_map() {
    let world = World::new().await;
    let _operator = world.operator();
    let cache = world.cache("tools", json!({})).await.unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let patch = json!({ "spec": { "output": { "labels": { "team": "agents" } } } });
    let patched = world
        .caches()
        .patch("tools", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    assert_ne!(patched.metadata.generation, cache.metadata.generation);
    world
        .cache_is("tools", "synced with its new labels", |status| {
            status.state == Some(CacheState::Synced)
                && status.observed_generation == patched.metadata.generation
        })
        .await;
    let selector = ListParams::default().labels("composio-operator.dev/schema-cache=tools");
    for map in world.config_maps().list(&selector).await.unwrap() {
        assert_eq!(
            map.labels().get("team").map(String::as_str),
            Some("agents"),
            "{}",
            map.name_any()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_cache_waits() {
    let world = World::new().await;
    let _operator = world.operator();
    world.cache("tools", json!({"suspend": true})).await.unwrap();
    let cache = world
        .cache_is("tools", "suspended", |status| !status.conditions.is_empty())
        .await;
    let conditions = cache.status.unwrap().conditions;
    assert_eq!(conditions::find(&conditions, READY).unwrap().reason, "Suspended");
    assert!(world.simulator.calls().is_empty());
    let patch = Patch::Merge(json!({"spec": {"suspend": false}}));
    world
        .caches()
        .patch("tools", &PatchParams::default(), &patch)
        .await
        .unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_deleted_and_applied_again_at_once_fills_again() {
    let world = World::new().await;
    let _operator = world.operator();
    world.cache("tools", json!({})).await.unwrap();
    let first = world.cache_becomes("tools", CacheState::Synced).await;
    world
        .caches()
        .delete("tools", &DeleteParams::default())
        .await
        .unwrap();
    // The garbage collector may not have come by for the ConfigMaps.
    world.cache("tools", json!({})).await.unwrap();
    let second = world.cache_becomes("tools", CacheState::Synced).await;
    assert_ne!(first.uid(), second.uid());
    let owned = |map: Option<&ConfigMap>| {
        map.is_some_and(|map| {
            map.owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == second.uid().as_ref())
        })
    };
    for name in ["schemas-manifest", "schemas-reddit", "schemas-hackernews"] {
        let wait = tokio::time::timeout(PATIENCE, await_condition(world.config_maps(), name, owned));
        assert!(wait.await.is_ok(), "{name}: {}", world.last_log());
    }
}

fn release(add: usize, remove: usize, change: usize, breaking: usize) -> Release {
    Release {
        add,
        remove,
        change,
        breaking,
        ..Release::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_toolkit_that_changes_is_written_alone_and_its_drift_is_reported() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .cache(
            "tools",
            json!({"toolkits": {"include": ["github", "slack"]}, "includeDeprecated": true}),
        )
        .await
        .unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let before = world.versions().await;
    let released = world
        .simulator
        .release_toolkit("github", &release(2, 1, 3, 1))
        .unwrap();
    let status = world.refreshed("tools", "released").await.status.unwrap();

    let after = world.versions().await;
    let written: Vec<_> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(written, ["schemas-github", "schemas-manifest"]);
    let drift = status.drift.unwrap();
    assert_eq!(
        (drift.added, drift.removed, drift.changed, drift.breaking),
        (2, 1, 4, 2)
    );
    assert!(
        drift
            .breaking_changes
            .iter()
            .any(|what| what.contains(&released.broken[0])),
        "{drift:?}"
    );
    assert_eq!(
        status.toolkit_statuses[0].version.as_deref(),
        Some(released.version.as_str())
    );
    let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
    assert_eq!(
        manifest.entry("github").unwrap().version.as_deref(),
        Some(released.version.as_str())
    );

    // Only the time of its update moves: nothing that a reader sees changes.
    let data = world.config_maps().get("schemas-slack").await.unwrap().data;
    world.simulator.touch_toolkit("slack", &Touch::default()).unwrap();
    world.refreshed("tools", "touched").await;
    assert_eq!(world.config_maps().get("schemas-slack").await.unwrap().data, data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_toolkit_stays_at_its_version() {
    let world = World::new().await;
    let _operator = world.operator();
    let pin = world
        .simulator
        .release_toolkit("github", &release(1, 0, 0, 0))
        .unwrap();
    world
        .simulator
        .release_toolkit("github", &release(1, 0, 0, 0))
        .unwrap();
    let spec = json!({"toolkits": {"discover": "None", "include": ["github", "slack"]}, "versions": {"github": pin.version}, "includeDeprecated": true});
    world.cache("tools", spec).await.unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let (document, tools) = read(&world, "schemas-github").await.unwrap();
    assert_eq!(document.facts.version.as_deref(), Some(pin.version.as_str()));
    assert!(tools.iter().any(|tool| tool["slug"] == pin.added[0].as_str()));

    let patch = Patch::Merge(json!({"spec": {"versions": {"slack": "19990101_00"}}}));
    world
        .caches()
        .patch("tools", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let cache = world
        .cache_is("tools", "refused the pin", |status| {
            status.failing_toolkits == Some(1)
        })
        .await;
    let message = cache.status.unwrap().toolkit_statuses[0].message.clone().unwrap();
    assert!(
        message.contains("19990101_00") && message.contains("spec.versions"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_about_a_toolkit_leave_its_last_good_schemas() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .cache("tools", json!({"toolkits": {"include": ["github"]}}))
        .await
        .unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let good = world.config_maps().get("schemas-github").await.unwrap().data;
    let garbage = |body: &str| Fault::Status {
        status: 200,
        body: Some(body.to_owned()),
        content_type: Some("application/json".to_owned()),
        commit: false,
    };
    let faults = [
        (Fault::EmptyItems, "IncompleteAnswer"),
        (garbage(r#"{"items": [], "total_items": 0}"#), "EmptyAnswer"),
        (garbage("[]"), "ComposioAnswerUnreadable"),
        (garbage("{\"items\": [{\"slug\""), "ComposioAnswerUnreadable"),
        (
            Fault::ApiError {
                status: 404,
                message: Some("no such toolkit".to_owned()),
            },
            "RequestRefused",
        ),
        (Fault::FalseTotal { by: 3 }, "IncompleteAnswer"),
    ];
    for (number, (fault, reason)) in faults.into_iter().enumerate() {
        world
            .simulator
            .release_toolkit("github", &release(0, 0, 1, 0))
            .unwrap();
        let rule = Rule::new(fault.clone())
            .on("GET", "/tools")
            .with_query("toolkit_slug", "github")
            .for_ever();
        world.simulator.inject(rule);
        let status = world
            .refreshed("tools", &format!("bad {number}"))
            .await
            .status
            .unwrap();
        assert_eq!(status.state, Some(CacheState::Degraded), "{fault:?}");
        assert_eq!(status.toolkit_statuses[0].reason, reason, "{fault:?}");
        assert_eq!(
            world.config_maps().get("schemas-github").await.unwrap().data,
            good,
            "{fault:?}"
        );
        let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
        assert_eq!(
            manifest
                .entry("github")
                .unwrap()
                .stale
                .as_ref()
                .map(|stale| stale.reason.as_str()),
            Some(reason)
        );
        world.simulator.clear_faults();
    }
    world.refreshed("tools", "mended").await;
    world.cache_becomes("tools", CacheState::Synced).await;
    assert_ne!(
        world.config_maps().get("schemas-github").await.unwrap().data,
        good
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giants_are_compressed_and_what_fits_nowhere_is_left_out_by_name() {
    let world = World::with_giants().await;
    let _operator = world.operator();
    let spec = json!({"toolkits": {"discover": "None", "include": [GIANT_TOOLKIT, HUGE_TOOL_TOOLKIT, "reddit"]}, "includeDeprecated": true});
    world.cache("tools", spec).await.unwrap();
    let status = world
        .cache_becomes("tools", CacheState::Degraded)
        .await
        .status
        .unwrap();
    assert_eq!(
        conditions::find(&status.conditions, READY).unwrap().status,
        "True"
    );
    assert_eq!(
        conditions::find(&status.conditions, COMPLETE).unwrap().reason,
        "ToolsOmitted"
    );
    assert!(
        status.toolkit_statuses[0]
            .message
            .as_ref()
            .unwrap()
            .contains(HUGE_TOOL)
    );
    let (titan, tools) = read(&world, &format!("schemas-{GIANT_TOOLKIT}")).await.unwrap();
    assert_eq!((titan.tools, tools.len()), (950, 950));
    let (monolith, tools) = read(&world, &format!("schemas-{HUGE_TOOL_TOOLKIT}"))
        .await
        .unwrap();
    assert_eq!(
        (monolith.omitted_tools.as_slice(), tools.len()),
        ([HUGE_TOOL.to_owned()].as_slice(), 4)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_auth_configs_counts_and_vanished_ones_are_cleaned_up() {
    let generated = GeneratedCatalogue {
        toolkits: 60,
        tools: 120,
        ..GeneratedCatalogue::default()
    };
    let config = Config {
        generated: Some(generated),
        auth_config_count: 501,
        ..Config::default()
    };
    let world = World::with(config).await;
    let _operator = world.operator();
    world
        .cache("tools", json!({"toolkits": {"noAuth": false}}))
        .await
        .unwrap();
    let status = world
        .cache_becomes("tools", CacheState::Synced)
        .await
        .status
        .unwrap();
    let toolkits = usize::try_from(status.toolkits.unwrap()).unwrap();
    assert!(toolkits > 50, "{toolkits}");
    assert_eq!(world.versions().await.len(), toolkits + 1);

    let spec = json!({"spec": {"toolkits": {"discover": "None", "include": ["reddit"]}}});
    world
        .caches()
        .patch("tools", &PatchParams::default(), &Patch::Merge(spec))
        .await
        .unwrap();
    world
        .cache_is("tools", "shrank", |status| {
            status.toolkits == Some(1) && status.progress.is_none()
        })
        .await;
    let left: Vec<_> = world.versions().await.into_keys().collect();
    assert_eq!(left, ["schemas-manifest", "schemas-reddit"]);
}

/// Kills the operator at one call after the other while it syncs a change of everything, and reads as a reader that
/// follows the contract would before the next one starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_a_sync_goes_on_and_readers_never_see_a_mix() {
    let world = World::new().await;
    let toolkits = ["github", "reddit", "slack", "hackernews"];
    let spec = json!({"toolkits": {"discover": "None", "include": toolkits}, "output": {"encoding": "Gzip"}});
    world.cache("tools", spec).await.unwrap();
    let operator = world.operator();
    world.cache_becomes("tools", CacheState::Synced).await;
    operator.kill().await;
    // One list of toolkits, then a detail and a list of tools for each.
    for cut in 1..=9 {
        let mut released = BTreeMap::new();
        for slug in toolkits {
            let version = world
                .simulator
                .release_toolkit(slug, &release(1, 0, 1, 0))
                .unwrap()
                .version;
            released.insert(slug, version);
        }
        let from = world.simulator.calls().last().unwrap().seq;
        let operator = world.operator();
        let patch =
            json!({ "metadata": { "annotations": { REQUESTED_AT_ANNOTATION: format!("cut {cut}") } } });
        world
            .caches()
            .patch("tools", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        let reached = world
            .simulator
            .wait_for_call(|call| call.seq >= from + cut, PATIENCE);
        reached.await.expect("the sync gets that far");
        operator.kill().await;
        for slug in toolkits {
            let found = read(&world, &format!("schemas-{slug}")).await;
            let (document, tools) = found.expect("a ConfigMap agrees with itself at every moment");
            assert!(
                tools
                    .iter()
                    .all(|tool| tool["version"] == json!(document.facts.version)),
                "{slug} is a mix"
            );
        }
        let operator = world.operator();
        world.refreshed("tools", &format!("cut {cut}")).await;
        let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
        for (slug, version) in released {
            assert_eq!(
                manifest.entry(slug).unwrap().version.as_deref(),
                Some(version.as_str()),
                "cut {cut}"
            );
            let (document, _) = read(&world, &format!("schemas-{slug}")).await.unwrap();
            assert_eq!(document.sha256, manifest.entry(slug).unwrap().sha256, "cut {cut}");
        }
        operator.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_runs_out_half_way_is_waited_for_and_nothing_is_read_twice() {
    let world = World::new().await;
    let _operator = world.operator();
    let limited = Fault::RateLimited { retry_after: 2 };
    world
        .simulator
        .inject(Rule::new(limited).on("GET", "/tools").after(2).times(1));
    world
        .cache("tools", json!({"toolkits": {"include": ["github", "slack"]}}))
        .await
        .unwrap();
    world.cache_fails("tools", "RateLimited").await;
    world.cache_becomes("tools", CacheState::Synced).await;
    let lists = world
        .simulator
        .calls()
        .iter()
        .filter(|call| call.operation() == "GET /toolkits")
        .count();
    assert_eq!(lists, 1, "what Composio offers is asked once for a sync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_map_that_the_cluster_refuses_is_said_and_tried_again() {
    let world = World::new().await;
    let quota: ResourceQuota = serde_json::from_value(
        json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "1"}}}),
    )
    .unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let counted = |quota: Option<&ResourceQuota>| {
        quota
            .and_then(|quota| quota.status.as_ref()?.used.as_ref())
            .is_some_and(|used| !used.is_empty())
    };
    tokio::time::timeout(PATIENCE, await_condition(quotas.clone(), "few", counted))
        .await
        .unwrap()
        .unwrap();
    let _operator = world.operator();
    world.cache("tools", json!({})).await.unwrap();
    let cache = world
        .cache_is("tools", "told of the quota", |status| {
            conditions::find(&status.conditions, READY)
                .is_some_and(|ready| ready.message.contains("exceeded quota"))
        })
        .await;
    assert_eq!(
        conditions::kstatus_violation(&cache.status.unwrap().conditions),
        None
    );
    quotas.delete("few", &DeleteParams::default()).await.unwrap();
    world.refreshed("tools", "more room").await;
    world.cache_becomes("tools", CacheState::Synced).await;
}
