//! A cache of usual size appears: how long until everything is in ConfigMaps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use composio_sim::{Call, GIANT_TOOLKIT, HUGE_TOOL_TOOLKIT};
use serde_json::Value;

use super::bound::Calls;
use super::{BUILT_IN, FEW, everything_but};
use crate::commands::bench::calls::span;
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{LATENCY, Stage, patience, say};
use crate::commands::bench::statistics::{number, percentile};

/// The cache that remains when this is done.
pub const CACHE: &str = "few";
/// The most of the time that the same calls take one after the other: a sixth.
const TARGET: f64 = 1.0 / 6.0;
/// Longer than Composio's window: whatever was used of the budget is forgotten.
const REST: Duration = Duration::from_secs(65);

/// Creates the cache once with an operator that has just started, and then several times with one that has rested.
pub async fn measure(stage: &Stage, operator: &Operator, repetitions: usize) -> Result<Vec<Figure>> {
    let (toolkits, tools) = FEW;
    say(&format!("caching {toolkits} toolkits with {tools} tools"));
    let (cold, _) = sync(stage, operator).await?;
    let (mut times, mut spans, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=repetitions {
        say(&format!(
            "{number} of {repetitions}: the same again, after {REST:?} of rest"
        ));
        stage
            .within(operator, REST, "the cache to go", stage.caches().remove(CACHE))
            .await?;
        stage.pass(operator, REST).await?;
        let time;
        (time, calls) = sync(stage, operator).await?;
        times.push(time);
        spans.extend(span(&calls));
    }
    say("making the same calls one after the other");
    let one_by_one = replay(stage, &calls).await?;
    let pages = calls
        .iter()
        .filter(|call| call.operation() == "GET /toolkits")
        .count();
    let needed = Calls { pages, toolkits };
    let least = needed.least_time(LATENCY).as_secs_f64();
    let median = percentile(&times, 50);
    let what = format!("schemas: {toolkits} toolkits, {tools} tools");
    Ok(vec![
        Figure::new(
            "schemas.firstSync",
            format!("{what}, p50 of {repetitions}"),
            Unit::Seconds,
            median,
        ),
        Figure::new(
            "schemas.firstSyncByLoop",
            "schemas: the same by the same calls one by one",
            Unit::Ratio,
            median.map(|median| median / one_by_one),
        )
        .at_most(TARGET),
        Figure::new(
            "schemas.firstSyncBound",
            "schemas: least time with everything at once",
            Unit::Seconds,
            least,
        ),
        Figure::new(
            "schemas.firstSyncReading",
            "schemas: of this, from first to last call",
            Unit::Seconds,
            percentile(&spans, 50),
        ),
        Figure::new(
            "schemas.firstSyncCold",
            "schemas: right after a start",
            Unit::Seconds,
            cold,
        ),
        Figure::new(
            "schemas.oneByOne",
            "schemas: same calls one by one, nothing written",
            Unit::Seconds,
            one_by_one,
        ),
        Figure::new(
            "schemas.firstSyncCalls",
            "schemas: calls",
            Unit::Count,
            number(calls.len()),
        )
        .at_most(number(needed.total())),
    ])
}

/// Creates the cache. Returns how long it took, in seconds, and the calls.
async fn sync(stage: &Stage, operator: &Operator) -> Result<(f64, Vec<Call>)> {
    let excluded: Vec<&str> = BUILT_IN
        .into_iter()
        .chain([GIANT_TOOLKIT, HUGE_TOOL_TOOLKIT])
        .collect();
    let spec = everything_but(&excluded);
    let newest = stage.newest_call();
    let creating = stage.caches().create(CACHE, &spec);
    let (time, status) = stage
        .within(operator, patience(FEW.0 * 3), "the first sync", creating)
        .await?;
    let counted = (status["toolkits"].as_u64(), status["tools"].as_u64());
    let expected = (Some(FEW.0 as u64), Some(FEW.1 as u64));
    ensure!(
        status["state"] == "synced" && counted == expected,
        "something else was cached than was to be: {status:#}"
    );
    let (seconds, calls) = (time.as_secs_f64(), stage.simulator().calls_after(newest));
    let reading = span(&calls).unwrap_or_default();
    say(&format!(
        "{seconds:.2} s, of which {reading:.2} s from first to last call"
    ));
    Ok((seconds, calls))
}

/// Makes the calls again, as a simple program would: one after the other, reading each answer. Returns the seconds.
async fn replay(stage: &Stage, calls: &[Call]) -> Result<f64> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let started = Instant::now();
    for call in calls {
        let url = format!("{}{}?{}", stage.simulator().url(), call.path, call.query);
        let answer = http
            .get(url)
            .header("x-api-key", Stage::other_key())
            .send()
            .await?;
        let text = answer.error_for_status()?.text().await?;
        serde_json::from_str::<Value>(&text).context("an answer is not JSON")?;
    }
    Ok(started.elapsed().as_secs_f64())
}
