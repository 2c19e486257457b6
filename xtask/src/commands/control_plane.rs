//! `cargo xtask control-plane`: the programs, without starting them.

use anyhow::Result;
use clap::Subcommand;
use testing::control_plane::binaries::{Binaries, Sources};
use testing::control_plane::tools::Tool;

/// What to do with the programs.
#[derive(Subcommand)]
pub enum Command {
    /// Build what is missing, then print the directories that hold the programs.
    Build,
    /// Print the same as one search path, as in: PATH="$(cargo xtask control-plane path):$PATH"
    Path,
}

/// Runs the command. Either builds what is missing, so that what is printed holds true.
pub fn run(command: &Command) -> Result<()> {
    let binaries = Binaries::ensure(&Sources::from_env()?, &Tool::ALL)?;
    match command {
        Command::Build => {
            for directory in binaries.directories() {
                println!("{}", directory.display());
            }
        }
        Command::Path => println!("{}", std::env::join_paths(binaries.directories())?.display()),
    }
    Ok(())
}
