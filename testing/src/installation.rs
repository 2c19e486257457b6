//! The operator installed on a control plane: everything the Helm chart brings but the Pod, which needs a node. The
//! operator then runs as an ordinary process that may do exactly what its Pod could.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::control_plane::ControlPlane;
use crate::workspace;

/// Name of the service account, stated rather than left to the chart's rule for names.
const SERVICE_ACCOUNT: &str = "composio-operator";

/// A release of the chart.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// Its name, from which the chart derives those of its objects.
    pub name: &'a str,
    /// Its namespace, created if it does not exist.
    pub namespace: &'a str,
    /// Namespaces to watch, with a Role in each; empty: all, with a `ClusterRole`.
    pub watch_namespaces: &'a [&'a str],
}

/// Applies the `CustomResourceDefinition`s in `crds/` and returns when the API server serves them.
pub async fn apply_crds(plane: &ControlPlane) -> Result<()> {
    let folder = workspace::root().join("crds");
    let filename = format!("--filename={}", folder.display());
    plane.kubectl(["apply", "--server-side", &filename]).await?.ok()?;
    plane
        .kubectl(["wait", &filename, "--for=condition=Established", "--timeout=60s"])
        .await?
        .ok()?;
    Ok(())
}

/// Creates the release's namespace, service account, roles and bindings, and returns the path of a kubeconfig with
/// which a process is that service account.
pub async fn grant(plane: &ControlPlane, release: Release<'_>) -> Result<PathBuf> {
    let namespace = format!(
        r#"{{"apiVersion": "v1", "kind": "Namespace", "metadata": {{"name": "{}"}}}}"#,
        release.namespace
    );
    plane.kubectl_apply(&namespace).await?.ok()?;
    let chart = workspace::root().join("charts/composio-operator");
    let manifests = plane
        .helm([
            "template",
            release.name,
            &chart.display().to_string(),
            "--namespace",
            release.namespace,
            "--set",
            &format!("serviceAccount.name={SERVICE_ACCOUNT}"),
            // As JSON, which has an empty list.
            "--set-json",
            &format!(
                "watchNamespaces={}",
                serde_json::to_string(release.watch_namespaces)?
            ),
            "--show-only=templates/rbac.yaml",
            "--show-only=templates/serviceaccount.yaml",
        ])
        .await?
        .ok()
        .context("the chart cannot be rendered")?;
    plane.kubectl_apply(&manifests).await?.ok()?;
    plane
        .service_account_kubeconfig(release.namespace, SERVICE_ACCOUNT)
        .await
}
