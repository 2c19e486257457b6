//! Schema caches: what lies in the ConfigMaps, whom they belong to, and what the spec says.

use std::collections::BTreeMap;

use composio_operator::api::composio_schema_cache::{CacheState, ComposioSchemaCacheStatus};
use composio_operator::api::conditions::{self, READY, STALLED};
use composio_operator::api::{ComposioSchemaCache, REQUESTED_AT_ANNOTATION};
use composio_operator::digest::sha256_hex;
use composio_operator::schemas::manifest::{MANIFEST_KEY, Manifest};
use composio_operator::schemas::pack::{Part, TOOLKIT_KEY, TOOLS_KEY, ToolkitDocument, unpack};
use composio_sim::{Config, Fault, GeneratedCatalogue, Rule};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{KEY, PATIENCE, World};

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
        self.cache_is(name, state.into(), |status| status.state == Some(state))
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

pub fn manifest_of(map: &ConfigMap) -> Manifest {
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
        let binary_data = map.binary_data.unwrap_or_default().into_iter();
        let part = Part {
            name: reference.config_map.clone(),
            data: map.data.unwrap_or_default(),
            binary_data: binary_data.map(|(key, bytes)| (key, bytes.0)).collect(),
        };
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
    // A request and its repetitions would take longer than a reconcile may.
    let _operator = world.operator_with(&["--reconcile-timeout", "12s"], Some(KEY));
    let refused = |status| Fault::ApiError {
        status,
        message: None,
    };
    for (path, fault) in [
        ("/toolkits/github", refused(500)),
        ("/toolkits/acme", refused(403)),
        ("/toolkits/odd", refused(400)),
    ] {
        world
            .simulator
            .inject(Rule::new(fault).on("GET", path).for_ever());
    }
    let hang = Rule::new(Fault::Hang { before_commit: true }).on("GET", "/tools");
    world
        .simulator
        .inject(hang.with_query("toolkit_slug", "slack").for_ever());
    let spec = json!({"toolkits": {"include": ["acme", "github", "nosuch_toolkit", "odd", "slack"]}});
    world.cache("tools", spec).await.unwrap();
    let cache = world
        .cache_is("tools", "named all", |status| {
            status.failing_toolkits == Some(5) && status.progress.is_none()
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
            ("acme", "ApiKeyForbidden"),
            ("github", "ComposioUnavailable"),
            ("nosuch_toolkit", "ToolkitNotFound"),
            ("odd", "ToolkitRefused"),
            ("slack", "ComposioUnavailable"),
        ]
    );
    let manifest = manifest_of(&world.config_maps().get("schemas-manifest").await.unwrap());
    assert_eq!(
        manifest.totals.toolkits, 3,
        "the manifest is written all the same"
    );
    assert_eq!(conditions::kstatus_violation(&status.conditions), None);
    assert!(read(&world, "schemas-reddit").await.is_some());

    world.simulator.clear_faults();
    world
        .cache_is("tools", "cached github", |status| {
            status.failing_toolkits == Some(3)
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
    let labels = json!({ "output": { "labels": { "from-birth": "yes" } } });
    let cache = world.cache("tools", labels).await.unwrap();
    world.cache_becomes("tools", CacheState::Synced).await;
    let patch = json!({ "spec": { "output": { "labels": { "team": "agents", "from-birth": null } } } });
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
            (
                map.labels().get("team").map(String::as_str),
                map.labels().get("from-birth")
            ),
            (Some("agents"), None),
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
