//! The phases of a run: those of connections in the order of an object's life, and [those of schemas](schemas).

mod consent;
mod pending;
mod restart;
pub mod schemas;
mod settled;

use std::time::Duration;

use anyhow::Result;
use composio_sim::Stats;
use serde::{Serialize, Serializer};

use super::calls;
use super::objects::Polling;
use super::operator::Operator;
use super::report::{Figure, Unit};
use super::stage::{ApiWrites, BUDGET, Stage, say};
use super::statistics::{interpolate, number};

/// Resident memory, in MiB, that so many objects may cost.
const MEMORY_TARGETS: [(f64, f64); 3] = [(0.0, 15.0), (1_000.0, 30.0), (10_000.0, 100.0)];
/// Calls per account looked at: full requests would be 1/100.
const CALLS_PER_LOOK: f64 = 1.0 / 90.0;
/// An operator without objects is watched for so long before its memory is read.
const IDLE: Duration = Duration::from_secs(5);

/// How much is measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Objects of the run.
    pub objects: usize,
    /// How long pending objects are observed.
    #[serde(rename = "observationSeconds", serialize_with = "as_seconds")]
    pub observation: Duration,
    /// People whose wait is measured one by one.
    pub people: usize,
    /// How the objects poll.
    pub polling: Polling,
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_secs())
}

/// What a run has found.
#[derive(Default)]
pub struct Findings {
    /// The numbers, in the order in which they were measured.
    pub figures: Vec<Figure>,
    /// What was asked of each stage.
    pub served: Vec<Served>,
}

/// What was asked of the parts of a stage: what to look at when a number surprises.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// Every call to Composio, by operation and status.
    pub calls: Stats,
    /// Every write on the API server, by verb and resource.
    pub api_writes: ApiWrites,
}

impl Findings {
    /// The figures, and all that the stage has counted until now.
    async fn of(stage: &Stage, figures: Vec<Figure>) -> Result<Self> {
        let served = Served {
            calls: stage.simulator().stats(),
            api_writes: stage.api_writes().await?,
        };
        Ok(Self {
            figures,
            served: vec![served],
        })
    }

    /// Adds those of another stage.
    pub fn append(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.served.extend(other.served);
    }
}

/// The life of many connections.
pub async fn connections(stage: &Stage, scale: &Scale) -> Result<Findings> {
    let mut figures = Vec::new();
    say("starting the operator");
    let operator = stage.start_operator(1).await?;
    stage.pass(&operator, IDLE).await?;
    figures.push(memory("idle.memory", "no objects: memory", &operator, 0)?);

    figures.extend(pending::measure(stage, &operator, scale).await?);
    figures.extend(consent::measure(stage, &operator, scale).await?);
    figures.extend(settled::measure(stage, &operator, scale).await?);
    let (operator, restarted) = restart::measure(stage, operator, scale).await?;
    figures.extend(restarted);

    figures.extend(whole_run(stage, scale)?);
    operator.stop().await?;
    Findings::of(stage, figures).await
}

/// Figures about the run as a whole.
fn whole_run(stage: &Stage, scale: &Scale) -> Result<Vec<Figure>> {
    let calls = stage.all_calls()?;
    let links = calls
        .iter()
        .filter(|call| call.operation() == "POST /connected_accounts/link")
        .count();
    Ok(vec![
        Figure::new(
            "run.linksPerObject",
            "whole run: accounts made per object",
            Unit::Ratio,
            number(links) / number(scale.objects),
        )
        .at_most(1.0),
        Figure::new(
            "run.busiestMinute",
            "whole run: most calls in any 60 s",
            Unit::Count,
            number(calls::busiest_minute(&calls)),
        )
        .at_most(f64::from(BUDGET)),
        Figure::new(
            "run.refusedCalls",
            "whole run: calls refused with 429",
            Unit::Count,
            number(calls::refused(&calls)),
        )
        .at_most(0.0),
    ])
}

/// Resident memory of the operator now, against the target for so many objects.
fn memory(id: &'static str, what: &str, operator: &Operator, objects: usize) -> Result<Figure> {
    let target = interpolate(&MEMORY_TARGETS, number(objects));
    Ok(Figure::new(id, what, Unit::MiB, operator.memory()?).at_most(target))
}
