//! Where the programs come from: the directory named by `KUBEBUILDER_ASSETS`, else a cache, else a build with Go.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::go_build;
use super::tools::{Tool, cache_key, platform};

/// What decides where programs are looked for. Taken from the environment once, so that tests can state their own.
#[derive(Clone, Debug)]
pub struct Sources {
    /// A directory with ready programs (`KUBEBUILDER_ASSETS`); what it lacks comes from the cache.
    pub assets: Option<PathBuf>,
    /// The directory that holds one cache directory per [`cache_key`].
    pub cache: PathBuf,
    /// The search path (`PATH`) in which Go is found.
    pub path: OsString,
}

impl Sources {
    /// Reads `KUBEBUILDER_ASSETS`, `XDG_CACHE_HOME`, `HOME` and `PATH`.
    pub fn from_env() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let caches = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // The XDG Base Directory Specification has relative paths ignored.
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
            .context("no place for the cache of control-plane programs: set HOME or XDG_CACHE_HOME")?;
        Ok(Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            cache: caches.join("composio-operator/control-plane"),
            path: env::var_os("PATH").unwrap_or_default(),
        })
    }

    /// The cache directory for this machine and the pinned versions. It may not exist yet.
    pub fn cache_directory(&self) -> Result<PathBuf> {
        Ok(self.cache.join(cache_key(platform())?))
    }
}

/// Paths of programs that exist.
#[derive(Clone, Debug)]
pub struct Binaries {
    paths: BTreeMap<Tool, PathBuf>,
    directories: Vec<PathBuf>,
}

impl Binaries {
    /// Finds `tools`, building those that are found nowhere; a first build takes minutes and reports on standard error.
    /// Blocks, and may wait for another process that builds the same.
    ///
    /// Fails with directions if something has to be built and there is no usable Go.
    pub fn ensure(sources: &Sources, tools: &[Tool]) -> Result<Self> {
        let cache = sources.cache_directory()?;
        if let Some(assets) = &sources.assets
            && !assets.is_dir()
        {
            bail!(
                "KUBEBUILDER_ASSETS names {}, which is no directory; correct it or unset it",
                assets.display()
            );
        }
        let mut paths = BTreeMap::new();
        let mut missing = Vec::new();
        for &tool in tools {
            let places = sources.assets.iter().chain([&cache]);
            match places
                .map(|place| place.join(tool.name()))
                .find(|path| path.is_file())
            {
                Some(path) => drop(paths.insert(tool, path)),
                None => missing.push(tool),
            }
        }
        if !missing.is_empty() {
            go_build::build(sources, &cache, &missing).with_context(|| absence(sources, &missing))?;
            paths.extend(missing.into_iter().map(|tool| (tool, cache.join(tool.name()))));
        }
        let directories = sources.assets.iter().chain([&cache]);
        let used = |directory: &PathBuf| paths.values().any(|path| path.parent() == Some(directory));
        let directories = directories
            .filter(|&directory| used(directory))
            .cloned()
            .collect();
        Ok(Self { paths, directories })
    }

    /// The path of a tool that [`Binaries::ensure`] was asked for.
    pub fn path(&self, tool: Tool) -> Result<&Path> {
        let path = self.paths.get(&tool).map(PathBuf::as_path);
        path.with_context(|| format!("{} was not among the programs asked for", tool.name()))
    }

    /// The directories that hold the programs, in the order of preference, as a search path wants them.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

/// Says what is missing and where it was looked for.
fn absence(sources: &Sources, missing: &[Tool]) -> String {
    let names: Vec<&str> = missing.iter().map(|tool| tool.name()).collect();
    let places = match &sources.assets {
        Some(assets) => format!(
            "neither in KUBEBUILDER_ASSETS ({}) nor in the cache",
            assets.display()
        ),
        None => "not in the cache".to_owned(),
    };
    format!(
        "{} cannot be had: {places} ({}), and not built",
        names.join(", "),
        sources.cache.display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn sources(root: &TempDir) -> Sources {
        Sources {
            assets: None,
            cache: root.path().join("cache"),
            path: root.path().join("nowhere").into(),
        }
    }

    fn place(directory: &Path, tool: Tool) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(tool.name()), "").unwrap();
    }

    #[test]
    fn assets_come_before_the_cache_and_the_cache_fills_their_gaps() {
        let root = TempDir::new().unwrap();
        let assets = root.path().join("assets");
        let sources = Sources {
            assets: Some(assets.clone()),
            ..sources(&root)
        };
        let cache = sources.cache_directory().unwrap();
        place(&assets, Tool::Etcd);
        place(&cache, Tool::Etcd);
        place(&cache, Tool::Helm);
        let binaries = Binaries::ensure(&sources, &[Tool::Etcd, Tool::Helm]).unwrap();
        assert_eq!(binaries.path(Tool::Etcd).unwrap(), assets.join("etcd"));
        assert_eq!(binaries.path(Tool::Helm).unwrap(), cache.join("helm"));
        assert_eq!(binaries.directories(), [assets, cache]);
        assert!(binaries.path(Tool::Kubectl).is_err());
    }

    #[test]
    fn without_go_one_message_says_what_to_do() {
        let root = TempDir::new().unwrap();
        let error = format!(
            "{:#}",
            Binaries::ensure(&sources(&root), &[Tool::Etcd, Tool::Helm]).unwrap_err()
        );
        let (major, minor) = super::super::tools::required_go().unwrap();
        assert!(
            error.starts_with("etcd, helm cannot be had: not in the cache ("),
            "{error}"
        );
        assert!(error.contains(&format!("Go {major}.{minor} or newer")), "{error}");
        assert!(
            error.contains("https://go.dev/dl/") && error.contains("KUBEBUILDER_ASSETS"),
            "{error}"
        );
    }

    #[test]
    fn incomplete_assets_are_named() {
        let root = TempDir::new().unwrap();
        let assets = root.path().join("assets");
        place(&assets, Tool::Etcd);
        let sources = Sources {
            assets: Some(assets),
            ..sources(&root)
        };
        let error = format!(
            "{:#}",
            Binaries::ensure(&sources, &[Tool::Etcd, Tool::KubeControllerManager]).unwrap_err()
        );
        assert!(
            error.starts_with("kube-controller-manager cannot be had: neither in KUBEBUILDER_ASSETS"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_assets_directory_is_an_error() {
        let root = TempDir::new().unwrap();
        let sources = Sources {
            assets: Some(root.path().join("typo")),
            ..sources(&root)
        };
        let error = Binaries::ensure(&sources, &[Tool::Etcd]).unwrap_err().to_string();
        assert!(
            error.starts_with("KUBEBUILDER_ASSETS names ") && error.contains("typo"),
            "{error}"
        );
    }
}
