//! Many schema caches, and an operator that starts anew.

use std::collections::BTreeMap;
use std::time::Duration;

use composio_operator::api::composio_schema_cache::CacheState;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::harness::{PATIENCE, World};

const CACHES: usize = 30;

/// Long enough ago that every cache is due.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

async fn cache_versions(world: &World) -> BTreeMap<String, String> {
    let caches = world.caches().list(&ListParams::default()).await.unwrap();
    caches
        .into_iter()
        .map(|cache| (cache.name_any(), cache.resource_version().unwrap()))
        .collect()
}

/// The caches that a process has verified: the metric is older than that where it only repeats the status.
async fn verified(http: &str) -> usize {
    let metrics = reqwest::get(format!("{http}/metrics")).await.unwrap();
    let text = metrics.text().await.unwrap();
    let family = "composio_operator_schema_cache_last_verified_timestamp_seconds{";
    let times = text.lines().filter(|line| line.starts_with(family));
    let times = times.filter_map(|line| line.rsplit_once(' ')?.1.parse::<i64>().ok());
    times.filter(|time| *time > 1_600_000_000).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_many_caches_share_a_few_lists_and_write_nothing() {
    let world = World::new().await;
    let operator = world.operator();
    let name = |number: usize| format!("tools-{number}");
    for number in 0..CACHES {
        let spec = json!({"refreshInterval": "1m", "toolkits": {"exclude": ["codeinterpreter", "hackernews"]},
            "output": {"namePrefix": name(number)}});
        world.cache(&name(number), spec).await.unwrap();
    }
    for number in 0..CACHES {
        world.cache_becomes(&name(number), CacheState::Synced).await;
    }
    operator.kill().await;
    let long_ago = json!({"status": {"lastSyncTime": LONG_AGO}});
    for number in 0..CACHES {
        let patch = Patch::Merge(&long_ago);
        let caches = world.caches();
        caches
            .patch_status(&name(number), &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let before = (world.versions().await, cache_versions(&world).await);
    let newest = world.simulator.calls().last().unwrap().seq;

    let operator = world.operator();
    let http = operator.http().await;
    let all = async {
        while verified(&http).await < CACHES {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    assert!(all.is_ok(), "not every cache is verified: {}", world.last_log());
    let calls = world.simulator.calls_after(newest);
    assert!(calls.len() <= 2, "one list of each kind: {calls:#?}");
    assert_eq!((world.versions().await, cache_versions(&world).await), before);
}
