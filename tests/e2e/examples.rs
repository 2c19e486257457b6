//! What the examples promise, beyond that the API server accepts them (see `admission`).

use std::path::Path;

use composio_operator::api::composio_schema_cache::CacheState;
use composio_sim::Release;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use testing::supervised::{Program, Supervised};

use crate::harness::{PATIENCE, World};

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Puts a ConfigMap into a volume as the kubelet does: the files in a directory of their own, and a link to it that is
/// moved in one go.
fn mount(map: &ConfigMap, volume: &Path) {
    let version = map.metadata.resource_version.as_deref().unwrap();
    let files = volume.join(format!("..{version}"));
    std::fs::create_dir(&files).unwrap();
    for (key, text) in map.data.iter().flatten() {
        std::fs::write(files.join(key), text).unwrap();
    }
    for (key, bytes) in map.binary_data.iter().flatten() {
        std::fs::write(files.join(key), &bytes.0).unwrap();
    }
    let next = volume.join("..data_tmp");
    std::os::unix::fs::symlink(files.file_name().unwrap(), &next).unwrap();
    std::fs::rename(next, volume.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reader_of_the_example_reads_a_mounted_toolkit_and_notices_changes() {
    let world = World::new().await;
    let _operator = world.operator();
    let deployment: Deployment = serde_saphyr::from_str(&example("schema-reader.yaml")).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let mounted = pod.volumes.unwrap()[0].config_map.clone().unwrap();
    let container = &pod.containers[0];
    let command = container.command.iter().chain(&container.args).flatten();
    let volume = world.directory.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let program = Program::new("/usr/bin/env", world.directory.path().join("reader.log"))
        .args(command)
        .env("SCHEMAS", &volume);
    // It starts before there is anything to read.
    let reader = Supervised::spawn(&program).unwrap();

    let cache = serde_saphyr::from_str(&example("composioschemacache.yaml")).unwrap();
    let cache = world.created(&cache).await;
    let cache = cache.metadata.name.unwrap();
    world.cache_becomes(&cache, CacheState::Synced).await;
    let maps = Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
    mount(&maps.get(&mounted.name).await.unwrap(), &volume);
    let first = |line: &str| line.starts_with("reddit 20260424_00: ");
    let first = reader.wait_for_line(PATIENCE, first).await.unwrap();

    let release = Release {
        add: 3,
        ..Release::default()
    };
    let released = world.simulator.release_toolkit("reddit", &release).unwrap();
    world.refreshed(&cache, "now").await;
    mount(&maps.get(&mounted.name).await.unwrap(), &volume);
    let second = format!("reddit {}: ", released.version);
    let second = reader
        .wait_for_line(PATIENCE, |line| line.starts_with(&second))
        .await
        .unwrap();
    let tools = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        words[2].parse::<usize>().unwrap()
    };
    assert_eq!(tools(&second), tools(&first) + 3);
}
