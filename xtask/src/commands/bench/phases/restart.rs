//! The operator stops and comes back while everything is settled.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Scale, memory};
use crate::commands::bench::calls;
use crate::commands::bench::objects::changed;
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{Stage, say};
use crate::commands::bench::statistics::number;

/// How often it is asked how far it has come, and so how exact the time is.
const INTERVAL: Duration = Duration::from_millis(50);
/// All is reconciled once every account was looked at and no pass has ended for so long.
const QUIET: Duration = Duration::from_secs(2);
/// Longest time that is waited for that.
const LIMIT: Duration = Duration::from_mins(5);
/// Seconds that a restart may take, with up to ten thousand settled objects.
const TARGET: f64 = 20.0;

/// Stops the operator, starts it again, and waits until it has nothing left to do. Returns the new one.
pub async fn measure(stage: &Stage, operator: Operator, scale: &Scale) -> Result<(Operator, Vec<Figure>)> {
    let Scale { objects, .. } = scale;
    say("restarting the operator");
    operator.stop().await?;
    let versions = stage.objects().versions().await?;
    let (before, newest) = (stage.api_writes().await?, stage.newest_call());
    let operator = stage.start_operator(2).await?;
    let ready = operator.started().elapsed().as_secs_f64();
    let watching = reconciled(stage, &operator, newest);
    let (last_pass, passes) = stage
        .within(&operator, LIMIT, "all objects to be reconciled", watching)
        .await?;
    let writes = stage.api_writes().await?.of_connections() - before.of_connections();
    let written = changed(&versions, &stage.objects().versions().await?);
    let figures = vec![
        Figure::new("restart.ready", "restart: ready", Unit::Seconds, ready),
        Figure::new(
            "restart.reconciled",
            "restart: all looked at and reconciled",
            Unit::Seconds,
            last_pass.duration_since(operator.started()).as_secs_f64(),
        )
        .at_most(TARGET),
        Figure::new(
            "restart.passesPerObject",
            "restart: passes per object",
            Unit::Ratio,
            passes / number(*objects),
        ),
        Figure::new(
            "restart.objectsWritten",
            "restart: objects written",
            Unit::Count,
            number(written),
        )
        .at_most(0.0),
        Figure::new(
            "restart.apiWrites",
            "restart: writes of objects, Secrets, events",
            Unit::Count,
            writes,
        )
        .at_most(0.0),
        memory("restart.memory", "restart: memory", &operator, *objects)?,
    ];
    Ok((operator, figures))
}

/// Waits until every account was looked at after the call `newest` and passes have ceased. Returns when the last pass
/// ended, and how many there were.
async fn reconciled(stage: &Stage, operator: &Operator, mut newest: u64) -> Result<(Instant, f64)> {
    let mut unseen: HashSet<String> = stage
        .objects()
        .sightings()
        .accounts()
        .map(str::to_owned)
        .collect();
    let mut passes = 0.0;
    let mut last_pass = Instant::now();
    loop {
        let calls = stage.simulator().calls_after(newest);
        newest = calls.last().map_or(newest, |call| call.seq);
        for account in calls::seen(&calls) {
            unseen.remove(&account);
        }
        let now_passed = operator.passes().await?;
        let now = Instant::now();
        if now_passed > passes {
            (passes, last_pass) = (now_passed, now);
        } else if unseen.is_empty() && now.duration_since(last_pass) >= QUIET {
            return Ok((last_pass, passes));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
