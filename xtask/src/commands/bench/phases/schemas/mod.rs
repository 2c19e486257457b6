//! Schema caches: how fast they are filled, what a refresh costs, and what those who read them see meanwhile.

mod bound;
mod catalogue;
mod changes;
mod first_sync;
mod refresh;

use anyhow::Result;
use composio_sim::GeneratedCatalogue;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Findings, IDLE};
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::Figure;
use crate::commands::bench::stage::{Stage, say};

/// Toolkits of a project of usual size, and the tools these have together.
const FEW: (usize, usize) = (45, 1_250);
/// Toolkits that every simulator has.
const BUILT_IN: [&str; 5] = ["github", "slack", "reddit", "hackernews", "codeinterpreter"];

/// How much is measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Toolkits of the whole catalogue.
    pub toolkits: usize,
    /// Tools these have together.
    pub tools: usize,
    /// How often the first sync is measured.
    pub repetitions: usize,
    /// Changes that readers live through.
    pub changes: usize,
}

/// The toolkits of a project of usual size, and two of unusual size beside them.
pub fn few_toolkits() -> GeneratedCatalogue {
    let (toolkits, tools) = FEW;
    GeneratedCatalogue {
        toolkits,
        tools,
        giants: true,
        ..GeneratedCatalogue::default()
    }
}

/// A catalogue like Composio's own.
pub fn whole_catalogue(scale: &Scale) -> GeneratedCatalogue {
    GeneratedCatalogue {
        toolkits: scale.toolkits,
        tools: scale.tools,
        giants: true,
        ..GeneratedCatalogue::default()
    }
}

/// A project of usual size: the first sync, refreshes without news, and changes.
pub async fn few(stage: &Stage, scale: &Scale) -> Result<Findings> {
    let operator = started(stage).await?;
    let mut figures = first_sync::measure(stage, &operator, scale.repetitions).await?;
    figures.extend(refresh::measure(stage, &operator, &refresh::FEW, first_sync::CACHE).await?);
    figures.extend(refresh::by_itself(stage, &operator, first_sync::CACHE).await?);
    figures.extend(changes::measure(stage, &operator, scale.changes).await?);
    finished(stage, operator, figures).await
}

/// The whole catalogue.
pub async fn whole(stage: &Stage, scale: &Scale) -> Result<Findings> {
    let operator = started(stage).await?;
    let mut figures = catalogue::measure(stage, &operator, scale).await?;
    figures.extend(refresh::measure(stage, &operator, &refresh::WHOLE, catalogue::CACHE).await?);
    figures.extend(catalogue::memory_after(&operator)?);
    finished(stage, operator, figures).await
}

async fn started(stage: &Stage) -> Result<Operator> {
    say("starting the operator");
    let operator = stage.start_operator(1).await?;
    stage.pass(&operator, IDLE).await?;
    Ok(operator)
}

async fn finished(stage: &Stage, operator: Operator, figures: Vec<Figure>) -> Result<Findings> {
    operator.stop().await?;
    Findings::of(stage, figures).await
}

/// The spec of a cache of everything but these toolkits.
fn everything_but(excluded: &[&str]) -> Value {
    json!({ "toolkits": { "discover": "All", "exclude": excluded }, "includeDeprecated": true })
}
