//! What the chart renders is accepted by a real API server in every main variant: a field that does not exist, or a value of
//! the wrong type, fails.

use serde_json::json;

use crate::harness::plane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_variant_of_the_chart_passes_a_strict_dry_run() {
    let plane = plane().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chart"}});
    plane
        .kubectl_apply(&namespace.to_string())
        .await
        .unwrap()
        .ok()
        .unwrap();
    let chart = format!("{}/charts/composio-operator", env!("CARGO_MANIFEST_DIR"));
    let variants = [
        json!({}),
        json!({"watchNamespaces": ["chart"], "replicas": 2}),
        json!({"composio": {"apiKeySecret": {"name": "composio"}, "sharedKeyNamespaces": ["team-a"]}}),
        json!({"composio": {"apiKeySecret": {"value": "ak_test"}}, "crds": {"enabled": false}}),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, values) in variants.iter().enumerate() {
        let file = folder.path().join(format!("values-{number}.json"));
        std::fs::write(&file, values.to_string()).unwrap();
        let file = file.to_str().unwrap();
        let rendered = plane
            .helm([
                "template",
                "operator",
                &chart,
                "--namespace=chart",
                "--values",
                file,
            ])
            .await
            .unwrap()
            .ok()
            .unwrap();
        let manifests = folder.path().join(format!("rendered-{number}.yaml"));
        std::fs::write(&manifests, rendered).unwrap();
        let filename = format!("--filename={}", manifests.display());
        let accepted = plane
            .kubectl([
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "--validate=strict",
                "--namespace=chart",
                &filename,
            ])
            .await
            .unwrap();
        accepted
            .ok()
            .unwrap_or_else(|error| panic!("{values}: {error:#}"));
    }
}
