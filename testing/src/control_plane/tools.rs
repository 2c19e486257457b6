//! The pinned programs: which there are, which module builds each, and the key under which they are cached.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Raise it when the way of building changes in a manner that the hashed inputs of [`cache_key`] do not show.
const RECIPE: &str = "1";
/// Without symbol table and debug information the programs are a third smaller; nobody debugs them here.
const STRIP: &str = "-s -w";

/// A Go module of pinned `tool` directives, without Go source of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// etcd and the programs of Kubernetes.
    ControlPlane,
    /// Helm, whose dependencies contradict those of Kubernetes.
    Helm,
}

impl Module {
    /// All modules.
    pub const ALL: [Self; 2] = [Self::ControlPlane, Self::Helm];

    /// The text of its `go.mod`.
    pub fn go_mod(self) -> &'static str {
        match self {
            Self::ControlPlane => include_str!("../../control-plane/go.mod"),
            Self::Helm => include_str!("../../control-plane/helm/go.mod"),
        }
    }

    /// The text of its `go.sum`.
    pub fn go_sum(self) -> &'static str {
        match self {
            Self::ControlPlane => include_str!("../../control-plane/go.sum"),
            Self::Helm => include_str!("../../control-plane/helm/go.sum"),
        }
    }
}

/// A program of the control plane, or one that talks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The store behind the API server.
    Etcd,
    /// The Kubernetes API server.
    KubeApiserver,
    /// The controllers behind service accounts, namespaces and garbage collection.
    KubeControllerManager,
    /// The Kubernetes command line client.
    Kubectl,
    /// The package manager that installs charts.
    Helm,
}

impl Tool {
    /// All tools, in the order in which they are built: what a control plane cannot do without comes first.
    pub const ALL: [Self; 5] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
        Self::Helm,
    ];

    /// The name of the program, which is also its file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
        }
    }

    /// The module that pins it.
    pub fn module(self) -> Module {
        match self {
            Self::Etcd | Self::KubeApiserver | Self::KubeControllerManager | Self::Kubectl => {
                Module::ControlPlane
            }
            Self::Helm => Module::Helm,
        }
    }

    /// Its Go package.
    pub fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Helm => "helm.sh/helm/v4/cmd/helm",
        }
    }

    /// The linker flags that tell the program its version. Without them Kubernetes calls itself v0.0.0, which fails the
    /// `kubeVersion` checks of Helm charts.
    pub fn linker_flags(self) -> Result<String> {
        let version = |path| required_version(self.module().go_mod(), path);
        let stamp = match self {
            Self::Etcd => String::new(),
            Self::KubeApiserver | Self::KubeControllerManager | Self::Kubectl => {
                let version = version("k8s.io/kubernetes")?;
                let mut numbers = version.trim_start_matches('v').split('.');
                let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
                    bail!("the version {version} of k8s.io/kubernetes in go.mod has no minor number");
                };
                let variable = "k8s.io/component-base/version";
                format!(
                    " -X {variable}.gitVersion={version} -X {variable}.gitMajor={major} -X {variable}.gitMinor={minor}"
                )
            }
            Self::Helm => {
                format!(
                    " -X helm.sh/helm/v4/internal/version.version={}",
                    version("helm.sh/helm/v4")?
                )
            }
        };
        Ok(format!("{STRIP}{stamp}"))
    }
}

/// The pinned version of Kubernetes, such as `v1.36.3`.
pub fn kubernetes_version() -> Result<&'static str> {
    required_version(Module::ControlPlane.go_mod(), "k8s.io/kubernetes")
}

/// The oldest Go that builds all modules, as (major, minor).
pub fn required_go() -> Result<(u32, u32)> {
    let versions = Module::ALL.map(|module| {
        let line = module.go_mod().lines().find_map(|line| line.strip_prefix("go "));
        line.and_then(parse_go_version)
            .context("a pinned go.mod has no go line")
    });
    versions
        .into_iter()
        .try_fold((0, 0), |newest, version| Ok(newest.max(version?)))
}

/// Reads `1.26.0` or `go1.26.8` as (1, 26).
pub fn parse_go_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version
        .trim()
        .trim_start_matches("go")
        .split(['.', 'r', 'b', '-', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The version of `module` that a `go.mod` requires.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Result<&'a str> {
    go_mod
        .lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .find_map(|line| line.strip_prefix(module)?.strip_prefix(' ')?.split(' ').next())
        .filter(|version| version.starts_with('v'))
        .with_context(|| format!("go.mod does not require {module}"))
}

/// This machine as Go names it: (`GOOS`, `GOARCH`).
pub fn platform() -> (&'static str, &'static str) {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    (os, arch)
}

/// The name of the cache directory: a hash over everything that decides what the programs are.
pub fn cache_key((os, arch): (&str, &str)) -> Result<String> {
    let mut inputs = vec![RECIPE.to_owned(), os.to_owned(), arch.to_owned()];
    for module in Module::ALL {
        inputs.extend([module.go_mod().to_owned(), module.go_sum().to_owned()]);
    }
    for tool in Tool::ALL {
        inputs.extend([
            tool.name().to_owned(),
            tool.package().to_owned(),
            tool.linker_flags()?,
        ]);
    }
    Ok(hash(&inputs))
}

/// The first 64 bits, in hex, of a SHA-256 over the inputs, each preceded by its length so that none can flow into the
/// next. Short, because it is part of paths that people read.
fn hash(inputs: &[String]) -> String {
    let mut hasher = Sha256::new();
    for input in inputs {
        hasher.update((input.len() as u64).to_be_bytes());
        hasher.update(input);
    }
    hasher.finalize()[..8]
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_pinned_by_its_module() {
        for tool in Tool::ALL {
            // Alone, or one of a block.
            let package = tool.package();
            let lines = [format!("tool {package}"), format!("\t{package}")];
            assert!(
                tool.module()
                    .go_mod()
                    .lines()
                    .any(|line| lines.iter().any(|one| one == line)),
                "{} has no tool directive",
                tool.name()
            );
            tool.linker_flags().unwrap();
        }
    }

    #[test]
    fn kubernetes_learns_its_version() {
        let flags = Tool::KubeApiserver.linker_flags().unwrap();
        let version = kubernetes_version().unwrap();
        assert!(
            flags.contains(&format!("version.gitVersion={version} ")),
            "{flags}"
        );
        let minor = version.split('.').nth(1).unwrap();
        assert!(flags.ends_with(&format!("version.gitMinor={minor}")), "{flags}");
    }

    #[test]
    fn versions_are_read_from_go_mod() {
        let go_mod = "module x\n\ngo 1.26.0\n\nrequire (\n\ta.b/c v1.2.3 // indirect\n\ta.b/c/d v2.0.0\n)\nrequire e.f/g v0.1.0\n\
            replace (\n\th.i/j => h.i/j v9.0.0\n)\n";
        assert_eq!(required_version(go_mod, "a.b/c").unwrap(), "v1.2.3");
        assert_eq!(required_version(go_mod, "a.b/c/d").unwrap(), "v2.0.0");
        assert_eq!(required_version(go_mod, "e.f/g").unwrap(), "v0.1.0");
        assert!(
            required_version(go_mod, "h.i/j").is_err(),
            "a replacement is no requirement"
        );
    }

    #[test]
    fn go_versions_compare_by_number() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("1.9"), Some((1, 9)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_go_version("go1.26.8 X:nodwarf5"), Some((1, 26)));
        assert_eq!(parse_go_version("devel"), None);
        assert!(required_go().unwrap() >= (1, 26));
    }

    #[test]
    fn the_cache_key_depends_on_the_platform_and_is_stable() {
        let key = cache_key(("linux", "amd64")).unwrap();
        assert_eq!(key, cache_key(("linux", "amd64")).unwrap());
        assert_eq!(key.len(), 16);
        assert!(key.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(key, cache_key(("linux", "arm64")).unwrap());
        assert_ne!(key, cache_key(("darwin", "amd64")).unwrap());
    }

    #[test]
    fn the_hash_sees_every_input_and_its_borders() {
        let hash =
            |inputs: &[&str]| super::hash(&inputs.iter().map(|&input| input.to_owned()).collect::<Vec<_>>());
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
    }
}
