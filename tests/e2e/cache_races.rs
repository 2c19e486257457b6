//! Schema caches among people who edit, restore and hold back ConfigMaps, and a Composio that is wrong for a moment. Each
//! of these once ended wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use composio_operator::api::REQUESTED_AT_ANNOTATION;
use composio_operator::api::composio_schema_cache::CacheState;
use composio_operator::api::conditions::{self, READY, STALLED};
use composio_sim::{
    Access, ApiKey, Area, Call, Config, Fault, GIANT_TOOLKIT, GeneratedCatalogue, Release, Rule,
};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, World};
use crate::schemas::read;

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

    /// A new version of the toolkit, with tools added.
    fn releases(&self) {
        let release = Release {
            add: 1,
            ..Release::default()
        };
        self.simulator.release_toolkit("reddit", &release).unwrap();
    }
}

fn content(map: &ConfigMap) -> (Option<BTreeMap<String, String>>, Option<String>) {
    (map.data.clone(), map.annotations().get(SHA256).cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_empty_or_short_once_deletes_nothing() {
    let included = || json!({ "toolkits": { "include": ["github"] } });
    let all = || json!({ "toolkits": { "discover": "All", "include": ["github"] } });
    for (path, fault, spec) in [
        (
            "/auth_configs",
            Fault::EmptyList,
            json!({ "toolkits": { "noAuth": false } }),
        ),
        ("/toolkits", Fault::EmptyList, included()),
        ("/toolkits", Fault::EmptyList, all()),
        ("/toolkits", Fault::EmptyItems, all()),
        ("/toolkits", Fault::FalseTotal { by: 3 }, included()),
    ] {
        let world = World::new().await;
        let _operator = world.operator();
        world.synced(spec.clone()).await;
        let before = world.versions().await;
        let rule = world.simulator.inject(Rule::new(fault).on("GET", path));
        world.refreshed("tools", "while it is wrong").await;
        world
            .cache_is("tools", "synced again", |status| {
                status.state == Some(CacheState::Synced) && status.retry.is_none()
            })
            .await;
        assert_eq!(world.versions().await, before, "{rule} for {spec}");
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
    let same = |map: &ConfigMap, annotation: &str| {
        map.annotations().get(annotation) == second.annotations().get(annotation)
    };
    let is_second = |map: &ConfigMap, what: &str| {
        content(map) == content(&second)
            && map.labels() == second.labels()
            && same(map, "composio-operator.dev/tools")
            // What changed in that version stays known, unless it was out of sight.
            && (what == "hidden" || same(map, "composio-operator.dev/drift"))
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
        assert!(!is_second(&world.edit(HEAD, edit).await, what), "{what}");
        world
            .map_becomes(HEAD, &format!("was repaired once {what}"), |map| {
                is_second(map, what)
            })
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
    let stalled = world.cache_fails("tools", "ConfigMapConflict").await;
    let message = serde_json::to_string(&stalled.status.unwrap().conditions).unwrap();
    assert!(message.contains(HEAD), "{message}");
    assert_eq!(
        world.map(HEAD).await.resource_version(),
        orphan.resource_version()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_alone_make_no_config_map_ours() {
    let world = World::new().await;
    let _operator = world.operator();
    world.synced(json!({})).await;
    let labels = world.map(HEAD).await.metadata.labels;
    let foreign = ConfigMap {
        metadata: ObjectMeta {
            name: Some("schemas-mine".to_owned()),
            labels,
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    world
        .config_maps()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    world.releases();
    world.refreshed("tools", "newer").await;
    world.map("schemas-mine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_written_before_what_names_them() {
    let world = World::with_giants().await;
    let _operator = world.operator();
    let spec = json!({
        "toolkits": { "discover": "None", "include": [GIANT_TOOLKIT] }, "includeDeprecated": true,
        "output": { "encoding": "Json" },
    });
    world.synced(spec).await;
    let release = Release {
        breaking: 20,
        ..Release::default()
    };
    for written in ["at first", "again"] {
        // In the order in which the API server wrote them.
        let mut versions: Vec<_> = world
            .versions()
            .await
            .into_iter()
            .map(|(name, version)| (version.parse::<u64>().unwrap(), name))
            .collect();
        versions.sort_unstable();
        let names: Vec<_> = versions.into_iter().map(|(_, name)| name).collect();
        let head = format!("schemas-{GIANT_TOOLKIT}");
        assert!(names.len() > 3, "{names:?}");
        assert_eq!(
            names[names.len() - 2..],
            [head, "schemas-manifest".to_owned()],
            "{written}: {names:?}"
        );
        world.simulator.release_toolkit(GIANT_TOOLKIT, &release).unwrap();
        world.refreshed("tools", written).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_catalogue_does_not_list_is_asked_for_by_name() {
    let world = World::new().await;
    let _operator = world.operator();
    let ids = vec!["reddit".to_owned(), "github".to_owned()];
    let rule = Rule::new(Fault::MissingIds { ids }).on("GET", "/toolkits");
    world.simulator.inject(rule.for_ever());
    world
        .synced(json!({ "toolkits": { "include": ["github"], "noAuth": false } }))
        .await;
    let names: Vec<_> = world.versions().await.into_keys().collect();
    assert_eq!(names, ["schemas-github", "schemas-manifest", "schemas-reddit"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_composio_is_down_most_toolkits_are_not_even_tried() {
    let world = World::with(Config {
        generated: Some(GeneratedCatalogue {
            toolkits: 60,
            tools: 120,
            ..GeneratedCatalogue::default()
        }),
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    let down = Fault::ApiError {
        status: 503,
        message: None,
    };
    world
        .simulator
        .inject(Rule::new(down).on("GET", "/tools").for_ever());
    world
        .cache("tools", json!({ "toolkits": { "discover": "All" } }))
        .await
        .unwrap();
    world.cache_fails("tools", "ComposioUnavailable").await;
    let calls = world.simulator.calls();
    let tried: BTreeSet<_> = calls
        .iter()
        .filter(|call| call.operation() == "GET /tools")
        .flat_map(|call| call.query_values("toolkit_slug"))
        .collect();
    assert!((1..=20).contains(&tried.len()), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_spec_in_the_middle_of_a_sync_counts() {
    let world = World::new().await;
    let _operator = world.operator();
    let hang = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).on("GET", "/tools"));
    world
        .cache(
            "tools",
            json!({ "toolkits": { "discover": "None", "include": ["github"] } }),
        )
        .await
        .unwrap();
    let is_stuck = |call: &Call| call.fault.as_deref() == Some("hang");
    world.simulator.wait_for_call(is_stuck, PATIENCE).await.unwrap();
    let patch = json!({ "spec": { "toolkits": { "include": ["slack"] } } });
    let patched = world
        .caches()
        .patch("tools", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    world.simulator.release(&hang);
    world
        .cache_is("tools", "synced as it is wanted now", |status| {
            status.state == Some(CacheState::Synced)
                && status.observed_generation == patched.metadata.generation
        })
        .await;
    let names: Vec<_> = world.versions().await.into_keys().collect();
    assert_eq!(names, ["schemas-manifest", "schemas-slack"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_may_not_read_tools_is_said_to_be_the_wrong_one() {
    const SCOPED: &str = "ak_end_to_end_scoped_9";
    let scopes = [(Area::Toolkits, Access::Read), (Area::AuthConfigs, Access::Read)];
    let world = World::with(Config {
        keys: vec![ApiKey::new(SCOPED).scoped(scopes)],
        ..Config::default()
    })
    .await;
    let _operator = world.operator();
    world.api_key_secret("composio", SCOPED).await;
    world
        .cache("tools", json!({ "apiKeySecretRef": { "name": "composio" } }))
        .await
        .unwrap();
    let stalled = world
        .cache_is("tools", "stalled", |status| {
            conditions::is_true(&status.conditions, STALLED)
        })
        .await;
    let status = stalled.status.unwrap();
    assert_eq!(status.state, Some(CacheState::Failed));
    let ready = conditions::find(&status.conditions, READY).unwrap();
    assert_eq!(ready.reason, "ApiKeyForbidden");
    assert!(ready.message.contains("scope"), "{}", ready.message);
}

/// Returns once so many ConfigMaps of the cache were written.
async fn writes(world: &World, number: usize) {
    let config = watcher::Config::default().labels("composio-operator.dev/schema-cache");
    let mut events = Box::pin(watcher::watcher(world.config_maps(), config));
    let mut listed = false;
    let mut seen = 0;
    while seen < number {
        match events.try_next().await.unwrap().expect("the watch goes on") {
            watcher::Event::InitDone => listed = true,
            watcher::Event::Apply(_) if listed => seen += 1,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_writes_a_reader_never_sees_a_mix() {
    let world = World::with_giants().await;
    let toolkits = [GIANT_TOOLKIT, "reddit"];
    let operator = world.operator();
    world
        .synced(json!({
            "toolkits": { "discover": "None", "include": toolkits }, "includeDeprecated": true,
            "output": { "encoding": "Json" },
        }))
        .await;
    operator.kill().await;
    let parts = world.versions().await.len();
    assert!(parts > 4, "one toolkit has several parts");

    let reads = AtomicUsize::new(0);
    let reading = async {
        loop {
            for slug in toolkits {
                let Some((document, tools)) = read(&world, &format!("schemas-{slug}")).await else {
                    continue;
                };
                let version = json!(document.facts.version);
                assert_eq!(tools.len(), document.tools);
                assert!(
                    tools.iter().all(|tool| tool["version"] == version),
                    "{slug} is a mix"
                );
                reads.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let killing = async {
        let release = Release {
            breaking: 3,
            ..Release::default()
        };
        for cut in 1..=parts {
            for slug in toolkits {
                world.simulator.release_toolkit(slug, &release).unwrap();
            }
            let before = reads.load(Ordering::Relaxed);
            let token = format!("cut {cut}");
            let patch = json!({ "metadata": { "annotations": { REQUESTED_AT_ANNOTATION: token } } });
            let patched = world.caches();
            let parameters = PatchParams::default();
            let patch = Patch::Merge(patch);
            let (operator, (), _) = tokio::join!(
                async { world.operator() },
                async {
                    tokio::time::timeout(PATIENCE, writes(&world, cut))
                        .await
                        .expect("it writes");
                },
                patched.patch("tools", &parameters, &patch),
            );
            operator.kill().await;
            let operator = world.operator();
            world.refreshed("tools", &token).await;
            for slug in toolkits {
                let found = read(&world, &format!("schemas-{slug}")).await;
                assert!(found.is_some(), "{slug} is whole again after cut {cut}");
            }
            assert!(
                reads.load(Ordering::Relaxed) > before,
                "somebody has read all the time"
            );
            operator.kill().await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = killing => {}
    }
}
