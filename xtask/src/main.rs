//! `cargo xtask`: the developer's commands. Progress and hints go to standard error, results to standard output.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of composio-operator.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo --manual                 be the person who connects, in your own browser
  cargo xtask test --test e2e lifecycle     one part of the end-to-end tests
  cargo xtask cluster                       a control plane to play with; prints its kubeconfig
  cargo xtask crds --check                  are the committed CRDs what the types say?
  cargo xtask bench --quick                 figures in a few minutes

The control plane's programs are built with Go once and cached; Rust and a C compiler are needed, no container runtime.";

#[derive(Subcommand)]
enum Command {
    /// Measure the operator against a real control plane and a simulated Composio, and print a table (minutes; --quick for a
    /// short one).
    Bench(commands::bench::Args),
    /// Start a control plane, print the path of its kubeconfig, and run until stopped (Ctrl-C or SIGTERM).
    Cluster,
    /// Prepare the programs of the control plane (etcd, kube-apiserver, kubectl, helm, ...).
    #[command(subcommand)]
    ControlPlane(commands::control_plane::Command),
    /// Write the CRDs in crds/ and the chart's copy of them.
    Crds(commands::crds::Args),
    /// See it work: a control plane, a simulated Composio, the operator, and a person who connects an account (a minute).
    Demo(commands::demo::Args),
    /// Run all tests, or those that cargo test's arguments select (minutes; the first time builds the control plane).
    Test(commands::test::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => commands::bench::run(args).await,
        Command::Cluster => commands::cluster::run().await,
        Command::ControlPlane(command) => commands::control_plane::run(&command),
        Command::Crds(args) => commands::crds::run(&args),
        Command::Demo(args) => commands::demo::run(&args).await,
        Command::Test(args) => return commands::test::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Not returned from main, which would print a backtrace that buries the message.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
