//! Builds the pinned programs with Go into the cache: each once, however many processes ask, and never half.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::binaries::Sources;
use super::progress::{Activity, Progress};
use super::tools::{Module, Tool, parse_go_version, platform, required_go};

/// Lines of the compiler's output that a failure quotes.
const QUOTED_LINES: usize = 30;
/// How often progress is refreshed while Go is silent.
const REFRESH: Duration = Duration::from_secs(1);

/// Builds `tools` into the directory `cache`. Each program is compiled beside the cache and renamed into place, so that
/// whatever is in the cache is whole; a lock lets parallel processes build once.
pub fn build(sources: &Sources, cache: &Path, tools: &[Tool]) -> Result<()> {
    check_go(&sources.path)?;
    let name = cache
        .file_name()
        .map(OsStr::to_string_lossy)
        .context("the cache directory has no name")?;
    fs::create_dir_all(cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
    let _lock = lock(&sources.cache.join(format!("{name}.lock")))?;
    let building = format!("{name}.building-");
    remove_leftovers(&sources.cache, &building)?;

    let missing: Vec<Tool> = tools
        .iter()
        .copied()
        .filter(|tool| !cache.join(tool.name()).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!(
        "Building {} with Go into {}; this happens once, and takes some minutes.",
        if missing.len() == 1 {
            "one program"
        } else {
            "the control plane's programs"
        },
        cache.display()
    );
    let directory = tempfile::Builder::new()
        .prefix(&building)
        .tempdir_in(&sources.cache)
        .with_context(|| format!("cannot create a directory in {}", sources.cache.display()))?;
    for (number, &tool) in missing.iter().enumerate() {
        let mut progress = Progress::begin(number + 1, missing.len(), tool.name());
        let built = compile(&sources.path, &directory, tool, &mut progress);
        progress.end(built.is_ok());
        built.with_context(|| format!("building {} failed", tool.name()))?;
        fs::rename(directory.path().join(tool.name()), cache.join(tool.name()))
            .with_context(|| format!("cannot move {} into {}", tool.name(), cache.display()))?;
    }
    Ok(())
}

/// A `go` command that neither looks for another Go nor changes the pinned modules, whatever the user's own settings.
fn go(path: &OsStr) -> Command {
    let mut command = Command::new("go");
    let (os, arch) = platform();
    command
        .env("PATH", path)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .env("GO111MODULE", "on")
        .env("CGO_ENABLED", "0")
        .env("GOOS", os)
        .env("GOARCH", arch)
        .stdin(Stdio::null());
    command
}

/// Fails with directions unless a Go that is new enough is in the search path.
fn check_go(path: &OsStr) -> Result<()> {
    let (major, minor) = required_go()?;
    let remedy = format!(
        "install Go {major}.{minor} or newer (https://go.dev/dl/) and put it in PATH, or set KUBEBUILDER_ASSETS to a directory \
         that holds the programs"
    );
    let output = match go(path).args(["env", "GOVERSION"]).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("Go is not installed: {remedy}"),
        Err(error) => return Err(error).context(format!("Go does not run: {remedy}")),
    };
    let version = String::from_utf8_lossy(&output.stdout);
    let version = version.trim();
    match parse_go_version(version) {
        Some(found) if found >= (major, minor) => Ok(()),
        Some(_) => bail!("{version} is too old: {remedy}"),
        None if output.status.success() && version.starts_with("devel") => Ok(()),
        None => bail!(
            "Go does not tell its version ({}): {remedy}",
            String::from_utf8_lossy(&output.stderr)
                .lines()
                .last()
                .unwrap_or(version)
        ),
    }
}

/// Takes the lock, telling the user if it is another process that makes them wait. Dropping the file releases it.
fn lock(file: &Path) -> Result<File> {
    let problem = || format!("cannot lock {}", file.display());
    let lock = File::options()
        .create(true)
        .append(true)
        .open(file)
        .with_context(problem)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("Another process builds the control plane's programs; waiting for it.");
            lock.lock().with_context(problem)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(problem),
    }
    Ok(lock)
}

/// Removes what killed builds left. The caller holds the lock, so no directory of that name is in use.
fn remove_leftovers(cache: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Compiles one tool into `directory`, in a copy of its module there.
fn compile(path: &OsStr, directory: &TempDir, tool: Tool, progress: &mut Progress) -> Result<()> {
    let module = directory.path().join(match tool.module() {
        Module::ControlPlane => "control-plane.module",
        Module::Helm => "helm.module",
    });
    fs::create_dir_all(&module)?;
    fs::write(module.join("go.mod"), tool.module().go_mod())?;
    fs::write(module.join("go.sum"), tool.module().go_sum())?;

    let mut compiler = go(path)
        .current_dir(&module)
        .args([
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &tool.linker_flags()?,
            "-o",
        ])
        .arg(directory.path().join(tool.name()))
        .arg(tool.package())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go build")?;
    let stderr = compiler.stderr.take().context("go build has no standard error")?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut activity = Activity::default();
    let mut complaints = Vec::new();
    loop {
        match lines.recv_timeout(REFRESH) {
            Ok(line) if !activity.note(&line) => complaints.push(line),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.update(&activity);
    }
    let _ = reader.join();
    let status = compiler.wait().context("cannot wait for go build")?;
    if !status.success() {
        let tail = complaints[complaints.len().saturating_sub(QUOTED_LINES)..].join("\n");
        bail!("go build ended with {status}:\n{tail}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A machine whose `go` is a shell script: it answers `go env GOVERSION` and leaves `go build` to `build`, which
    /// finds the output file in `$output`.
    fn machine(version: &str, build: &str) -> (TempDir, Sources, PathBuf) {
        let root = TempDir::new().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = env ]; then echo {version}; exit; fi\n\
             while [ \"$1\" != -o ]; do shift; done; output=$2 package=$3\n{build}\n"
        );
        // A program may not be run while anybody has it open for writing, and a child forked by another test at the
        // wrong moment would: so let a child write it.
        let written = Command::new("/bin/sh")
            .args([
                "-c",
                "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"",
                "sh",
                &script,
            ])
            .arg(bin.join("go"))
            .status()
            .unwrap();
        assert!(written.success());
        let mut path = bin.into_os_string();
        path.push(":/usr/bin:/bin");
        let sources = Sources {
            assets: None,
            cache: root.path().join("cache"),
            path,
        };
        let cache = sources.cache.join("key");
        (root, sources, cache)
    }

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn builds_what_is_missing_and_nothing_twice() {
        let (root, sources, cache) = machine(
            "go1.99.0",
            "echo \"$package\" >> \"$(dirname \"$0\")/calls\"; echo program > \"$output\"",
        );
        build(&sources, &cache, &[Tool::Etcd]).unwrap();
        build(&sources, &cache, &[Tool::Etcd, Tool::Helm]).unwrap();
        assert_eq!(entries(&cache), ["etcd", "helm"]);
        assert_eq!(
            entries(&sources.cache),
            ["key", "key.lock"],
            "the building directory is gone"
        );
        let calls = fs::read_to_string(root.path().join("bin/calls")).unwrap();
        assert_eq!(
            calls.lines().collect::<Vec<_>>(),
            [Tool::Etcd.package(), Tool::Helm.package()]
        );
    }

    #[test]
    fn parallel_callers_build_once() {
        let (root, sources, cache) = machine(
            "go1.99.0",
            "echo call >> \"$(dirname \"$0\")/calls\"; echo program > \"$output\"",
        );
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| build(&sources, &cache, &[Tool::Etcd]).unwrap());
            }
        });
        assert_eq!(
            fs::read_to_string(root.path().join("bin/calls")).unwrap(),
            "call\n"
        );
    }

    #[test]
    fn a_failed_build_quotes_the_compiler_and_leaves_nothing_half() {
        let (_root, sources, cache) = machine(
            "go1.99.0",
            "echo half > \"$output\"; echo k8s.io/api >&2; echo 'x.go:1:2: undefined: y' >&2; exit 1",
        );
        let error = format!("{:#}", build(&sources, &cache, &[Tool::Kubectl]).unwrap_err());
        assert!(
            error.starts_with("building kubectl failed: go build ended with exit status: 1:\n"),
            "{error}"
        );
        assert!(error.ends_with(":\nx.go:1:2: undefined: y"), "{error}");
        assert!(entries(&cache).is_empty());
        assert_eq!(entries(&sources.cache), ["key", "key.lock"]);
    }

    #[test]
    fn leftovers_of_a_killed_build_go() {
        let (_root, sources, cache) = machine("go1.99.0", "echo program > \"$output\"");
        fs::create_dir_all(sources.cache.join("key.building-dead/control-plane.module")).unwrap();
        fs::create_dir_all(sources.cache.join("other.building-alive")).unwrap();
        build(&sources, &cache, &[Tool::Etcd]).unwrap();
        assert_eq!(
            entries(&sources.cache),
            ["key", "key.lock", "other.building-alive"]
        );
    }

    #[test]
    fn an_old_go_is_refused_with_directions() {
        let (_root, sources, cache) = machine("go1.19.4", "exit 1");
        let error = build(&sources, &cache, &[Tool::Etcd]).unwrap_err().to_string();
        assert!(error.starts_with("go1.19.4 is too old: install Go "), "{error}");
    }
}
