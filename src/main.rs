//! The binary `composio-operator`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use composio_operator::api::custom_resource_definitions;
use composio_operator::settings::Settings;
use composio_operator::{operator, telemetry};

/// Kubernetes operator for Composio: connections, syncs, schedules and tool schemas as custom resources.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator. Reads `COMPOSIO_API_KEY`, and the cluster from KUBECONFIG or the Pod's service account.
    Run(Box<Settings>),
    /// Print the `CustomResourceDefinitions` as YAML, ready for kubectl apply.
    Crds {
        /// Write one file per resource into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        output: Option<std::path::PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(settings) => run(*settings),
        Command::Crds { output } => crds(output.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("composio-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    telemetry::logs::init(settings.log_format, &settings.log_filter)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(operator::run(settings))
}

fn crds(output: Option<&std::path::Path>) -> anyhow::Result<()> {
    for (file, crd) in custom_resource_definitions() {
        let yaml = serde_saphyr::to_string(&crd)?;
        match output {
            None => print!("---\n{yaml}"),
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                std::fs::write(folder.join(file), yaml)?;
            }
        }
    }
    Ok(())
}
