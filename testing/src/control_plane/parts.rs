//! The three processes of a control plane: their flags, and how one knows that they work.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::binaries::Binaries;
use super::certificates::{Authority, service_account_keys, write_private};
use super::kubeconfig::{Credential, kubeconfig};
use super::tools::Tool;
use crate::supervised::{Program, Supervised};

/// Addresses of Services. Nothing routes them: they only have to be well-formed.
const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The address of the `kubernetes` Service: the first of [`SERVICE_RANGE`].
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// What Kubernetes itself calls the API server in the tokens it issues.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A process of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The store. Without it the API server answers with errors.
    Etcd,
    /// The API server. Without it nothing answers.
    ApiServer,
    /// The controllers. Without them namespaces stay in `Terminating`, and owned objects outlive their owners.
    ControllerManager,
}

/// The files and sockets of one control plane, all under its temporary directory.
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Creates the folders under `directory`.
    pub fn create(directory: &TempDir) -> std::io::Result<Self> {
        let layout = Self {
            root: directory.path().to_owned(),
        };
        for folder in [layout.logs(), layout.credentials(), layout.caches()] {
            std::fs::create_dir(folder)?;
        }
        Ok(layout)
    }

    /// Logs, one file a process.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Keys, certificates and kubeconfigs.
    pub fn credentials(&self) -> PathBuf {
        self.root.join("credentials")
    }

    /// Caches of kubectl and Helm, kept apart from the user's own.
    pub fn caches(&self) -> PathBuf {
        self.root.join("caches")
    }

    /// The kubeconfig of the cluster administrator.
    pub fn admin(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// etcd listens here rather than on a port: no other user of the machine can read the store, and no port can clash.
    fn etcd_socket(&self) -> PathBuf {
        self.root.join("etcd.sock")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    fn credential(&self, name: &str) -> String {
        self.credentials().join(name).display().to_string()
    }
}

/// Writes what the processes need to trust each other, but for the kubeconfigs, which also need the port.
pub fn write_credentials(layout: &Layout, authority: &Authority) -> Result<()> {
    let server = authority.server(SERVICE_ADDRESS)?;
    let (private, public) = service_account_keys()?;
    let files = [
        ("ca.crt", authority.certificate()),
        ("server.crt", server.certificate),
        ("server.key", server.key),
        ("service-accounts.key", private),
        ("service-accounts.pub", public),
    ];
    for (name, text) in files {
        write_private(&layout.credentials(), name, &text)?;
    }
    Ok(())
}

/// Writes the kubeconfigs of the administrator and of the controller manager for an API server at `url`.
pub fn write_kubeconfigs(layout: &Layout, authority: &Authority, url: &str) -> Result<()> {
    let ca = authority.certificate();
    let admin = authority.client("admin", Some("system:masters"))?;
    let text = kubeconfig(url, &ca, "admin", &Credential::Certificate(&admin));
    write_private(&layout.root, "kubeconfig", &text)?;
    let manager = "system:kube-controller-manager";
    let identity = authority.client(manager, None)?;
    let text = kubeconfig(url, &ca, manager, &Credential::Certificate(&identity));
    write_private(&layout.credentials(), "controller-manager.kubeconfig", &text)?;
    Ok(())
}

/// etcd, of one member that talks to nobody but the API server.
pub fn etcd(layout: &Layout, binaries: &Binaries, directory: &TempDir) -> Result<Program> {
    let path = |path: PathBuf| path.display().to_string();
    // Port 0, because there is no peer that would have to find it.
    let nobody = "http://127.0.0.1:0";
    Ok(Program::new(binaries.path(Tool::Etcd)?, layout.log("etcd"))
        .args([
            "--name=control-plane",
            &format!("--data-dir={}", path(layout.root.join("etcd"))),
            &format!("--listen-client-urls=unix://{}", path(layout.etcd_socket())),
            &format!("--advertise-client-urls={nobody}"),
            &format!("--listen-peer-urls={nobody}"),
            &format!("--initial-advertise-peer-urls={nobody}"),
            &format!("--initial-cluster=control-plane={nobody}"),
            // The data need not survive the machine; it does survive a kill of the process.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ])
        .remove_if_abandoned(directory))
}

/// The API server on `port` of loopback, with `extra` flags at the end, where they win.
pub fn api_server(
    layout: &Layout,
    binaries: &Binaries,
    directory: &TempDir,
    port: u16,
    extra: &[String],
) -> Result<Program> {
    Ok(
        Program::new(binaries.path(Tool::KubeApiserver)?, layout.log("kube-apiserver"))
            .args([
                format!("--etcd-servers=unix://{}", layout.etcd_socket().display()),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                // Without it the server looks for a default route and gives up where there is none. Loopback is not a valid
                // endpoint for the `kubernetes` Service, so nobody is asked to publish one.
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--tls-cert-file={}", layout.credential("server.crt")),
                format!("--tls-private-key-file={}", layout.credential("server.key")),
                format!("--client-ca-file={}", layout.credential("ca.crt")),
                format!("--service-account-issuer={ISSUER}"),
                format!(
                    "--service-account-key-file={}",
                    layout.credential("service-accounts.pub")
                ),
                format!(
                    "--service-account-signing-key-file={}",
                    layout.credential("service-accounts.key")
                ),
                "--authorization-mode=Node,RBAC".to_owned(),
                format!("--service-cluster-ip-range={SERVICE_RANGE}"),
                "--allow-privileged=true".to_owned(),
                "--profiling=false".to_owned(),
            ])
            .args(extra)
            .remove_if_abandoned(directory),
    )
}

/// The controller manager. Each controller has a service account of its own, as in a cluster made by kubeadm.
pub fn controller_manager(layout: &Layout, binaries: &Binaries, directory: &TempDir) -> Result<Program> {
    Ok(Program::new(
        binaries.path(Tool::KubeControllerManager)?,
        layout.log("kube-controller-manager"),
    )
    .args([
        &format!(
            "--kubeconfig={}",
            layout.credential("controller-manager.kubeconfig")
        ),
        &format!(
            "--service-account-private-key-file={}",
            layout.credential("service-accounts.key")
        ),
        &format!("--root-ca-file={}", layout.credential("ca.crt")),
        "--use-service-account-credentials",
        "--leader-elect=false",
        // No metrics and no health endpoint: one port less that could be taken.
        "--secure-port=0",
        // The defaults protect a large cluster's API server; here they only make the start slow.
        "--kube-api-qps=300",
        "--kube-api-burst=600",
        "--profiling=false",
    ])
    .remove_if_abandoned(directory))
}

/// Waits until `probe` returns no objection, asking again every `interval`. Fails, quoting the log, if the process ends
/// or `limit` passes.
pub async fn await_ready(
    process: &Supervised,
    limit: Duration,
    interval: Duration,
    mut probe: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let mut objection = String::from("it was not asked yet");
    let ready = async {
        loop {
            match probe().await {
                Ok(()) => return Ok(()),
                Err(error) => objection = format!("{error:#}"),
            }
            tokio::select! {
                exit = process.wait() => bail!("{}", process.obituary(exit)),
                () = tokio::time::sleep(interval) => {}
            }
        }
    };
    match tokio::time::timeout(limit, ready).await {
        Ok(result) => result,
        Err(_) => bail!(
            "{} is not ready after {} s ({}); the end of its log:\n{}",
            process.name(),
            limit.as_secs(),
            objection.trim(),
            process.log_tail(20)
        ),
    }
}

/// Asks etcd for its health.
pub async fn probe_etcd(layout: &Layout) -> Result<()> {
    let answer = get_over(&layout.etcd_socket(), "/health").await?;
    if answer.contains(r#""health":"true""#) {
        Ok(())
    } else {
        bail!("etcd does not call itself healthy")
    }
}

/// One HTTP GET over a Unix socket. HTTP/1.0, so that the end of the answer is the end of the stream.
async fn get_over(socket: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(directory: &TempDir, script: &str) -> Supervised {
        let program = Program::new("/bin/sh", directory.path().join("log")).args(["-c", script]);
        Supervised::spawn(&program).unwrap()
    }

    #[tokio::test]
    async fn an_early_exit_is_told_with_the_log() {
        let directory = TempDir::new().unwrap();
        let process = failing(&directory, "echo 'unknown flag: --oops' >&2; exit 1");
        let never = async || bail!("connection refused");
        let error = await_ready(&process, Duration::from_mins(1), Duration::from_millis(10), never)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "sh exited with code 1; the end of its log:\nunknown flag: --oops"
        );
    }

    #[tokio::test]
    async fn a_process_that_never_gets_ready_is_told_with_the_last_objection() {
        let directory = TempDir::new().unwrap();
        let process = failing(&directory, "exec sleep 600");
        let never = async || bail!("connection refused");
        let error = await_ready(
            &process,
            Duration::from_millis(50),
            Duration::from_millis(10),
            never,
        )
        .await
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with("sh is not ready after 0 s (connection refused)"),
            "{error}"
        );
    }
}
