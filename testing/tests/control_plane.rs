//! The control plane itself, with the real programs. They are built on first use, which takes minutes.

// The lint spares test functions, not what they call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testing::control_plane::{ControlPlane, Options, Part};

const VIEWER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: viewer, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: read-config, namespace: default}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: read-config, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-config}
subjects:
- {kind: ServiceAccount, name: viewer, namespace: default}
- {kind: User, name: alice, apiGroup: rbac.authorization.k8s.io}
- {kind: Group, name: readers, apiGroup: rbac.authorization.k8s.io}
";

async fn shared() -> &'static ControlPlane {
    ControlPlane::shared().await.unwrap()
}

/// Whether RBAC lets the user of a kubeconfig do something in the default namespace.
async fn may(control_plane: &ControlPlane, kubeconfig: &Path, verb: &str, resource: &str) -> bool {
    let output = control_plane
        .kubectl_as(
            kubeconfig,
            ["auth", "can-i", verb, resource, "--namespace=default"],
        )
        .await
        .unwrap();
    match output.stdout.trim() {
        "yes" => true,
        "no" => false,
        _ => panic!("kubectl auth can-i said neither yes nor no: {output:?}"),
    }
}

#[tokio::test]
async fn it_is_ready_and_knows_its_version() {
    let control_plane = shared().await;
    assert_eq!(
        control_plane
            .kubectl(["get", "--raw=/readyz"])
            .await
            .unwrap()
            .ok()
            .unwrap(),
        "ok"
    );
    let version = control_plane
        .kubectl(["version", "--output=json"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let pinned = testing::control_plane::tools::kubernetes_version().unwrap();
    assert_eq!(
        version.matches(&format!("\"gitVersion\": \"{pinned}\"")).count(),
        2,
        "client and server: {version}"
    );
}

#[tokio::test]
async fn namespaces_end_and_owned_objects_go_with_their_owner() {
    let control_plane = shared().await;
    let kubectl = async |args: &[&str]| control_plane.kubectl(args).await.unwrap().ok().unwrap();
    kubectl(&["create", "namespace", "short-lived"]).await;
    kubectl(&["create", "configmap", "owner", "--namespace=short-lived"]).await;
    let uid = kubectl(&[
        "get",
        "configmap",
        "owner",
        "--namespace=short-lived",
        "--output=jsonpath={.metadata.uid}",
    ])
    .await;
    let owned = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, namespace: short-lived, ownerReferences: \
         [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}}}"
    );
    control_plane.kubectl_apply(&owned).await.unwrap().ok().unwrap();
    kubectl(&["delete", "configmap", "owner", "--namespace=short-lived"]).await;
    kubectl(&[
        "wait",
        "--for=delete",
        "configmap/owned",
        "--namespace=short-lived",
        "--timeout=120s",
    ])
    .await;
    kubectl(&[
        "delete",
        "namespace",
        "short-lived",
        "--wait=true",
        "--timeout=120s",
    ])
    .await;
    let gone = control_plane
        .kubectl(["get", "namespace", "short-lived"])
        .await
        .unwrap();
    assert!(!gone.success && gone.stderr.contains("NotFound"), "{gone:?}");
}

#[tokio::test]
async fn users_and_service_accounts_may_do_what_rbac_grants_and_no_more() {
    let control_plane = shared().await;
    control_plane.kubectl_apply(VIEWER).await.unwrap().ok().unwrap();
    let service_account = control_plane
        .service_account_kubeconfig("default", "viewer")
        .await
        .unwrap();
    let alice = control_plane.user_kubeconfig("alice", None).unwrap();
    let member = control_plane
        .user_kubeconfig("system:odd \"name\"", Some("readers"))
        .unwrap();
    let stranger = control_plane.user_kubeconfig("mallory", Some("writers")).unwrap();

    for reader in [&service_account, &alice, &member] {
        assert!(
            may(control_plane, reader, "list", "configmaps").await,
            "{}",
            reader.display()
        );
        assert!(
            !may(control_plane, reader, "list", "secrets").await,
            "{}",
            reader.display()
        );
        assert!(
            !may(control_plane, reader, "delete", "configmaps").await,
            "{}",
            reader.display()
        );
    }
    assert!(!may(control_plane, &stranger, "list", "configmaps").await);
    assert!(
        may(
            control_plane,
            &control_plane.kubeconfig_path(),
            "delete",
            "secrets"
        )
        .await
    );

    let refused = control_plane
        .kubectl_as(&alice, ["get", "secrets", "--namespace=default"])
        .await
        .unwrap();
    assert!(
        !refused.success && refused.stderr.contains("Forbidden"),
        "{refused:?}"
    );
    let missing = control_plane
        .service_account_kubeconfig("default", "nobody")
        .await
        .unwrap_err();
    assert!(
        format!("{missing:#}").starts_with("no token for service account default/nobody: "),
        "{missing:#}"
    );
}

#[tokio::test]
async fn helm_works_against_it() {
    let control_plane = shared().await;
    let version = control_plane
        .helm(["version", "--short"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(version.starts_with("v4."), "{version}");

    let chart = TempDir::new().unwrap();
    fs::create_dir(chart.path().join("templates")).unwrap();
    let description = "apiVersion: v2\nname: probe\nversion: 0.1.0\nkubeVersion: '>=1.30.0-0'\n";
    fs::write(chart.path().join("Chart.yaml"), description).unwrap();
    let template =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: from-helm}, data: {k: '{{ .Values.v }}'}}";
    fs::write(chart.path().join("templates/config.yaml"), template).unwrap();
    let folder = chart.path().to_str().unwrap();
    control_plane
        .helm(["install", "probe", folder, "--set=v=42"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let value = control_plane
        .kubectl(["get", "configmap", "from-helm", "--output=jsonpath={.data.k}"])
        .await
        .unwrap();
    assert_eq!(value.ok().unwrap(), "42");
    control_plane
        .helm(["uninstall", "probe"])
        .await
        .unwrap()
        .ok()
        .unwrap();
}

#[tokio::test]
async fn two_side_by_side_survive_restarts_and_leave_nothing_behind() {
    let first = ControlPlane::start(Options::default()).await.unwrap();
    let second = ControlPlane::start(Options::default()).await.unwrap();
    assert_ne!(first.url(), second.url());
    for (control_plane, value) in [(&first, "first"), (&second, "second")] {
        let literal = format!("--from-literal=of={value}");
        control_plane
            .kubectl(["create", "configmap", "marker", &literal])
            .await
            .unwrap()
            .ok()
            .unwrap();
    }
    let marker = async |control_plane: &ControlPlane| {
        let output = control_plane
            .kubectl(["get", "configmap", "marker", "--output=jsonpath={.data.of}"])
            .await;
        output.unwrap().ok().unwrap()
    };
    assert_eq!(marker(&first).await, "first");
    assert_eq!(marker(&second).await, "second");

    first.stop_part(Part::ApiServer).await;
    assert_eq!(first.pid(Part::ApiServer).await, None);
    let refused = first.kubectl(["get", "configmap", "marker"]).await.unwrap();
    assert!(
        !refused.success && refused.stderr.contains("refused"),
        "{refused:?}"
    );
    assert_eq!(marker(&second).await, "second");
    first.restart_part(Part::ApiServer).await.unwrap();
    assert_eq!(marker(&first).await, "first");

    // A restart without a stop is a crash; the store must have kept what the API server acknowledged.
    let etcd = first.pid(Part::Etcd).await;
    first.restart_part(Part::Etcd).await.unwrap();
    assert_ne!(first.pid(Part::Etcd).await, etcd);
    assert_eq!(marker(&first).await, "first");

    // The controllers find their way back as well.
    first.restart_part(Part::ControllerManager).await.unwrap();
    first
        .kubectl(["create", "namespace", "later"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    first
        .kubectl(["delete", "namespace", "later", "--timeout=120s"])
        .await
        .unwrap()
        .ok()
        .unwrap();

    let directories = [first.directory().to_owned(), second.directory().to_owned()];
    let pids = [
        first.pid(Part::Etcd).await.unwrap(),
        second.pid(Part::ApiServer).await.unwrap(),
    ];
    first.stop().unwrap();
    drop(second);
    assert!(directories.iter().all(|directory| !directory.exists()));
    assert!(pids.iter().all(|&pid| !alive(pid)));
}

#[tokio::test]
async fn a_failed_start_shows_the_log() {
    let options = Options {
        api_server_flags: vec!["--no-such-flag".into()],
        ..Options::default()
    };
    let error = ControlPlane::start(options).await.err().unwrap().to_string();
    assert!(
        error.starts_with("kube-apiserver exited with code 1; the end of its log:"),
        "{error}"
    );
    assert!(error.contains("unknown flag: --no-such-flag"), "{error}");
}

#[tokio::test]
async fn a_crash_is_noticed() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let pid = control_plane.pid(Part::ControllerManager).await.unwrap();
    let (failure, killed) = tokio::join!(
        control_plane.failure(),
        tokio::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
    );
    assert!(killed.unwrap().success());
    assert!(
        failure.starts_with("kube-controller-manager was ended by signal 9; "),
        "{failure}"
    );
}

/// Whether a process exists and is not merely waiting to be reaped.
fn alive(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout);
    !matches!(state.trim().chars().next(), None | Some('Z'))
}
