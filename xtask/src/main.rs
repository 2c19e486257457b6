//! `cargo xtask`: the developer's commands. Progress and hints go to standard error, results to standard output.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of composio-operator.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the operator against a real control plane and a simulated Composio, and print what was found.
    Bench(commands::bench::Args),
    /// Start a control plane, print the path of its kubeconfig, and run until stopped (Ctrl-C or SIGTERM).
    Cluster,
    /// Prepare the programs of the control plane (etcd, kube-apiserver, kubectl, helm, ...).
    #[command(subcommand)]
    ControlPlane(commands::control_plane::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => commands::bench::run(args).await,
        Command::Cluster => commands::cluster::run().await,
        Command::ControlPlane(command) => commands::control_plane::run(&command),
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
