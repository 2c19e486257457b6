//! How long people wait between their click and the object that says so.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::Scale;
use crate::commands::bench::objects::{Milestone, name};
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{Stage, say};
use crate::commands::bench::statistics::{percentile, spread};

/// Cadences over which the people are spread.
const CADENCES: u32 = 10;
/// What may be added to half a cadence at the median: an answer's latency, the identity, a status write, the watch.
const MEDIAN_ALLOWANCE: f64 = 0.3;
/// What may be added to a whole cadence at the 99th percentile.
const LATE_ALLOWANCE: f64 = 1.0;

/// Some people, spread over time and over the objects, complete their links while everybody else still waits.
pub async fn measure(stage: &Stage, operator: &Operator, scale: &Scale) -> Result<Vec<Figure>> {
    let Scale {
        objects,
        people,
        polling,
        ..
    } = scale;
    let span = Duration::from_secs(u64::from(polling.fast)) * CADENCES;
    say(&format!("{people} people complete their links within {span:?}"));
    let started = Instant::now();
    let mut clicks = Vec::with_capacity(*people);
    for (person, point) in spread(*people).into_iter().enumerate() {
        let when = started + span.mul_f64(point);
        stage
            .pass(operator, when.saturating_duration_since(Instant::now()))
            .await?;
        // Evenly over all objects, so that they are of many batches.
        let name = name(person * objects / people);
        clicks.push((click(stage, &name)?, name));
    }
    stage.reach(operator, Milestone::Connected, *people).await?;

    let seen = stage.objects().sightings();
    let waits: Vec<f64> = clicks
        .iter()
        .filter_map(|(clicked, name)| {
            let connected = seen.reached(name, Milestone::Connected)?;
            Some(connected.duration_since(*clicked).as_secs_f64())
        })
        .collect();
    let cadence = f64::from(polling.fast);
    let what = |rank: &str| format!("consent: click to connected, {rank} of {people} (cadence {cadence} s)");
    Ok(vec![
        Figure::new("consent.p50", what("p50"), Unit::Seconds, percentile(&waits, 50))
            .at_most(cadence / 2.0 + MEDIAN_ALLOWANCE),
        Figure::new("consent.p99", what("p99"), Unit::Seconds, percentile(&waits, 99))
            .at_most(cadence + LATE_ALLOWANCE),
    ])
}

/// Opens the object's link and agrees. Returns when that was.
pub fn click(stage: &Stage, name: &str) -> Result<Instant> {
    let account = stage.objects().sightings().account(name).map(str::to_owned);
    let account = account.with_context(|| format!("{name} has no account"))?;
    let refused =
        || format!("{name} cannot be connected; are there more objects than can be pending at once?");
    stage.simulator().open(&account).with_context(refused)?;
    let now = Instant::now();
    stage.simulator().consent(&account, None).with_context(refused)?;
    Ok(now)
}
