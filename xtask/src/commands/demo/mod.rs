//! `cargo xtask demo`: the whole system on this machine, shown at work.

mod connection;
mod encore;
mod narrator;
mod person;
mod schemas;
mod stage;
mod story;
mod view;

use std::io::{BufRead, IsTerminal, stdin, stdout};

use anyhow::{Result, anyhow};
use testing::control_plane::binaries::{Binaries, Sources};
use testing::control_plane::tools::Tool;
use testing::workspace::Programs;

use self::narrator::Narrator;
use self::stage::Stage;
use super::interruption::Interruption;

/// How the demo runs.
#[derive(clap::Args)]
pub struct Args {
    /// Leave everything running afterwards, to try things yourself, until Ctrl-C. In a terminal you are asked.
    #[arg(long)]
    keep: bool,

    /// You are the person: open the link in your browser yourself.
    #[arg(long)]
    manual: bool,
}

/// Tells the story on standard output. Fails, with the ends of the logs, if anything in it does not come true. Nothing is
/// left running.
pub async fn run(args: &Args) -> Result<()> {
    let narrator = Narrator::for_stdout();
    narrator.title(
        "composio-operator: a Reddit account, connected and gone again; the schemas of all tools, kept",
    );
    // Before signals are caught, so that Ctrl-C ends a build at once.
    eprintln!("Building the operator and the simulator ...");
    let programs = Programs::build()?;
    let binaries = Binaries::ensure(&Sources::from_env()?, &Tool::ALL)?;

    let mut interruption = Interruption::catch()?;
    let interrupted = || anyhow!("interrupted; everything is stopped");
    eprintln!(
        "Starting etcd, kube-apiserver, kube-controller-manager, composio-sim and composio-operator ..."
    );
    let stage = tokio::select! {
        stage = Stage::set(&programs, binaries) => stage?,
        () = interruption.wait() => return Err(interrupted()),
    };
    let told = tokio::select! {
        told = story::tell(&stage, &narrator, args.manual) => told,
        failure = stage.failure() => Err(anyhow!(failure)),
        () = interruption.wait() => return Err(interrupted()),
    };
    if let Err(error) = told {
        eprintln!("\n{}", stage.last_words());
        return Err(error);
    }
    let stay = tokio::select! {
        stay = wants_more(args, &narrator) => stay,
        () = interruption.wait() => false,
    };
    if !stay {
        narrator
            .say("Everything is stopped and removed. `cargo xtask demo --keep` leaves it running for you.");
        return Ok(());
    }
    tokio::select! {
        given = encore::give(&stage, &narrator) => given?,
        failure = stage.failure() => return Err(anyhow!(failure)),
        () = interruption.wait() => {}
    }
    narrator.say("Everything is stopped and removed.");
    Ok(())
}

/// Whether to leave everything running: as asked on the command line or, in a terminal, when asked now.
async fn wants_more(args: &Args, narrator: &Narrator) -> bool {
    if args.keep || !(stdin().is_terminal() && stdout().is_terminal()) {
        return args.keep;
    }
    narrator.ask("Keep everything running, to try it yourself? [y/N]");
    // A thread of its own: the runtime would wait for one of its own, and so for the answer, even after Ctrl-C.
    let (sender, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = stdin().lock().read_line(&mut line);
        let _ = sender.send(read.is_ok() && line.trim().to_lowercase().starts_with('y'));
    });
    answer.await.unwrap_or(false)
}
