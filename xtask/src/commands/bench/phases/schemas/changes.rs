//! Toolkits change while they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use composio_sim::{GIANT_TOOLKIT, Release, Released};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;
use tokio::sync::watch;

use crate::commands::bench::operator::Operator;
use crate::commands::bench::reader::{self, Toolkit};
use crate::commands::bench::report::{Figure, Unit};
use crate::commands::bench::stage::{Stage, patience, say};
use crate::commands::bench::statistics::number;

const CACHE: &str = "changing";
/// The toolkits that change in turn. The plain JSON of the last takes two ConfigMaps, so that a reader can come between.
const TOOLKITS: [&str; 4] = ["reddit", "slack", "github", GIANT_TOOLKIT];
/// What is different in each new version.
const CHANGE: Release = Release {
    add: 2,
    remove: 1,
    change: 1,
    breaking: 0,
    version: None,
};
/// Changes between two lines of news.
const NEWS: usize = 100;
/// Mismatches that are told in full.
const TOLD: usize = 5;

/// Which tools each version of each toolkit has.
type Truth = Mutex<BTreeMap<(String, String), BTreeSet<String>>>;

/// What readers have seen.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    retries: usize,
    mismatches: Vec<String>,
}

/// Changes toolkits, one after the other, with one reader at work on each.
pub async fn measure(stage: &Stage, operator: &Operator, changes: usize) -> Result<Vec<Figure>> {
    say(&format!("changing toolkits {changes} times, with readers"));
    let spec = json!({
        "toolkits": { "discover": "None", "include": TOOLKITS },
        "includeDeprecated": true,
        "output": { "namePrefix": CACHE, "encoding": "Json" },
    });
    let creating = stage.caches().create(CACHE, &spec);
    stage
        .within(operator, patience(10), "the first sync", creating)
        .await?;
    let maps = stage.caches().config_maps();
    let truth = Arc::new(Truth::default());
    for slug in TOOLKITS {
        let first = reader::read(maps, &config_map(slug)).await?;
        let first = first.with_context(|| format!("{slug} cannot be read although nothing changes"))?;
        note(&truth, slug, &first.version, first.tools);
    }
    let parts = stage.caches().versions(CACHE).await?.len();
    // The manifest is one of them.
    ensure!(parts > TOOLKITS.len() + 1, "no toolkit takes two ConfigMaps");

    let (stop, stopped) = watch::channel(false);
    let readers: Vec<_> = TOOLKITS
        .iter()
        .map(|slug| tokio::spawn(follow(maps.clone(), slug, Arc::clone(&truth), stopped.clone())))
        .collect();
    let started = tokio::time::Instant::now();
    let mut own = Tally::default();
    for number in 0..changes {
        if number > 0 && number % NEWS == 0 {
            say(&format!("{number} of {changes} changes are made"));
        }
        let slug = TOOLKITS[number % TOOLKITS.len()];
        let released = stage.simulator().release_toolkit(slug, &CHANGE)?;
        expect(&truth, &released);
        let token = format!("change {number}");
        let refreshing = stage.caches().refresh(CACHE, &token);
        stage
            .within(operator, patience(10), "a change to be cached", refreshing)
            .await?;
        // Now it must be there, whole and new.
        match reader::read(maps, &config_map(slug)).await? {
            Some(found) if found.version == released.version => own.judge(slug, &found, &truth),
            Some(found) => own
                .mismatches
                .push(format!("{slug}: {} after {}", found.version, released.version)),
            None => own
                .mismatches
                .push(format!("{slug}: no whole version after {}", released.version)),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let _ = stop.send(true);
    let tallies: Vec<Tally> = try_join_all(readers).await?.into_iter().collect::<Result<_>>()?;
    let all: Vec<&Tally> = tallies.iter().chain([&own]).collect();
    let mismatches: Vec<&String> = all.iter().flat_map(|tally| &tally.mismatches).collect();
    for mismatch in mismatches.iter().take(TOLD) {
        say(&format!("mismatch: {mismatch}"));
    }
    Ok(vec![
        Figure::new(
            "changes.time",
            format!(
                "changes: {changes} of {} toolkits, each until cached",
                TOOLKITS.len()
            ),
            Unit::Seconds,
            seconds,
        ),
        Figure::new(
            "changes.accepted",
            "changes: times a toolkit was read whole",
            Unit::Count,
            number(all.iter().map(|tally| tally.accepted).sum()),
        ),
        Figure::new(
            "changes.retries",
            "changes: times a reader saw that it came between",
            Unit::Count,
            number(all.iter().map(|tally| tally.retries).sum()),
        ),
        Figure::new(
            "changes.mismatches",
            "changes: mismatches",
            Unit::Count,
            number(mismatches.len()),
        )
        .at_most(0.0),
    ])
}

/// Reads a toolkit again and again until told to stop.
async fn follow(
    maps: Api<ConfigMap>,
    slug: &'static str,
    truth: Arc<Truth>,
    stopped: watch::Receiver<bool>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    while !*stopped.borrow() {
        match reader::read(&maps, &config_map(slug)).await? {
            Some(found) => tally.judge(slug, &found, &truth),
            None => tally.retries += 1,
        }
    }
    Ok(tally)
}

impl Tally {
    fn judge(&mut self, slug: &str, found: &Toolkit, truth: &Truth) {
        self.accepted += 1;
        let key = (slug.to_owned(), found.version.clone());
        let truth = truth.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = match truth.get(&key) {
            _ if found.contradiction.is_some() => found.contradiction.clone(),
            None => Some("there is no such version".to_owned()),
            Some(tools) if *tools != found.tools => Some("these are not its tools".to_owned()),
            Some(_) => None,
        };
        self.mismatches
            .extend(wrong.map(|wrong| format!("{slug} {}: {wrong}", found.version)));
    }
}

/// Notes which tools the new version has.
fn expect(truth: &Truth, released: &Released) {
    let before = (released.slug.clone(), released.previous_version.clone());
    let known = truth
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&before)
        .cloned();
    let mut tools = known.unwrap_or_default();
    tools.retain(|tool| !released.removed.contains(tool));
    tools.extend(released.added.iter().cloned());
    note(truth, &released.slug, &released.version, tools);
}

fn note(truth: &Truth, slug: &str, version: &str, tools: BTreeSet<String>) {
    let key = (slug.to_owned(), version.to_owned());
    truth
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, tools);
}

fn config_map(slug: &str) -> String {
    format!("{CACHE}-{slug}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(slugs: &[&str]) -> BTreeSet<String> {
        slugs.iter().map(|slug| (*slug).to_owned()).collect()
    }

    fn found(version: &str, slugs: &[&str]) -> Toolkit {
        Toolkit {
            version: version.to_owned(),
            tools: tools(slugs),
            contradiction: None,
        }
    }

    #[test]
    fn what_differs_from_the_release_is_a_mismatch() {
        let truth = Truth::default();
        note(&truth, "a", "1", tools(&["X", "Y"]));
        let released = Released {
            slug: "a".to_owned(),
            version: "2".to_owned(),
            previous_version: "1".to_owned(),
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            added: vec!["Z".to_owned()],
            removed: vec!["X".to_owned()],
            changed: Vec::new(),
            broken: Vec::new(),
        };
        expect(&truth, &released);
        let mismatches = |found: Toolkit| {
            let mut tally = Tally::default();
            tally.judge("a", &found, &truth);
            assert_eq!(tally.accepted, 1);
            tally.mismatches.len()
        };
        assert_eq!(mismatches(found("1", &["X", "Y"])), 0);
        assert_eq!(mismatches(found("2", &["Y", "Z"])), 0);
        assert_eq!(mismatches(found("2", &["X", "Y"])), 1);
        assert_eq!(mismatches(found("3", &["Y"])), 1);
        let contradiction = Some("torn".to_owned());
        assert_eq!(
            mismatches(Toolkit {
                contradiction,
                ..found("1", &["X", "Y"])
            }),
            1
        );
    }
}
