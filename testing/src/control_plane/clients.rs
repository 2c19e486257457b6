//! kubectl and Helm against a control plane, kept apart from the user's own configuration.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command printed and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Output {
    /// The program and its subcommand; the other arguments may hold secrets.
    command: String,
    /// Whether it exited with code 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must succeed; else an error with its standard error.
    pub fn ok(self) -> Result<String> {
        if self.success {
            Ok(self.stdout)
        } else {
            bail!("{} failed: {}", self.command, self.stderr.trim())
        }
    }
}

/// kubectl or Helm with a kubeconfig.
pub struct Client<'a> {
    /// The program.
    pub program: &'a Path,
    /// As whom, and against which API server.
    pub kubeconfig: &'a Path,
    /// Where the program keeps its caches.
    pub caches: PathBuf,
}

impl Client<'_> {
    /// Runs the program to its end, with `input` as standard input. Fails only if it cannot be run at all. If the future
    /// is dropped, the program is killed.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: Option<&str>,
    ) -> Result<Output> {
        let args: Vec<A> = args.into_iter().collect();
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        let subcommand = args
            .first()
            .map(|arg| arg.as_ref().to_string_lossy())
            .unwrap_or_default();
        let command = format!("{name} {subcommand}");

        let mut child = Command::new(self.program);
        // The user's contexts, namespaces and credentials for Helm must not leak in.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HELM_") {
                child.env_remove(name);
            }
        }
        let mut child = child
            .args(&args)
            .env("KUBECONFIG", self.kubeconfig)
            .env("KUBECACHEDIR", self.caches.join("kubectl"))
            .env("KUBERC", "off")
            .env("HELM_CACHE_HOME", self.caches.join("helm"))
            .env("HELM_CONFIG_HOME", self.caches.join("helm-config"))
            .env("HELM_DATA_HOME", self.caches.join("helm-data"))
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program that refuses its arguments does not read on; its own message says more than a broken pipe.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output.with_context(|| format!("cannot run {command}"))?;
        Ok(Output {
            command,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    async fn shell(script: &str, input: Option<&str>) -> Output {
        let directory = TempDir::new().unwrap();
        let client = Client {
            program: Path::new("/bin/sh"),
            kubeconfig: Path::new("/tmp/kubeconfig"),
            caches: directory.path().into(),
        };
        client.run(["-c", script], input).await.unwrap()
    }

    #[tokio::test]
    async fn input_and_environment_reach_the_program() {
        let output = shell("cat; echo \"$KUBECONFIG $KUBERC\"", Some("text\n")).await;
        assert_eq!(output.ok().unwrap(), "text\n/tmp/kubeconfig off\n");
    }

    #[tokio::test]
    async fn a_failure_is_told_without_the_arguments() {
        let output = shell("echo forbidden >&2; exit 1 # --token=secret", Some("unread")).await;
        assert!(!output.success);
        assert_eq!(output.ok().unwrap_err().to_string(), "sh -c failed: forbidden");
    }
}
