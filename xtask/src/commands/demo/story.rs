//! The story: who plays, then a connection, then a schema cache.

use anyhow::{Context, Result};
use testing::control_plane::tools::kubernetes_version;
use testing::workspace;

use super::narrator::Narrator;
use super::stage::Stage;
use super::{connection, schemas};

/// Tells it. With `manual` the person at the keyboard opens the link.
pub async fn tell(stage: &Stage, narrator: &Narrator, manual: bool) -> Result<()> {
    introduce(stage, narrator)?;
    connection::tell(stage, narrator, manual).await?;
    schemas::tell(stage, narrator).await
}

fn introduce(stage: &Stage, narrator: &Narrator) -> Result<()> {
    let part = |name: String, place: String, note: &str| format!("\n   {name:<22} {place:<26} {note}");
    let parts = [
        part(
            format!("Kubernetes {}", kubernetes_version()?),
            stage.plane.url(),
            "real: etcd, kube-apiserver, kube-controller-manager",
        ),
        part(
            "Composio, simulated".to_owned(),
            stage.composio.clone(),
            "composio-sim; no real account is involved",
        ),
        part(
            "composio-operator".to_owned(),
            format!("process {}", stage.operator_pid()),
            "with the service account and roles of the Helm chart",
        ),
    ];
    narrator.say(&format!(
        "Running on this machine, and nowhere else:{}",
        parts.concat()
    ));
    narrator.say(
        "There is no node and so no Pod: the operator is an ordinary process that may do what its Pod could.",
    );
    Ok(())
}

/// Shows an example and applies it.
pub async fn apply(stage: &Stage, narrator: &Narrator, example: &str) -> Result<()> {
    narrator.command(&format!("cat {example}"));
    let path = workspace::root().join(example);
    narrator.output(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {example}"))?);
    narrator.command(&format!("kubectl apply -f {example}"));
    narrator.output(&stage.apply(example).await?);
    Ok(())
}
