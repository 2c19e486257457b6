//! Everything that Composio offers, two toolkits of unusual size included.

use anyhow::{Context, Result, ensure};
use composio_sim::HUGE_TOOL_TOOLKIT;

use super::bound::{CALLS_PER_TOOLKIT, at_background};
use super::{BUILT_IN, Scale, everything_but};
use crate::commands::bench::calls;
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{BUDGET, Stage, patience, say};
use crate::commands::bench::statistics::number;

/// The cache.
pub const CACHE: &str = "everything";
/// Two toolkits of unusual size.
const GIANTS: usize = 2;
/// MiB that a sync may take beyond what the operator takes without one.
const MEMORY: f64 = 64.0;
/// KiB of data in a ConfigMap: 1 MiB, which is Kubernetes' limit, and room for metadata.
const LARGEST: f64 = 960.0;
/// KiB of JSON that the status may have.
const STATUS: f64 = 8.0;
const KIB: f64 = 1_024.0;

/// Caches everything.
pub async fn measure(stage: &Stage, operator: &Operator, scale: &Scale) -> Result<Vec<Figure>> {
    let toolkits = scale.toolkits + GIANTS;
    say(&format!("caching {toolkits} toolkits"));
    let idle = operator.memory()?;
    let newest = stage.newest_call();
    let spec = everything_but(&BUILT_IN);
    let creating = stage.caches().create(CACHE, &spec);
    let limit = patience(toolkits * 2 * CALLS_PER_TOOLKIT);
    let (time, status) = stage
        .within(operator, limit, "the whole catalogue", creating)
        .await?;
    let peak = operator.peak_memory()?;
    let made = stage.simulator().calls_after(newest);
    let sizes = stage.caches().sizes(CACHE).await?;
    // One tool fits nowhere, and is left out by name.
    let complaints = status["toolkitStatuses"].as_array().into_iter().flatten();
    let omitted: Vec<_> = complaints.filter_map(|one| one["toolkit"].as_str()).collect();
    ensure!(
        status["toolkits"].as_u64() == Some(toolkits as u64) && omitted == [HUGE_TOOL_TOOLKIT],
        "something else was cached than was to be: {status:#}"
    );
    let tools = status["tools"].as_u64().unwrap_or_default();
    let (largest, bytes) = sizes
        .iter()
        .max_by_key(|(_, bytes)| **bytes)
        .context("there is no ConfigMap")?;
    say(&format!("{} ConfigMaps, the largest is {largest}", sizes.len()));
    let least = at_background(made.len()).as_secs_f64();
    Ok(vec![
        Figure::new(
            "catalogue.sync",
            format!("catalogue: {toolkits} toolkits, {tools} tools (budget alone: {least:.0} s)"),
            Unit::Seconds,
            time.as_secs_f64(),
        ),
        Figure::new(
            "catalogue.calls",
            "catalogue: calls",
            Unit::Count,
            number(made.len()),
        ),
        Figure::new(
            "catalogue.busiestMinute",
            "catalogue: most calls in any 60 s",
            Unit::Count,
            number(calls::busiest_minute(&made)),
        )
        .at_most(f64::from(BUDGET)),
        Figure::new(
            "catalogue.refusedCalls",
            "catalogue: calls refused with 429",
            Unit::Count,
            number(calls::refused(&made)),
        )
        .at_most(0.0),
        Figure::new(
            "catalogue.idleMemory",
            "catalogue: memory before",
            Unit::MiB,
            idle,
        ),
        Figure::new(
            "catalogue.memory",
            "catalogue: most memory, above that",
            Unit::MiB,
            peak - idle,
        )
        .at_most(MEMORY),
        Figure::new(
            "catalogue.largest",
            "catalogue: largest ConfigMap",
            Unit::KiB,
            number(*bytes) / KIB,
        )
        .at_most(LARGEST),
        Figure::new(
            "catalogue.status",
            "catalogue: status",
            Unit::KiB,
            number(status.to_string().len()) / KIB,
        )
        .at_most(STATUS),
    ])
}

/// What remains in memory once all is done.
pub fn memory_after(operator: &Operator) -> Result<Vec<Figure>> {
    Ok(vec![Figure::new(
        "catalogue.memoryAfter",
        "catalogue: memory afterwards",
        Unit::MiB,
        operator.memory()?,
    )])
}
