//! `cargo xtask bench`: what the operator costs and how fast it is, measured from outside.
//!
//! A run has two halves. One goes through the life of many objects: nothing yet, pending, consented, settled, and a restart with all of
//! them; the other fills schema caches and changes what they hold. `docs/benchmarks.md` explains each figure.

mod caches;
mod calls;
mod exposition;
mod machine;
mod objects;
mod operator;
mod phases;
mod reader;
mod report;
mod stage;
mod statistics;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;
use testing::control_plane::binaries::{Binaries, Sources};
use testing::control_plane::tools::Tool;
use tokio::signal::unix::{SignalKind, signal};

use self::machine::Machine;
use self::objects::Polling;
use self::phases::{Findings, Scale, schemas};
use self::stage::{BUDGET, LATENCY, Stage, say};

/// Objects of a run, unless something else is asked for.
const OBJECTS: usize = 1_000;
/// The same with `--quick`.
const QUICK_OBJECTS: usize = 100;

/// What to measure, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Number of objects; 1000, or 100 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    objects: Option<u32>,

    /// Only one half.
    #[arg(long, value_enum)]
    only: Option<Half>,

    /// Fewer objects and shorter observation: a few minutes less, and coarser figures.
    #[arg(long)]
    quick: bool,

    /// How the operator is built. Figures of dev builds say little about time and memory.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,

    /// Also write everything as JSON to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Half {
    /// `RedditConnection`s.
    Connections,
    /// `ComposioSchemaCache`s.
    Schemas,
}

/// A profile of cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    Release,
    Dev,
}

impl Profile {
    fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

impl Args {
    fn measures(&self, half: Half) -> bool {
        self.only.is_none_or(|only| only == half)
    }

    fn schemas(&self) -> schemas::Scale {
        schemas::Scale {
            toolkits: if self.quick { 100 } else { 1_000 },
            tools: if self.quick { 1_200 } else { 12_000 },
            repetitions: if self.quick { 1 } else { 3 },
            changes: if self.quick { 50 } else { 1_000 },
        }
    }

    fn scale(&self) -> Scale {
        let objects = self
            .objects
            .map_or(if self.quick { QUICK_OBJECTS } else { OBJECTS }, |objects| {
                usize::try_from(objects).unwrap_or(usize::MAX)
            });
        Scale {
            objects,
            observation: Duration::from_secs(if self.quick { 20 } else { 60 }),
            people: objects.min(if self.quick { 25 } else { 100 }),
            polling: Polling { fast: 4, settled: 10 },
        }
    }
}

/// Builds the operator, measures, and prints the table on standard output. Fails if something could not be measured; a
/// target that is missed is a result, not a failure.
pub async fn run(args: Args) -> Result<()> {
    // Before signals are caught, so that Ctrl-C ends a build at once; and before the machine is looked at.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    if cfg!(debug_assertions) && args.profile == Profile::Release {
        return continue_as_release(root);
    }
    let binaries = Binaries::ensure(&Sources::from_env()?, &Tool::ALL)?;
    say(&format!("building the operator ({})", args.profile.as_str()));
    let program = operator::build(root, args.profile.as_str())?;
    let machine = Machine::look();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;

    let scale = args.scale();
    let set = |generated| Stage::set(root, program.clone(), binaries.clone(), generated);
    let connections = Box::pin(async {
        let stage = set(None).await?;
        phases::connections(&stage, &scale).await
    });
    let few = Box::pin(async {
        let stage = set(Some(schemas::few_toolkits())).await?;
        schemas::few(&stage, &args.schemas()).await
    });
    let whole = Box::pin(async {
        let stage = set(Some(schemas::whole_catalogue(&args.schemas()))).await?;
        schemas::whole(&stage, &args.schemas()).await
    });
    let measure = async {
        let mut findings = Findings::default();
        if args.measures(Half::Connections) {
            findings.append(connections.await?);
        }
        if args.measures(Half::Schemas) {
            findings.append(few.await?);
            findings.append(whole.await?);
        }
        anyhow::Ok(findings)
    };
    // What is interrupted is dropped, and takes its processes with it.
    let findings = tokio::select! {
        findings = measure => findings?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
        _ = hangup.recv() => bail!("the terminal is gone"),
    };
    publish(&args, &scale, &machine, &findings)
}

/// Starts over as a release build: the simulated Composio is part of this program, and schemas by the megabyte must not
/// wait for it. Returns only if that fails.
fn continue_as_release(root: &Path) -> Result<()> {
    say("building the benchmark itself (release)");
    let program = operator::build_program(root, "xtask", Profile::Release.as_str())?;
    let failure = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(failure).with_context(|| format!("cannot run {}", program.display()))
}

fn publish(args: &Args, scale: &Scale, machine: &Machine, findings: &Findings) -> Result<()> {
    let profile = args.profile.as_str();
    let schemas = args.schemas();
    let mut measured = Vec::new();
    if args.measures(Half::Connections) {
        measured.push(format!("{} objects", scale.objects));
    }
    if args.measures(Half::Schemas) {
        measured.push(format!("catalogue of {} toolkits", schemas.toolkits));
    }
    let text = format!(
        "\n{}, {profile} build; Composio: {} ms latency, {BUDGET} calls a minute\n{machine}\n\n{}",
        measured.join(", "),
        LATENCY.as_millis(),
        report::table(&findings.figures)
    );
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    let Some(file) = &args.output else { return Ok(()) };
    let setup = json!({
        "profile": profile,
        "connections": args.measures(Half::Connections).then_some(scale),
        "schemas": args.measures(Half::Schemas).then_some(&schemas),
        "latencyMs": LATENCY.as_secs_f64() * 1_000.0,
        "budgetPerMinute": BUDGET,
        "finishedAt": jiff::Timestamp::now(),
    });
    let report = serde_json::to_string_pretty(&report::json(machine, &setup, findings))?;
    std::fs::write(file, report + "\n").with_context(|| format!("cannot write {}", file.display()))
}
