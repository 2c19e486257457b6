//! What happens to a schema cache after its first sync: new versions, pins, wrong answers, giants, kills and limits.

use std::collections::BTreeMap;

use composio_operator::api::REQUESTED_AT_ANNOTATION;
use composio_operator::api::composio_schema_cache::{COMPLETE, CacheState};
use composio_operator::api::conditions::{self, READY};
use composio_sim::{
    Config, Fault, GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT, Release, Rule, Touch,
};
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::harness::{PATIENCE, World};
use crate::schemas::{manifest_of, read};

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
        (Fault::EmptyItems, "IncompleteResponse"),
        (garbage(r#"{"items": [], "total_items": 0}"#), "EmptyResponse"),
        (garbage("[]"), "InvalidResponse"),
        (garbage("{\"items\": [{\"slug\""), "InvalidResponse"),
        (
            Fault::ApiError {
                status: 404,
                message: Some("no such toolkit".to_owned()),
            },
            "ToolkitRefused",
        ),
        (Fault::FalseTotal { by: 3 }, "IncompleteResponse"),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_roles_do_not_allow_is_said_and_tried_again() {
    let world = World::new().await;
    let roles: Api<Role> = Api::namespaced(world.client.clone(), &world.namespace);
    let is_about_config_maps = |rule: &PolicyRule| {
        rule.resources
            .as_ref()
            .is_some_and(|names| names.iter().any(|name| name == "configmaps"))
    };
    let found = roles.list(&ListParams::default()).await.unwrap().items;
    let mut narrowed = found
        .into_iter()
        .find(|role| role.rules.iter().flatten().any(is_about_config_maps))
        .unwrap();
    let complete = narrowed.rules.clone();
    for rule in narrowed
        .rules
        .iter_mut()
        .flatten()
        .filter(|rule| is_about_config_maps(rule))
    {
        rule.verbs.retain(|verb| verb != "create");
    }
    let name = narrowed.name_any();
    let narrowed = roles
        .replace(&name, &PostParams::default(), &narrowed)
        .await
        .unwrap();
    let _operator = world.operator();
    world.cache("tools", json!({})).await.unwrap();
    let cache = world
        .cache_is("tools", "told of the missing permission", |status| {
            conditions::find(&status.conditions, READY)
                .is_some_and(|ready| ready.message.contains("cannot create resource \"configmaps\""))
        })
        .await;
    let conditions = cache.status.unwrap().conditions;
    assert_eq!(conditions::kstatus_violation(&conditions), None);
    let whole = Role {
        rules: complete,
        ..narrowed
    };
    roles
        .replace(&name, &PostParams::default(), &whole)
        .await
        .unwrap();
    world.refreshed("tools", "allowed now").await;
    world.cache_becomes("tools", CacheState::Synced).await;
}

/// The sync itself does not notice: the watch tells, and what is missing is written once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_during_a_sync_comes_back() {
    let world = World::new().await;
    let _operator = world.operator();
    let hang = Rule::new(Fault::Hang { before_commit: false }).on("GET", "/toolkits/slack");
    let hang = world.simulator.inject(hang);
    let spec = json!({ "toolkits": { "discover": "None", "include": ["github", "reddit", "slack"] } });
    world.cache("tools", spec).await.unwrap();
    let maps = world.config_maps();
    for name in ["schemas-github", "schemas-reddit"] {
        let filled = |map: Option<&ConfigMap>| map.is_some_and(|map| map.data.is_some());
        tokio::time::timeout(PATIENCE, await_condition(maps.clone(), name, filled))
            .await
            .unwrap()
            .unwrap();
    }
    maps.delete("schemas-reddit", &DeleteParams::default())
        .await
        .unwrap();
    world.simulator.release(&hang);
    world.cache_becomes("tools", CacheState::Synced).await;
    let is_back = |map: Option<&ConfigMap>| map.is_some_and(|map| map.data.is_some());
    tokio::time::timeout(PATIENCE, await_condition(maps, "schemas-reddit", is_back))
        .await
        .unwrap()
        .unwrap();
    assert!(read(&world, "schemas-reddit").await.is_some());
}
