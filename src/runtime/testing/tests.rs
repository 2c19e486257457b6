//! The API server in memory keeps the rules that controllers rely on.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use super::*;

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
