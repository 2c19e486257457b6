//! Everything that runs during the demo, and how it is told that it works.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testing::control_plane::binaries::Binaries;
use testing::control_plane::tools::Tool;
use testing::control_plane::{ControlPlane, Options};
use testing::installation;
use testing::supervised::{Program, Supervised};
use testing::workspace::{self, Programs};

/// Where the operator is installed.
pub const NAMESPACE: &str = "composio-operator";
/// Where the connection is made.
pub const TENANT: &str = "default";
/// A key of the simulator's, good for nothing else.
const API_KEY: &str = "ak_demo_of_composio_operator";
/// Name of the release, and so of its Lease.
const RELEASE: &str = "composio-operator";
/// Nothing here takes long; a loaded machine may.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Loopback needs no proxy, whatever the environment says.
const DIRECT: [(&str, &str); 2] = [("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")];
/// How often a server that is coming up is asked.
const INTERVAL: Duration = Duration::from_millis(100);
/// Lines of each log that a failure is told with.
const LAST_LINES: usize = 15;

/// The running parts. Dropping it ends them all.
pub struct Stage {
    // In the order of dropping: clients before servers.
    operator: Supervised,
    simulator: Supervised,
    /// The simulator's URL, without a slash at the end.
    pub composio: String,
    /// The control plane.
    pub plane: ControlPlane,
    /// For requests to the simulator and the operator. Follows no redirects, as those lead to callbacks.
    pub http: reqwest::Client,
}

/// An account at Composio, as the simulator's control API tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub id: String,
    pub user_id: String,
    pub username: Option<String>,
    pub status: String,
    pub deleted: bool,
}

#[derive(Deserialize)]
struct Accounts {
    items: Vec<Account>,
}

/// A new version of a toolkit, as the simulator's control API tells it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub previous_version: String,
    pub version: String,
    /// Tools that have a new required input.
    pub broken: Vec<String>,
}

impl Stage {
    /// Starts everything and returns when the operator is ready.
    pub async fn set(programs: &Programs, binaries: Binaries) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .build()?;
        let options = Options {
            binaries: Some(binaries),
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await?;
        installation::apply_crds(&plane).await?;
        let release = installation::Release {
            name: RELEASE,
            namespace: NAMESPACE,
            watch_namespaces: &[],
        };
        let kubeconfig = installation::grant(&plane, release).await?;
        plane.kubectl_apply(&api_key_secret()).await?.ok()?;

        let (simulator, composio) = start_simulator(programs, &plane).await?;
        let operator = start_operator(programs, &plane, &kubeconfig, &composio)?;
        let stage = Self {
            operator,
            simulator,
            composio,
            plane,
            http,
        };
        if let Err(error) = stage.operator_is_ready().await {
            bail!("{error:#}\n{}", stage.last_words());
        }
        Ok(stage)
    }

    /// A program against the control plane, as the administrator, whose standard output goes to a file of its own.
    pub fn kubectl(&self, name: &str, args: &[&str]) -> Result<(Supervised, PathBuf)> {
        let output = self.plane.directory().join(format!("{name}.out"));
        let program = Program::new(self.plane.binaries().path(Tool::Kubectl)?, self.log(name))
            .args(args)
            .env("KUBECONFIG", self.plane.kubeconfig_path())
            .env("KUBERC", "off")
            .env("KUBECACHEDIR", self.plane.directory().join("caches/kubectl"))
            .stdout(&output);
        Ok((Supervised::spawn(&program)?, output))
    }

    /// The search path that leads to the programs in use.
    pub fn path(&self) -> Result<OsString> {
        Ok(std::env::join_paths(self.plane.binaries().directories())?)
    }

    /// The accounts that were ever made for a user, deleted ones included.
    pub async fn accounts(&self, user: &str) -> Result<Vec<Account>> {
        let url = format!("{}/_sim/accounts?userId={user}", self.composio);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        let accounts: Accounts = answer
            .json()
            .await
            .context("the simulator's answer cannot be read")?;
        Ok(accounts.items)
    }

    /// Has Composio release a new version of a toolkit. `changes` are the numbers of the simulator's control API.
    pub async fn release(&self, toolkit: &str, changes: &Value) -> Result<Release> {
        let url = format!("{}/_sim/toolkits/{toolkit}/release", self.composio);
        let answer = self.http.post(url).json(changes).send().await?;
        answer
            .error_for_status()?
            .json()
            .await
            .context("the simulator's answer cannot be read")
    }

    /// Runs kubectl in the namespace of the story, and returns what it prints.
    pub async fn kubectl_here(&self, args: &[&str]) -> Result<String> {
        let namespace = ["--namespace", TENANT];
        self.plane.kubectl(args.iter().chain(&namespace)).await?.ok()
    }

    /// Applies a file, named from the root of the workspace, and returns what kubectl says.
    pub async fn apply(&self, file: &str) -> Result<String> {
        let filename = format!("--filename={}", workspace::root().join(file).display());
        self.kubectl_here(&["apply", &filename]).await
    }

    /// The operator's process number, for whoever wants to kill it.
    pub fn operator_pid(&self) -> u32 {
        self.operator.pid()
    }

    /// Waits until a part ends unasked, and tells how.
    pub async fn failure(&self) -> String {
        tokio::select! {
            exit = self.operator.wait() => self.operator.obituary(exit),
            exit = self.simulator.wait() => self.simulator.obituary(exit),
            failure = self.plane.failure() => failure,
        }
    }

    /// The ends of the logs of operator and simulator.
    pub fn last_words(&self) -> String {
        let tail = |process: &Supervised| {
            format!(
                "The end of the log of {}:\n{}\n",
                process.name(),
                process.log_tail(LAST_LINES)
            )
        };
        format!("{}\n{}", tail(&self.operator), tail(&self.simulator))
    }

    fn log(&self, name: &str) -> PathBuf {
        log(&self.plane, name)
    }

    /// Waits until the operator calls itself ready: the CRDs are served, the Lease is held, every watch has its list.
    async fn operator_is_ready(&self) -> Result<()> {
        let is_announcement = |line: &str| announced_address(line).is_some();
        let line = self.operator.wait_for_line(PATIENCE, is_announcement).await?;
        let address = announced_address(&line).unwrap_or_default();
        let url = format!("http://{address}/readyz");
        let mut objection = "it does not answer".to_owned();
        let ready = async {
            loop {
                if let Ok(answer) = self.http.get(&url).send().await {
                    if answer.status().is_success() {
                        return;
                    }
                    objection = answer.text().await.unwrap_or_default();
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let ended = tokio::select! {
            ready = tokio::time::timeout(PATIENCE, ready) => ready.is_err(),
            exit = self.operator.wait() => bail!("{}", self.operator.obituary(exit)),
        };
        if ended {
            bail!(
                "the operator is not ready after {} s: {}",
                PATIENCE.as_secs(),
                objection.trim()
            );
        }
        Ok(())
    }
}

/// Logs lie beside those of the control plane.
fn log(plane: &ControlPlane, name: &str) -> PathBuf {
    plane.logs_directory().join(format!("{name}.log"))
}

async fn start_simulator(programs: &Programs, plane: &ControlPlane) -> Result<(Supervised, String)> {
    let url = plane.directory().join("composio-sim.out");
    // The key in the environment, because arguments can be read by everybody on the machine.
    let program = Program::new(programs.path("composio-sim")?, log(plane, "composio-sim"))
        .args(["--listen", "127.0.0.1:0"])
        .env("COMPOSIO_SIM_API_KEY", API_KEY)
        .stdout(url);
    let simulator = Supervised::spawn(&program)?;
    let url = simulator
        .wait_for_line(PATIENCE, |line| line.starts_with("http"))
        .await?;
    Ok((simulator, url.trim_end_matches('/').to_owned()))
}

/// The operator with the settings of the chart's Deployment, but for the addresses.
fn start_operator(
    programs: &Programs,
    plane: &ControlPlane,
    kubeconfig: &std::path::Path,
    composio: &str,
) -> Result<Supervised> {
    let mut program = Program::new(
        programs.path("composio-operator")?,
        log(plane, "composio-operator"),
    )
    .args(["run", "--http-listen", "127.0.0.1:0", "--log-format", "text"])
    .args(["--leader-elect", "--lease-name", RELEASE])
    .args(["--lease-namespace", NAMESPACE, "--instance", "demo"])
    .env("KUBECONFIG", kubeconfig)
    .env("COMPOSIO_BASE_URL", composio)
    .env("COMPOSIO_API_KEY", API_KEY)
    .env("SHARED_KEY_NAMESPACES", "*");
    for (name, value) in DIRECT {
        program = program.env(name, value);
    }
    Supervised::spawn(&program)
}

/// The Secret the chart's Deployment takes the operator's own key from.
fn api_key_secret() -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "composio", "namespace": NAMESPACE},
        "stringData": {"apiKey": API_KEY},
    })
    .to_string()
}

/// The address of probes and metrics in the line with which the operator starts.
fn announced_address(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("http="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_first_line_of_the_log() {
        let line = r#"2026-01-01T00:00:00Z  INFO composio_operator::operator: composio-operator starts version="0.1.0" http=127.0.0.1:4711 composio="http://127.0.0.1:1""#;
        assert_eq!(announced_address(line), Some("127.0.0.1:4711"));
        assert_eq!(announced_address("composio=http://127.0.0.1:1"), None);
    }
}
