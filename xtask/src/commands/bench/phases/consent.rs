//! How long people wait between their click and the object that says so.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use composio_sim::DeedError;
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
        clicks.push(click_from(stage, person * objects / people, *objects)?);
    }
    stage.reach(operator, Milestone::Connected, *people).await?;

    let seen = stage.objects().sightings();
    let waits: Vec<f64> = clicks
        .iter()
        .filter_map(|(clicked, number)| {
            let connected = seen.reached(&name(*number), Milestone::Connected)?;
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

/// Completes the link of object `first`, or of the next one whose link has not run out. Returns when, and which it was.
fn click_from(stage: &Stage, first: usize, objects: usize) -> Result<(Instant, usize)> {
    for number in (first..objects).chain(0..first) {
        if let Some(clicked) = click(stage, &name(number))? {
            return Ok((clicked, number));
        }
    }
    bail!("every link has run out: there are more objects than can be pending at once")
}

/// Opens the object's link and agrees. Returns when that was; `None` if the link has run out.
pub fn click(stage: &Stage, name: &str) -> Result<Option<Instant>> {
    let account = stage.objects().sightings().account(name).map(str::to_owned);
    let account = account.with_context(|| format!("{name} has no account"))?;
    let now = Instant::now();
    let simulator = stage.simulator();
    match simulator
        .open(&account)
        .and_then(|_| simulator.consent(&account, None))
    {
        Ok(_) => Ok(Some(now)),
        // The account of a link that ran out is deleted once there is a new one, a moment before the watch shows that.
        Err(DeedError::Refused(_) | DeedError::NoAccount(_)) => Ok(None),
    }
}
