//! The checkout this crate was built from, and cargo in it.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The folder with the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// cargo, the one that runs us if there is one, in the workspace's folder.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The programs of the workspace, built.
pub struct Programs {
    executables: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Builds the operator and the simulator, with cargo's own progress on standard error. Always both: cargo settles
    /// the features of shared dependencies per build, and the next command should find everything compiled.
    pub fn build() -> Result<Self> {
        let output = cargo()
            .args(["build", "--package=composio-operator", "--package=composio-sim"])
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo build failed");
        }
        Ok(Self {
            executables: executables(&String::from_utf8_lossy(&output.stdout)),
        })
    }

    /// The path of a program, such as `composio-operator`.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let path = self.executables.get(name).map(PathBuf::as_path);
        path.with_context(|| format!("cargo built no program {name}"))
    }
}

/// What cargo reports about each thing it built: <https://doc.rust-lang.org/cargo/reference/external-tools.html>.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let artifacts = messages
        .lines()
        // Other messages have another shape.
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    artifacts
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
{"reason":"build-script-executed","package_id":"x"}
{"reason":"compiler-artifact","target":{"name":"composio-sim"},"executable":"/t/debug/composio-sim"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(
            found,
            BTreeMap::from([("composio-sim".into(), "/t/debug/composio-sim".into())])
        );
    }

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
