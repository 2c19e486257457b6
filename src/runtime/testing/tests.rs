//! The API server in memory keeps the rules that controllers rely on.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, ResourceExt};

use super::*;

fn map(name: &str, value: &str) -> ConfigMap {
    let metadata = json!({ "name": name, "namespace": "team", "labels": { "app": value } });
    typed(json!({ "metadata": metadata, "data": { "key": value } }))
}

fn pod(finalizers: &[&str]) -> Pod {
    let metadata = json!({ "name": "p", "namespace": "team", "finalizers": finalizers });
    typed(json!({ "metadata": metadata, "spec": { "containers": [] } }))
}

fn api<K: Kind<Scope = NamespaceResourceScope>>(server: &ApiServer) -> Api<K> {
    Api::namespaced(server.client(), "team")
}

fn code<T>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
        Ok(_) => 200,
    }
}

#[tokio::test]
async fn objects_are_created_read_selected_and_replaced_in_their_version() {
    let server = ApiServer::new();
    let maps = api::<ConfigMap>(&server);
    assert_eq!(code(maps.get("a").await), 404);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
    let created = maps.create(&PostParams::default(), &map("a", "x")).await.unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let again = maps.create(&PostParams::default(), &map("a", "y")).await;
    assert_eq!(code(again), 409);
    server.create(&map("b", "y"));
    for selector in ["app: ab", "app=y: b", "app!=y: a", "!app: ", "app,app==x: a"] {
        let (labels, names) = selector.split_once(": ").unwrap();
        let found = maps.list(&ListParams::default().labels(labels)).await.unwrap();
        let found: String = found.iter().map(ResourceExt::name_any).collect();
        assert_eq!(found, names, "{labels}");
    }
    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].metadata, created.metadata);
    let metadata = maps.get_metadata("a").await.unwrap();
    assert_eq!(metadata.metadata, created.metadata);
    assert_eq!(metadata.types.unwrap().kind, "PartialObjectMetadata");

    // The same again changes nothing.
    let same = maps.replace("a", &PostParams::default(), &created).await.unwrap();
    assert_eq!(same.resource_version(), created.resource_version());
    server.edit::<ConfigMap>("team", "a", |map| map["data"]["key"] = json!("edited"));
    let stale = maps.replace("a", &PostParams::default(), &created).await;
    assert_eq!(code(stale), 409);
    assert_eq!(server.list::<ConfigMap>("").len(), 2);
    let everywhere = Api::<ConfigMap>::all(server.client());
    assert_eq!(
        everywhere.list(&ListParams::default()).await.unwrap().items.len(),
        2
    );
    assert_eq!(code(server.client().apiserver_version().await), 404);

    server.create(&typed::<Namespace>(json!({ "metadata": { "name": "team" } })));
    assert_eq!(
        code(Api::<Namespace>::all(server.client()).get_status("team").await),
        200
    );
    let lease = json!({ "metadata": { "generateName": "l-" } });
    let lease = api::<Lease>(&server)
        .create(&PostParams::default(), &typed(lease))
        .await
        .unwrap();
    assert_eq!(server.get("team", &lease.name_any()), Some(lease));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_in_another_way_with_or_without_its_effect() {
    let server = ApiServer::new();
    let maps = api::<ConfigMap>(&server);
    for (is_answered, takes_effect) in [(true, false), (true, true), (false, false), (false, true)] {
        let way = move || match (is_answered, takes_effect) {
            (true, false) => Intercept::Answer(Ok(failure(500, "InternalError"))),
            (true, true) => Intercept::EffectThen(Ok(failure(500, "InternalError"))),
            (false, false) => Intercept::HangBefore,
            (false, true) => Intercept::Hang,
        };
        server.create(&map("a", "x"));
        server.clear_calls();
        server.intercept(move |call| (call.method == "DELETE").then(way));
        let parameters = DeleteParams::default();
        let answer = tokio::time::timeout(Duration::from_secs(1), maps.delete("a", &parameters)).await;
        assert_eq!(answer.ok().map(code), is_answered.then_some(500));
        server.clear_intercept();
        assert_eq!(code(maps.get("a").await) == 404, takes_effect);
        assert_eq!(server.calls().len(), 2);
        if !takes_effect {
            server.remove::<ConfigMap>("team", "a");
        }
    }
}

#[tokio::test]
async fn an_apply_removes_what_its_manager_dropped_and_nothing_else() {
    let server = ApiServer::new();
    let maps = api::<ConfigMap>(&server);
    let apply = async |body: Value| {
        let parameters = PatchParams::apply("test").force();
        maps.patch("a", &parameters, &Patch::Apply(body)).await
    };
    let map = |data: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data });
    let guarded = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "uid": "other" } });
    assert_eq!(code(apply(guarded.clone()).await), 409);
    apply(map(json!({ "kept": "1", "dropped": "1" }))).await.unwrap();
    server.edit::<ConfigMap>("team", "a", |map| map["data"]["edited"] = json!("1"));
    let applied = apply(map(json!({ "kept": "2" }))).await.unwrap();
    assert_eq!(json!(applied.data), json!({ "kept": "2", "edited": "1" }));
    let again = apply(map(json!({ "kept": "2" }))).await.unwrap();
    assert_eq!(again.resource_version(), applied.resource_version());
    assert_eq!(code(apply(guarded).await), 409);
    let stale = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "resourceVersion": "1" } });
    assert_eq!(code(apply(stale).await), 409);
}

#[tokio::test]
async fn a_status_is_written_apart_and_only_a_spec_makes_a_generation() {
    let server = ApiServer::new();
    let pods = api::<Pod>(&server);
    let created = server.create(&pod(&[]));
    let apply = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "uid": "ignored" }, "status": { "phase": "Running" },
    });
    let apply = Patch::Apply(apply);
    let written = pods
        .patch_status("p", &PatchParams::apply("test"), &apply)
        .await
        .unwrap();
    assert_eq!(json!(written.status), json!({ "phase": "Running" }));
    assert_eq!(written.metadata.generation, Some(1));
    assert_ne!(written.resource_version(), created.resource_version());

    let merge = Patch::Merge(json!({ "spec": { "nodeName": "n" }, "status": { "phase": "Failed" } }));
    let written = pods.patch("p", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(json!(written.status), json!({ "phase": "Running" }));
    assert_eq!(written.metadata.generation, Some(2));
    assert_eq!(server.replace(&pod(&[])).metadata.generation, Some(3));
}

#[tokio::test]
async fn a_deleted_object_stays_until_its_last_finalizer_is_removed() {
    let server = ApiServer::new();
    let pods = api::<Pod>(&server);
    let stored = server.create(&pod(&["a/b"]));
    let preconditions = Some(Preconditions {
        uid: Some("other".to_owned()),
        resource_version: None,
    });
    let parameters = DeleteParams {
        preconditions,
        ..DeleteParams::default()
    };
    assert_eq!(code(pods.delete("p", &parameters).await), 409);
    assert!(
        pods.delete("p", &DeleteParams::default())
            .await
            .unwrap()
            .is_left()
    );
    assert!(
        server
            .get::<Pod>("team", "p")
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let without = json!([
        { "op": "test", "path": "/metadata/uid", "value": stored.uid() },
        { "op": "remove", "path": "/metadata/finalizers" },
    ]);
    let patch = Patch::<()>::Json(serde_json::from_value(without).unwrap());
    pods.patch("p", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(server.get::<Pod>("team", "p"), None);
    server.create(&pod(&[]));
    assert!(
        pods.delete("p", &DeleteParams::default())
            .await
            .unwrap()
            .is_right()
    );
}

#[tokio::test]
async fn a_json_patch_whose_test_fails_is_invalid_without_causes() {
    let server = ApiServer::new();
    server.create(&map("a", "x"));
    let test = json!([{ "op": "test", "path": "/metadata/uid", "value": "other" }]);
    let patch = Patch::<()>::Json(serde_json::from_value(test).unwrap());
    let failed = api::<ConfigMap>(&server)
        .patch("a", &PatchParams::default(), &patch)
        .await;
    let Err(kube::Error::Api(status)) = failed else {
        panic!("{failed:?}")
    };
    assert!(status.is_invalid() && status.details.is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reflector_follows_changes_and_lists_anew_after_its_watch_broke() {
    let server = ApiServer::new();
    server.create(&map("a", "x"));
    let (store, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels("app=x");
    let events = reflector::reflector(writer, watcher(api(&server), config)).default_backoff();
    pin_mut!(events);
    let mut until = async |names: &str| {
        let names_now = || {
            let mut names: Vec<_> = store.state().iter().map(|map| map.name_any()).collect();
            names.sort();
            names.concat()
        };
        let follow = async {
            while names_now() != names {
                let _ = events.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_mins(1), follow)
            .await
            .expect(names);
    };
    until("a").await;
    server.create(&map("b", "x"));
    until("ab").await;
    server.edit::<ConfigMap>("team", "a", |map| map["metadata"]["labels"]["app"] = json!("y"));
    until("b").await;
    server.delete::<ConfigMap>("team", "b");
    until("").await;
    server.create(&map("c", "x"));
    until("c").await;
    let lists = |server: &ApiServer| {
        server
            .calls()
            .iter()
            .filter(|call| !call.query.contains("watch="))
            .count()
    };
    assert_eq!(lists(&server), 1);
    server.break_watches();
    server.remove::<ConfigMap>("team", "c");
    server.create(&map("d", "x"));
    until("d").await;
    assert_eq!(lists(&server), 2);
}
