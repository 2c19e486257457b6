//! The operator as a child process: built, started, and watched from outside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use testing::supervised::{Program, Signal, Supervised};
use tokio::time::Instant;

use super::exposition;
use super::machine::{field, kibibytes};

const NAME: &str = "composio-operator";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// Lines of its log that an error quotes.
const QUOTED_LINES: usize = 20;
const READY_INTERVAL: Duration = Duration::from_millis(10);
/// Kernel ticks of process times. Linux fixed the unit it tells them in long ago, whatever its own timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Builds the operator and returns the path of the program.
pub fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    build_program(root, NAME, profile)
}

/// Builds the program of that name with cargo and returns its path. Cargo's own progress goes to standard error.
pub fn build_program(root: &Path, name: &str, profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--package", name, "--bin", name, "--profile", profile])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo could not build {name}");
    }
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo did not say where it put the program")
}

/// The program that cargo's messages name last.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// How the operator is started; reusable, because one of the figures is about a restart.
pub struct Launch {
    /// The program.
    pub path: PathBuf,
    /// As whom it talks to the API server.
    pub kubeconfig: PathBuf,
    /// Where Composio is.
    pub composio: String,
    /// The key for it.
    pub api_key: String,
    /// Where logs go; it ends with the benchmark.
    pub directory: TempDir,
}

impl Launch {
    /// Starts it, with default settings but for its address. `number` tells the logs apart.
    pub async fn start(&self, number: usize) -> Result<Operator> {
        let log = self.directory.path().join(format!("operator-{number}.log"));
        let program = Program::new(&self.path, log)
            .remove_if_abandoned(&self.directory)
            .args(["run", "--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("COMPOSIO_BASE_URL", &self.composio)
            .env("COMPOSIO_API_KEY", &self.api_key)
            .env("SHARED_KEY_NAMESPACES", "*");
        let started = Instant::now();
        let process = Supervised::spawn(&program)?;
        let line = process
            .wait_for_line(START_LIMIT, |line| http_address(line).is_some())
            .await?;
        let address = http_address(&line).context("the operator does not tell its address")?;
        let operator = Operator {
            process,
            started,
            url: format!("http://{address}"),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()?,
        };
        operator.become_ready().await?;
        Ok(operator)
    }
}

/// The address that a line of the operator's log tells.
fn http_address(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let address = entry["http"].as_str().or(entry["fields"]["http"].as_str())?;
    Some(address.to_owned())
}

/// A running operator.
pub struct Operator {
    process: Supervised,
    started: Instant,
    url: String,
    http: reqwest::Client,
}

impl Operator {
    /// When its process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Passes finished since the start, whatever their outcome.
    pub async fn passes(&self) -> Result<f64> {
        let answer = self
            .http
            .get(format!("{}/metrics", self.url))
            .send()
            .await?
            .error_for_status()?;
        let text = answer.text().await?;
        let passes = exposition::samples(&text, "composio_operator_reconcile_total");
        Ok(passes.map(|(_, count)| count).sum())
    }

    /// Resident memory now, in MiB.
    pub fn memory(&self) -> Result<f64> {
        self.status("VmRSS")
    }

    /// The most resident memory so far, in MiB.
    pub fn peak_memory(&self) -> Result<f64> {
        self.status("VmHWM")
    }

    /// Processor time used so far, of all threads, in seconds.
    pub fn processor_time(&self) -> Result<f64> {
        processor_time(&self.proc_file("stat")?).context("/proc/PID/stat has another form than expected")
    }

    /// Returns how the operator ended, when it ends by itself, with the end of its log.
    pub async fn ended(&self) -> String {
        let exit = self.process.wait().await;
        self.process.obituary(exit)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail(QUOTED_LINES)
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(self) -> Result<()> {
        self.process.signal(Signal::Terminate);
        let Ok(exit) = tokio::time::timeout(STOP_LIMIT, self.process.wait()).await else {
            bail!("the operator did not stop within {STOP_LIMIT:?}");
        };
        if !exit.success() {
            bail!("{}", self.process.obituary(exit));
        }
        Ok(())
    }

    async fn become_ready(&self) -> Result<()> {
        let ready = async {
            loop {
                let answer = self.http.get(format!("{}/readyz", self.url)).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(READY_INTERVAL).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            end = self.ended() => bail!("{end}"),
            () = tokio::time::sleep(START_LIMIT) => {
                bail!("the operator is not ready after {START_LIMIT:?}; the end of its log:\n{}", self.log_tail())
            }
        }
    }

    fn status(&self, name: &str) -> Result<f64> {
        let text = self.proc_file("status")?;
        let size = field(&text, name).and_then(kibibytes);
        Ok(size.with_context(|| format!("/proc/PID/status has no {name}"))? / 1024.0)
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.process.pid());
        std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {path}; the benchmark needs Linux"))
    }
}

/// User and system time out of `/proc/PID/stat`, in seconds.
fn processor_time(stat: &str) -> Option<f64> {
    // The name stands in brackets and may hold spaces and brackets; the state follows as field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/release/composio-operator"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            executable(messages),
            Some(PathBuf::from("/t/release/composio-operator"))
        );
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn the_address_is_read_from_either_form_of_the_log() {
        let flat = r#"{"level":"INFO","message":"starts","http":"127.0.0.1:1"}"#;
        let nested = r#"{"level":"INFO","fields":{"message":"starts","http":"127.0.0.1:1"}}"#;
        for line in [flat, nested] {
            assert_eq!(http_address(line).as_deref(), Some("127.0.0.1:1"));
        }
        assert_eq!(http_address("http"), None);
    }

    #[test]
    fn processor_time_is_the_fourteenth_and_fifteenth_field() {
        let stat = "42 (a ) name) S 1 42 42 0 -1 4194560 5000 0 0 0 150 50 7 8 20 0 5 0 100 1000 500";
        assert_eq!(processor_time(stat), Some(2.0));
        assert_eq!(processor_time("42 (name) S 1"), None);
    }
}
