//! Everybody is connected, and nothing is left to do.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::consent::click;
use super::{CALLS_PER_LOOK, Scale, memory};
use crate::commands::bench::calls::Looks;
use crate::commands::bench::objects::{Milestone, changed, name};
use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{Stage, at_budget, patience, say};
use crate::commands::bench::statistics::number;

/// Whoever finds that their link has run out tries the new one after this time.
const COME_BACK: Duration = Duration::from_secs(1);
/// Writes of an object, its Secret and its events until it is settled.
const WRITES: f64 = 10.0;
/// Periods of the settled cadence that are observed.
const PERIODS: u32 = 2;

/// Connects everybody else, waits until all is known, and observes that nothing happens.
pub async fn measure(stage: &Stage, operator: &Operator, scale: &Scale) -> Result<Vec<Figure>> {
    let Scale { objects, polling, .. } = scale;
    let (people, until_settled) = connect_everybody(stage, operator, *objects).await?;

    let period = Duration::from_secs(u64::from(polling.settled));
    let observation = period * PERIODS;
    say(&format!("observing settled objects for {observation:?}"));
    // Until each has been looked at once more, at the new cadence.
    stage.pass(operator, period).await?;
    let versions = stage.objects().versions().await?;
    let (before, newest) = (stage.api_writes().await?, stage.newest_call());
    let (processor, began) = (operator.processor_time()?, Instant::now());
    stage.pass(operator, observation).await?;
    let processor = (operator.processor_time()? - processor) / began.elapsed().as_secs_f64();
    let looks = Looks::of(&stage.simulator().calls_after(newest));
    let writes = stage.api_writes().await?.of_connections() - before.of_connections();
    let written = changed(&versions, &stage.objects().versions().await?);
    if !looks.others.is_empty() {
        say(&format!("calls besides looks: {}", looks.describe_others()));
    }

    let over = format!("in {PERIODS} periods of {} s", polling.settled);
    let bound = at_budget(people).as_secs_f64();
    Ok(vec![
        Figure::new(
            "settled.timeUntilSettled",
            format!("settled: all identified (budget alone: {bound:.0} s)"),
            Unit::Seconds,
            until_settled,
        ),
        Figure::new(
            "settled.apiWritesBefore",
            "settled: writes per object on the way there, but for its create",
            Unit::Ratio,
            before.of_connections() / number(*objects) - 1.0,
        )
        .at_most(WRITES),
        Figure::new(
            "settled.objectsWritten",
            format!("settled: objects written {over}"),
            Unit::Count,
            number(written),
        )
        .at_most(0.0),
        Figure::new(
            "settled.apiWrites",
            format!("settled: writes of objects, Secrets, events {over}"),
            Unit::Count,
            writes,
        )
        .at_most(0.0),
        Figure::new(
            "settled.callsPerLook",
            "settled: calls per account looked at",
            Unit::Ratio,
            looks.calls_per_look(),
        )
        .at_most(CALLS_PER_LOOK),
        Figure::new(
            "settled.otherCalls",
            format!("settled: calls besides looks {over}"),
            Unit::Count,
            number(looks.others.values().sum()),
        )
        .at_most(0.0),
        Figure::new(
            "settled.processor",
            "settled: processor time, of one core",
            Unit::Percent,
            100.0 * processor,
        ),
        memory("settled.memory", "settled: memory", operator, *objects)?,
        Figure::new(
            "settled.peakMemory",
            "settled: most memory since the start",
            Unit::MiB,
            operator.peak_memory()?,
        ),
    ])
}

/// All who have not yet done so complete their links. Returns how many they were, and the seconds until everything was
/// known about everybody.
async fn connect_everybody(
    stage: &Stage,
    operator: &Operator,
    objects: usize,
) -> Result<(usize, Option<f64>)> {
    let mut waiting: Vec<String> = {
        let seen = stage.objects().sightings();
        (0..objects)
            .map(name)
            .filter(|name| seen.reached(name, Milestone::Connected).is_none())
            .collect()
    };
    say(&format!("{} people complete their links at once", waiting.len()));
    let started = Instant::now();
    let people = waiting.len();
    let clicking = async {
        loop {
            let mut refused = Vec::new();
            for name in waiting {
                if click(stage, &name)?.is_none() {
                    refused.push(name);
                }
            }
            if refused.is_empty() {
                return Ok(());
            }
            waiting = refused;
            tokio::time::sleep(COME_BACK).await;
        }
    };
    stage
        .within(
            operator,
            patience(objects),
            "new links for those that ran out",
            clicking,
        )
        .await?;
    stage.reach(operator, Milestone::Settled, objects).await?;
    let settled = stage.objects().sightings().last(Milestone::Settled);
    let until_settled = settled
        .filter(|_| people > 0)
        .map(|last| last.duration_since(started).as_secs_f64());
    Ok((people, until_settled))
}
