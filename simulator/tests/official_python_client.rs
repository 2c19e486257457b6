//! Composio's official Python client works against the simulator unchanged.
//!
//! Installs the pinned versions of `requirements.txt` once, from the Python package index, into the target folder.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use program::{Program, command};

const REQUIREMENTS: &str = include_str!("requirements.txt");

/// A Python that can import the client.
struct Python {
    interpreter: PathBuf,
    /// Where packages are, if the interpreter does not find them by itself.
    packages: Option<PathBuf>,
}

impl Python {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        // The user's own packages must not shadow the pinned ones.
        command.env("PYTHONNOUSERSITE", "1").env_remove("PYTHONPATH");
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        command
    }

    fn imports_the_client(&self) -> bool {
        self.command()
            .args(["-c", "import composio_client"])
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

/// Makes the environment, or finds it made for the same requirements. Other test processes wait meanwhile.
fn python() -> Python {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("official-python-client");
    fs::create_dir_all(&root).unwrap();
    let lock = File::create(root.join("lock")).unwrap();
    lock.lock().unwrap();
    let environment = root.join("environment");
    let stamp = root.join("stamp");
    let ways = [
        Python {
            interpreter: environment.join("bin/python"),
            packages: None,
        },
        Python {
            interpreter: PathBuf::from("python3"),
            packages: Some(environment.join("packages")),
        },
    ];
    if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == REQUIREMENTS)
        && let Some(python) = ways.into_iter().find(Python::imports_the_client)
    {
        return python;
    }
    // Missing at the first run.
    let _ = fs::remove_file(&stamp);
    let python = install(&environment);
    fs::write(&stamp, REQUIREMENTS).unwrap();
    python
}

/// Tries `venv`, then `virtualenv` (Debian ships a `venv` that cannot install pip), then pip alone.
fn install(environment: &Path) -> Python {
    let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requirements.txt");
    let packages = environment.join("packages");
    let interpreter = environment.join("bin/python");
    let mut complaints = Vec::new();
    for module in ["venv", "virtualenv"] {
        let _ = fs::remove_dir_all(environment);
        let made = run(Command::new("python3").args(["-m", module]).arg(environment)).and_then(|()| {
            run(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "-r", requirements]))
        });
        match made {
            Ok(()) => {
                return Python {
                    interpreter,
                    packages: None,
                };
            }
            Err(complaint) => complaints.push(complaint),
        }
    }
    let _ = fs::remove_dir_all(environment);
    let pip = ["-m", "pip", "install", "--quiet", "-r", requirements, "--target"];
    match run(Command::new("python3").args(pip).arg(&packages)) {
        Ok(()) => {
            return Python {
                interpreter: PathBuf::from("python3"),
                packages: Some(packages),
            };
        }
        Err(complaint) => complaints.push(complaint),
    }
    panic!(
        "Composio's Python client cannot be installed. This test needs python3 (3.10 or newer) with venv, virtualenv \
         or pip (on Debian: apt-get install python3-venv), and PyPI within reach. What was tried:\n{}",
        complaints.join("\n")
    );
}

fn run(command: &mut Command) -> Result<(), String> {
    command
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_NO_INPUT", "1");
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!(
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said).trim()
    ))
}

#[test]
fn the_official_python_client_works_unchanged() {
    let python = python();
    let program = Program::start(&mut command());
    let output = python
        .command()
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_client.py"))
        .args([program.url.as_str(), composio_sim::DEFAULT_API_KEY])
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
