//! `cargo xtask test`: all tests of the workspace, as they are run before a merge.

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result};
use testing::control_plane::binaries::{Binaries, Sources};
use testing::control_plane::tools::Tool;
use testing::workspace;

/// Tests that wait for other processes leave the processor to each other: more of them than cores is faster.
const THREADS: &str = "6";

/// What to hand on to cargo.
#[derive(clap::Args)]
pub struct Args {
    /// More arguments for cargo test, such as a part of a test's name, or `--test e2e`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Builds everything first, so that no test pays for it, and then runs the tests. The last lines are cargo's own, and so is
/// the exit code. Not an error like those of other commands: cargo has said what failed.
pub fn run(args: &Args) -> ExitCode {
    match prepare(args).and_then(|()| execute(&args.arguments)) {
        // No code: a signal ended it.
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(args: &Args) -> Result<()> {
    let started = Instant::now();
    Binaries::ensure(&Sources::from_env()?, &Tool::ALL)?;
    report("programs of the control plane", started);

    let started = Instant::now();
    // What follows `--` is for the test programs.
    let for_cargo = args.arguments.split(|argument| argument == "--").next();
    let built = cargo_test(for_cargo.unwrap_or_default())
        .arg("--no-run")
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(built.success(), "the tests do not build");
    report("build", started);
    Ok(())
}

fn execute(arguments: &[OsString]) -> Result<ExitStatus> {
    cargo_test(arguments).status().context("cannot run cargo")
}

fn cargo_test(arguments: &[OsString]) -> Command {
    let mut command = workspace::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments);
    // A panic names its line; the frames below it are those of the async runtime.
    for (name, default) in [("RUST_BACKTRACE", "0"), ("RUST_TEST_THREADS", THREADS)] {
        if env::var_os(name).is_none() {
            command.env(name, default);
        }
    }
    command
}

fn report(phase: &str, started: Instant) {
    eprintln!("{phase}: {:.1} s", started.elapsed().as_secs_f64());
}
