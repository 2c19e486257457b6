//! Many objects at once wait for their people.

use anyhow::Result;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{CALLS_PER_LOOK, Scale, memory};
use crate::commands::bench::calls::{self, Looks};
use crate::commands::bench::objects::Milestone;
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{BUDGET, Stage, at_budget, say};
use crate::commands::bench::statistics::{number, percentile};

/// So many links, and what comes before them, fit into the limit of one minute.
const BURST: usize = 1_000;
/// Seconds until all of a burst have their links.
const LINKED_IN: f64 = 10.0;
/// Seconds until half of them have.
const HALF_LINKED_IN: f64 = 3.0;

/// Creates the objects, waits until all have links, and observes them.
pub async fn measure(stage: &Stage, operator: &Operator, scale: &Scale) -> Result<Vec<Figure>> {
    let Scale {
        objects,
        observation,
        polling,
        ..
    } = scale;
    say(&format!("creating {objects} objects"));
    let started = Instant::now();
    stage.objects().create(*objects, polling).await?;
    say("waiting for their links");
    stage.reach(operator, Milestone::Linked, *objects).await?;
    let linked = stage.objects().sightings().last(Milestone::Linked);
    let calls_until_linked = stage.simulator().calls().len();
    let until_linked = linked.map(|last| last.duration_since(started).as_secs_f64());
    let half_linked = percentile(&link_waits(stage, started), 50);

    let settling = std::time::Duration::from_secs(u64::from(polling.fast) * 2);
    say(&format!("observing pending objects for {observation:?}"));
    stage.pass(operator, settling).await?;
    let (newest, processor) = (stage.newest_call(), operator.processor_time()?);
    let began = Instant::now();
    stage.pass(operator, *observation).await?;
    let seconds = began.elapsed().as_secs_f64();
    let calls = stage.simulator().calls_after(newest);
    let processor = operator.processor_time()? - processor;

    let looks = Looks::of(&calls);
    if !looks.others.is_empty() {
        say(&format!("other calls meanwhile: {}", looks.describe_others()));
    }
    let first_looks = link_to_first_look(stage);
    let bound = at_budget(*objects).as_secs_f64();
    let cadence = polling.fast;
    let burst = *objects <= BURST;
    Ok(vec![
        Figure::new(
            "pending.timeUntilLinked",
            format!("pending: all have links (budget alone: {bound:.0} s)"),
            Unit::Seconds,
            until_linked,
        )
        .at_most(burst.then_some(LINKED_IN)),
        Figure::new(
            "pending.linkWaitP50",
            "pending: half of them have links",
            Unit::Seconds,
            half_linked,
        )
        .at_most(burst.then_some(HALF_LINKED_IN)),
        Figure::new(
            "pending.callsPerLink",
            "pending: calls until then, per object",
            Unit::Ratio,
            number(calls_until_linked) / number(*objects),
        ),
        Figure::new(
            "pending.firstLookP99",
            format!("pending: link to first look, p99 (cadence {cadence} s)"),
            Unit::Seconds,
            percentile(&first_looks, 99),
        ),
        Figure::new(
            "pending.callsPerLook",
            "pending: calls per account looked at",
            Unit::Ratio,
            looks.calls_per_look(),
        )
        .at_most(CALLS_PER_LOOK),
        Figure::new(
            "pending.callsPerMinute",
            "pending: all calls per minute",
            Unit::Count,
            number(calls.len()) * 60.0 / seconds,
        )
        .at_most(f64::from(BUDGET)),
        Figure::new(
            "pending.timeBetweenLooksP50",
            format!("pending: time between looks, p50 (cadence {cadence} s)"),
            Unit::Seconds,
            calls::time_between_looks(&calls, 50),
        ),
        Figure::new(
            "pending.timeBetweenLooksP99",
            "pending: the same, p99",
            Unit::Seconds,
            calls::time_between_looks(&calls, 99),
        ),
        Figure::new(
            "pending.processor",
            "pending: processor time, of one core",
            Unit::Percent,
            100.0 * processor / seconds,
        ),
        memory("pending.memory", "pending: memory", operator, *objects)?,
    ])
}

/// Seconds from the start until the watch event that showed each link.
fn link_waits(stage: &Stage, started: Instant) -> Vec<f64> {
    let seen = stage.objects().sightings();
    seen.accounts_at(Milestone::Linked)
        .map(|(_, linked)| linked.duration_since(started).as_secs_f64())
        .collect()
}

/// Seconds between the watch event that showed a link and the first look at its account, for each account that was
/// looked at.
fn link_to_first_look(stage: &Stage) -> Vec<f64> {
    // The simulator tells wall-clock time; this moment is known by both clocks.
    let (instant, timestamp) = (Instant::now(), Timestamp::now());
    let first = calls::first_looks(&stage.simulator().calls());
    let seen = stage.objects().sightings();
    seen.accounts_at(Milestone::Linked)
        .filter_map(|(account, linked)| {
            let linked_ago = instant.duration_since(linked).as_secs_f64();
            let looked_ago = timestamp.duration_since(*first.get(account)?).as_secs_f64();
            Some(linked_ago - looked_ago)
        })
        .collect()
}
