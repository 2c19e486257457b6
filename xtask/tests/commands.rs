//! The commands of `cargo xtask` that start a control plane or prepare its programs, as processes of their own.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testing::control_plane::ControlPlane;

/// How often a condition is checked, and when it is given up: far beyond what a loaded machine needs.
const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(1);

/// `cargo xtask cluster` in a process of its own.
struct Cluster {
    process: Child,
    directory: PathBuf,
}

impl Cluster {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("cluster")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut kubeconfig = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut kubeconfig)
            .unwrap();
        let directory = Path::new(kubeconfig.trim()).parent().unwrap().to_owned();
        Self { process, directory }
    }

    fn kill(&self, signal: &str) {
        let status = Command::new("kill")
            .args(["-s", signal, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The processes whose command line names the directory of this control plane.
    fn processes(&self) -> Vec<u32> {
        let output = Command::new("ps")
            .args(["-A", "-o", "pid=,args="])
            .output()
            .unwrap();
        let name = self.directory.to_str().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains(name))
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn nothing_outlives_a_killed_owner() {
    let mut cluster = Cluster::start();
    assert!(cluster.directory.join("kubeconfig").is_file());
    // Three programs, each with its supervisor and the reader of its orders.
    assert!(cluster.processes().len() >= 6, "{:?}", cluster.processes());
    cluster.kill("KILL");
    cluster.process.wait().unwrap();
    let gone = async {
        while !cluster.processes().is_empty() || cluster.directory.exists() {
            tokio::time::sleep(POLL).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await.is_ok();
    assert!(
        gone,
        "still there: {:?}, {}",
        cluster.processes(),
        cluster.directory.display()
    );
}

#[tokio::test]
async fn the_cluster_command_stops_when_asked() {
    for signal in ["INT", "TERM"] {
        let mut cluster = Cluster::start();
        cluster.kill(signal);
        assert!(cluster.process.wait().unwrap().success(), "after SIG{signal}");
        assert!(
            cluster.processes().is_empty() && !cluster.directory.exists(),
            "after SIG{signal}"
        );
    }
}

#[test]
fn without_go_and_without_programs_the_command_says_what_to_install() {
    let empty = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["control-plane", "build"])
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path())
        .env_remove("KUBEBUILDER_ASSETS")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    let message = String::from_utf8(output.stderr).unwrap();
    for part in [
        "kube-apiserver",
        "Go is not installed",
        "https://go.dev/dl/",
        "KUBEBUILDER_ASSETS",
    ] {
        assert!(message.contains(part), "{part} is missing from: {message}");
    }
}

#[tokio::test]
async fn ready_programs_are_used_without_a_cache_and_without_go() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let directory = control_plane.binaries().directories()[0].clone();
    let empty = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["control-plane", "path"])
        .env("KUBEBUILDER_ASSETS", &directory)
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path())
        .output()
        .unwrap();
    let path = String::from_utf8_lossy(&output.stdout);
    assert_eq!(path.trim(), directory.to_str().unwrap(), "{output:?}");
}
