//! Schema caches among people who edit, restore and hold back ConfigMaps, and a Composio that is wrong for a moment. Each
//! of these once ended wrongly.

use std::collections::BTreeMap;

use composio_operator::api::composio_schema_cache::CacheState;
use composio_sim::{Fault, Release, Rule};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, World};

const HEAD: &str = "schemas-reddit";
const SHA256: &str = "composio-operator.dev/sha256";

impl World {
    async fn map(&self, name: &str) -> ConfigMap {
        self.config_maps().get(name).await.unwrap()
    }

    async fn edit(&self, name: &str, patch: Value) -> ConfigMap {
        self.config_maps()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
    }

    async fn map_becomes(&self, name: &str, what: &str, fits: impl Fn(&ConfigMap) -> bool) {
        let condition = |map: Option<&ConfigMap>| map.is_some_and(&fits);
        let found =
            tokio::time::timeout(PATIENCE, await_condition(self.config_maps(), name, condition)).await;
        assert!(found.is_ok(), "{name} never {what}\n{}", self.last_log());
    }

    /// A cache that has synced.
    async fn synced(&self, spec: Value) {
        self.cache("tools", spec).await.unwrap();
        self.cache_becomes("tools", CacheState::Synced).await;
    }

    fn answers_once(&self, path: &str, body: &Value) {
        self.simulator.inject(
            Rule::new(Fault::Status {
                status: 200,
                body: Some(body.to_string()),
                content_type: Some("application/json".to_owned()),
                commit: false,
            })
            .on("GET", path),
        );
    }

    /// A new version of the toolkit, with tools added.
    fn releases(&self) {
        let release = Release {
            add: 1,
            ..Release::default()
        };
        self.simulator.release_toolkit("reddit", &release).unwrap();
    }
}

fn content(map: &ConfigMap) -> (Option<BTreeMap<String, String>>, String) {
    (map.data.clone(), map.annotations()[SHA256].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_empty_once_deletes_nothing() {
    let nothing =
        json!({ "items": [], "total_items": 0, "total_pages": 1, "current_page": 1, "next_cursor": null });
    for (path, spec) in [
        ("/auth_configs", json!({ "toolkits": { "noAuth": false } })),
        ("/toolkits", json!({ "toolkits": { "include": ["github"] } })),
        (
            "/toolkits",
            json!({ "toolkits": { "discover": "All", "include": ["github"] } }),
        ),
    ] {
        let world = World::new().await;
        let _operator = world.operator();
        world.synced(spec.clone()).await;
        let before = world.versions().await;
        world.answers_once(path, &nothing);
        world.refreshed("tools", "while it is empty").await;
        world
            .cache_is("tools", "synced again", |status| {
                status.state == Some(CacheState::Synced) && status.retry.is_none()
            })
            .await;
        assert_eq!(world.versions().await, before, "{path} for {spec}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_not_tried_again_whenever_something_moves() {
    let world = World::new().await;
    let _operator = world.operator();
    let foreign = serde_json::from_value(json!({ "metadata": { "name": "schemas-manifest" } })).unwrap();
    world
        .config_maps()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    world.cache("tools", json!({})).await.unwrap();
    let failures = |token: Option<&'static str>| {
        let world = &world;
        async move {
            let failed = world
                .cache_is("tools", "failed", |status| {
                    status.retry.is_some() && status.last_handled_request_at.as_deref() == token
                })
                .await;
            failed.status.unwrap().retry.unwrap().failures
        }
    };
    assert_eq!(failures(None).await, 1);
    for number in 0..5 {
        let patch = json!({ "metadata": { "labels": { "any": number.to_string() } } });
        world
            .caches()
            .patch("tools", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }
    world.refreshed("tools", "a try").await;
    assert!(
        failures(Some("a try")).await <= 2,
        "one for each that was asked for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_finalizer_holds_back_does_not_hold_back_the_rest() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    world
        .edit(
            "schemas-hackernews",
            json!({ "metadata": { "finalizers": ["example.com/held"] } }),
        )
        .await;
    let patch = json!({ "spec": { "toolkits": { "exclude": ["hackernews"] } } });
    let patched = world
        .caches()
        .patch("tools", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    world
        .cache_is("tools", "synced without it", |status| {
            status.state == Some(CacheState::Synced)
                && status.observed_generation == patched.metadata.generation
                && status.progress.is_none()
        })
        .await;
    let held = world.map("schemas-hackernews").await;
    assert!(held.metadata.deletion_timestamp.is_some());
    world
        .edit(
            "schemas-hackernews",
            json!({ "metadata": { "finalizers": null } }),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_annotations_and_labels_and_restored_copies_are_repaired() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    let first = world.map(HEAD).await;
    world.releases();
    world.refreshed("tools", "newer").await;
    let second = world.map(HEAD).await;
    assert_ne!(content(&first), content(&second));
    let is_second = |map: &ConfigMap| {
        content(map) == content(&second)
            && map.labels() == second.labels()
            && map.annotations()["composio-operator.dev/tools"]
                == second.annotations()["composio-operator.dev/tools"]
    };

    let restored = json!({ "data": first.data, "metadata": { "annotations": first.annotations() } });
    let edits = [
        ("restored", restored),
        (
            "annotated",
            json!({ "metadata": { "annotations": { SHA256: "bad0", "composio-operator.dev/tools": "7777" } } }),
        ),
        (
            "labelled",
            json!({ "metadata": { "labels": { "composio-operator.dev/toolkit": "github" } } }),
        ),
        (
            "hidden",
            json!({ "metadata": { "labels": { "composio-operator.dev/schema-cache": null } } }),
        ),
    ];
    for (what, edit) in edits {
        assert!(!is_second(&world.edit(HEAD, edit).await), "{what}");
        world
            .map_becomes(HEAD, &format!("was repaired once {what}"), is_second)
            .await;
        world
            .cache_is("tools", "synced", |status| {
                status.state == Some(CacheState::Synced) && status.progress.is_none()
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_left_alone_and_in_nobodys_way() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    let mut copy = world.map(HEAD).await;
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.managed_fields = None;
    for name in ["zz-my-copy", "schemas-zz"] {
        copy.metadata.name = Some(name.to_owned());
        world
            .config_maps()
            .create(&PostParams::default(), &copy)
            .await
            .unwrap();
    }
    world.releases();
    world.refreshed("tools", "newer").await;
    world.cache_becomes("tools", CacheState::Synced).await;
    assert_ne!(content(&world.map(HEAD).await), content(&copy));
    assert_eq!(content(&world.map("zz-my-copy").await), content(&copy));
    let under_our_prefix = world.config_maps().get_opt("schemas-zz").await.unwrap();
    assert_eq!(under_our_prefix, None, "this one nobody would ever clean up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_map_that_was_made_immutable_is_replaced() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    let frozen = world.edit(HEAD, json!({ "immutable": true })).await;
    world.releases();
    world.refreshed("tools", "newer").await;
    world.cache_becomes("tools", CacheState::Synced).await;
    let now = world.map(HEAD).await;
    assert_ne!(content(&now), content(&frozen));
    assert_eq!(now.immutable, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lost_its_owner_is_left_alone_and_named() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    let orphan = world
        .edit(HEAD, json!({ "metadata": { "ownerReferences": null } }))
        .await;
    let stalled = world
        .cache_is("tools", "told of it", |status| {
            status
                .retry
                .as_ref()
                .is_some_and(|retry| retry.reason == "ConfigMapConflict")
        })
        .await;
    let message = serde_json::to_string(&stalled.status.unwrap().conditions).unwrap();
    assert!(message.contains(HEAD), "{message}");
    assert_eq!(
        world.map(HEAD).await.resource_version(),
        orphan.resource_version()
    );
}
