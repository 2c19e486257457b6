//! `cargo xtask cluster`: a control plane to work with by hand or from a script.

use std::io::{Write, stdout};

use anyhow::{Result, bail};
use testing::control_plane::binaries::{Binaries, Sources};
use testing::control_plane::tools::{Tool, kubernetes_version};
use testing::control_plane::{ControlPlane, Options};

use super::interruption::Interruption;

/// Starts a control plane, prints the path of its kubeconfig as the first line of standard output, and runs until it is
/// told to stop. Fails if the control plane ends by itself.
pub async fn run() -> Result<()> {
    let binaries = Binaries::ensure(&Sources::from_env()?, &Tool::ALL)?;
    let mut interruption = Interruption::catch()?;

    let serve = async {
        eprintln!("Starting a control plane ...");
        let options = Options {
            binaries: Some(binaries),
            ..Options::default()
        };
        let control_plane = ControlPlane::start(options).await?;
        announce(&control_plane)?;
        bail!("{}", control_plane.failure().await)
    };
    tokio::select! {
        failed = serve => failed,
        () = interruption.wait() => Ok(()),
    }
}

fn announce(control_plane: &ControlPlane) -> Result<()> {
    let kubeconfig = control_plane.kubeconfig_path();
    // The reader may be gone; the control plane then still serves whoever has the kubeconfig.
    let _ = writeln!(stdout(), "{}", kubeconfig.display()).and_then(|()| stdout().flush());
    eprintln!(
        "Kubernetes {version} is ready at {url}. In another terminal:

  export KUBECONFIG={kubeconfig}
  export PATH=\"{path}:$PATH\"
  kubectl get namespaces

Logs are in {logs}. Ctrl-C stops the control plane and removes everything.",
        version = kubernetes_version()?,
        url = control_plane.url(),
        kubeconfig = kubeconfig.display(),
        path = std::env::join_paths(control_plane.binaries().directories())?.display(),
        logs = control_plane.logs_directory().display(),
    );
    Ok(())
}
