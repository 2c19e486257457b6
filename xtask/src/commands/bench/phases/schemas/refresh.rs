//! A refresh that finds nothing new.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::commands::bench::operator::Operator;
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{Stage, patience, say};
use crate::commands::bench::statistics::number;

/// Calls that one may take, however many toolkits there are.
const CALLS: f64 = 5.0;
/// The shortest interval that a cache may have.
const INTERVAL: Duration = Duration::from_mins(1);
/// The operator adds up to a tenth.
const LATEST: Duration = Duration::from_secs(67);
/// How often it is asked whether the operator has done what it was to do.
const ASKED_EVERY: Duration = Duration::from_millis(100);
/// A refresh is over when the operator has made no call and ended no pass for so long.
const QUIET: Duration = Duration::from_secs(3);

/// The names of the figures.
pub struct Names {
    time: &'static str,
    calls: &'static str,
    config_maps: &'static str,
    status: &'static str,
    prefix: &'static str,
}

/// For few toolkits.
pub const FEW: Names = Names {
    time: "schemas.refresh",
    calls: "schemas.refreshCalls",
    config_maps: "schemas.refreshConfigMaps",
    status: "schemas.refreshStatus",
    prefix: "schemas",
};
/// For the whole catalogue.
pub const WHOLE: Names = Names {
    time: "catalogue.refresh",
    calls: "catalogue.refreshCalls",
    config_maps: "catalogue.refreshConfigMaps",
    status: "catalogue.refreshStatus",
    prefix: "catalogue",
};

/// Somebody asks for a refresh, although nothing has changed.
pub async fn measure(stage: &Stage, operator: &Operator, names: &Names, cache: &str) -> Result<Vec<Figure>> {
    say("asking for a refresh without news");
    let (before, newest) = (stage.api_writes().await?, stage.newest_call());
    let refreshing = stage.caches().refresh(cache, "again");
    let (time, _) = stage
        .within(operator, patience(100), "a refresh", refreshing)
        .await?;
    settled(stage, operator).await?;
    let after = stage.api_writes().await?;
    let calls = stage.simulator().calls_after(newest).len();
    let written = |resource| after.of(resource) - before.of(resource);
    let prefix = names.prefix;
    Ok(vec![
        Figure::new(
            names.time,
            format!("{prefix}: refresh without news, on request"),
            Unit::Seconds,
            time.as_secs_f64(),
        ),
        Figure::new(
            names.calls,
            format!("{prefix}: calls of it"),
            Unit::Count,
            number(calls),
        )
        .at_most(CALLS),
        Figure::new(
            names.config_maps,
            format!("{prefix}: writes of ConfigMaps"),
            Unit::Count,
            written("configmaps"),
        )
        .at_most(0.0),
        Figure::new(
            names.status,
            format!("{prefix}: writes of the status (the request is done)"),
            Unit::Count,
            written("composioschemacaches/status"),
        )
        .at_most(1.0),
    ])
}

/// The interval is over, and nothing has changed.
pub async fn by_itself(stage: &Stage, operator: &Operator, cache: &str) -> Result<Vec<Figure>> {
    say(&format!(
        "waiting for a refresh that nobody asks for, every {INTERVAL:?}"
    ));
    let interval = json!({ "refreshInterval": format!("{}s", INTERVAL.as_secs()) });
    let changing = stage.caches().change(cache, &interval);
    stage
        .within(operator, patience(100), "the other interval", changing)
        .await?;
    settled(stage, operator).await?;
    let (before, newest) = (stage.api_writes().await?, stage.newest_call());
    let called = async {
        while stage.newest_call() == newest {
            tokio::time::sleep(ASKED_EVERY).await;
        }
        Ok(())
    };
    stage
        .within(operator, LATEST + patience(0), "the refresh", called)
        .await?;
    settled(stage, operator).await?;
    let after = stage.api_writes().await?;
    let calls = stage.simulator().calls_after(newest).len();
    let rest = json!({ "refreshInterval": "6h" });
    let changing = stage.caches().change(cache, &rest);
    stage
        .within(operator, patience(100), "the other interval", changing)
        .await?;
    Ok(vec![
        Figure::new(
            "schemas.ownRefreshCalls",
            "schemas: refresh without news, by itself: calls",
            Unit::Count,
            number(calls),
        )
        .at_most(CALLS),
        Figure::new(
            "schemas.ownRefreshWrites",
            "schemas: writes of ConfigMaps, status, events",
            Unit::Count,
            after.all() - before.all(),
        )
        .at_most(0.0),
    ])
}

/// Waits until the operator rests.
async fn settled(stage: &Stage, operator: &Operator) -> Result<()> {
    let resting = async {
        let mut seen = (stage.newest_call(), operator.passes().await?);
        let mut since = tokio::time::Instant::now();
        while since.elapsed() < QUIET {
            tokio::time::sleep(ASKED_EVERY).await;
            let now = (stage.newest_call(), operator.passes().await?);
            if now != seen {
                (seen, since) = (now, tokio::time::Instant::now());
            }
        }
        Ok(())
    };
    stage
        .within(operator, patience(100), "the operator to rest", resting)
        .await
}
