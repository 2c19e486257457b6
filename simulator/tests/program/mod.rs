//! The simulator as a process, for tests of the program itself.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

/// A running `composio-sim`; killed when dropped.
pub struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The first line on stdout.
    pub url: String,
}

/// The program, without the settings in this process's environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_composio-sim"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COMPOSIO_SIM_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

impl Program {
    /// Starts it and reads its URL.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        stdout.read_line(&mut url).unwrap();
        Self {
            child,
            stdout,
            url: url.trim_end_matches('\n').to_owned(),
        }
    }

    /// Asks it to end as a terminal or a container runtime would. Returns what else it wrote to stdout, and how it
    /// ended.
    #[allow(dead_code, reason = "not every test that starts a program cares how it ends")]
    pub fn terminate(mut self, signal: &str) -> (String, ExitStatus) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
