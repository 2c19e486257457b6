//! What to do next: a pure function of the object, what was observed, and the time.
//!
//! Everything a sync achieves lies in the ConfigMaps themselves, so that one that is cut off goes on where it was. The
//! manifest is written once nothing is left to fetch, and ConfigMaps that it does not name are deleted after that.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::observed::{Catalogue, Held, Observed, Subject};
use crate::api::composio_schema_cache::Discovery;
use crate::api::conditions::whole_seconds;
use crate::controllers::failure::{Failure, Reason, spread, until};
use crate::controllers::retry;
use crate::schemas::manifest::{Entry, Manifest, Stale};
use crate::schemas::record::Record;

/// How often an empty list of auth configs is asked for again before it is believed: for some two minutes.
const EMPTY_CONFIRMATIONS: i64 = 6;

/// A cache whose ConfigMaps are edited again and again is repaired this often.
const REPAIR_PAUSE: Duration = Duration::from_secs(10);

/// What people write for no pin.
const LATEST: &str = "latest";

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Record in the status that a sync begins, and when: what it changes is told by that.
    Begin,
    /// Read these toolkits and write their ConfigMaps.
    Fetch {
        /// What is missing, out of date or damaged.
        toolkits: Vec<Wanted>,
    },
    /// Write the manifest.
    WriteManifest(Manifest),
    /// Delete ConfigMaps that the manifest does not name (any more).
    Delete {
        /// Their names.
        names: Vec<String>,
    },
}

/// A toolkit that is to be cached.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its slug.
    pub slug: String,
    /// The version to read. None: the catalogue does not say, so the latest.
    pub version: Option<String>,
    /// When Composio last updated it, in its own words. None for a pinned version, which does not change.
    pub updated_at: Option<String>,
    /// It has tools, as far as is known: an answer without any is wrong.
    pub has_tools: bool,
}

/// What to do, where the object stands, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// At most one effect.
    pub step: Option<Step>,
    /// Where the object stands.
    pub phase: Phase,
    /// When to plan again if nothing happens before.
    pub wake: Option<Duration>,
}

/// Where the object stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing is due; what status says still holds.
    Keep,
    /// `spec.suspend`.
    Suspended,
    /// A sync is under way.
    Syncing {
        /// Toolkits that are up to date, or failed for this time.
        done: usize,
        /// Toolkits that are wanted.
        total: usize,
    },
    /// A sync has ended.
    Finished {
        /// Toolkits that could not be brought up to date.
        failed: BTreeMap<String, Failure>,
    },
    /// No sync is possible.
    Failed(Failure),
}

impl Plan {
    fn rest(phase: Phase) -> Self {
        Self {
            step: None,
            phase,
            wake: None,
        }
    }
}

/// Whether Composio is to be asked for changes now.
pub fn is_due(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> bool {
    !subject.deleting && !subject.spec.suspend && due_at(subject, observed).is_some_and(|due| due <= now)
}

/// Whether Composio is to be asked for changes whatever there is of ConfigMaps.
pub fn is_wanted(subject: &Subject<'_>) -> bool {
    let status = subject.status;
    let is_asked_for = status.progress.is_some()
        || status.observed_generation != Some(subject.generation)
        || subject.open_request().is_some()
        || status.retry.is_some();
    is_asked_for && subject.standing_failure().is_none() && !subject.deleting && !subject.spec.suspend
}

/// When Composio is to be asked for changes; None: not until something changes.
fn due_at(subject: &Subject<'_>, observed: &Observed) -> Option<Timestamp> {
    let repair = needs_repair(subject, observed).then(|| repair_at(observed));
    if let Some(retry) = subject.standing_failure() {
        let next = retry.next_attempt_at.as_ref().map(|next| next.0);
        // The rest is whole, and stays so.
        let repair = repair.filter(|_| retry.reason == Reason::ToolkitNotFound.as_str());
        return next.into_iter().chain(repair).min();
    }
    if is_wanted(subject) {
        return Some(Timestamp::MIN);
    }
    let refresh = refresh_at(subject, observed).unwrap_or(Timestamp::MIN);
    Some(repair.map_or(refresh, |repair| repair.min(refresh)))
}

/// When the next refresh is due; None if there was none yet.
fn refresh_at(subject: &Subject<'_>, observed: &Observed) -> Option<Timestamp> {
    let recorded = subject.status.last_sync_time.as_ref().map(|time| time.0);
    let last = observed.checked_at.max(recorded)?;
    last.checked_add(refresh_interval(subject)).ok()
}

/// `spec.refreshInterval` and up to a tenth.
pub fn refresh_interval(subject: &Subject<'_>) -> Duration {
    Duration::from(subject.spec.refresh_interval).mul_f64(1.0 + spread(subject.seed()) / 10.0)
}

fn repair_at(observed: &Observed) -> Timestamp {
    observed
        .repaired_at
        .and_then(|repaired| repaired.checked_add(REPAIR_PAUSE).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Whether somebody changed or deleted what was written.
pub fn needs_repair(subject: &Subject<'_>, observed: &Observed) -> bool {
    let Some(manifest) = &observed.manifest else {
        return subject.status.manifest.is_some();
    };
    let sound = sound(&observed.held);
    let is_whole = |entry: &Entry| is_whole(&entry.config_maps, &entry.sha256, &sound);
    !manifest.toolkits.iter().all(is_whole)
}

/// Decides.
pub fn plan(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if subject.deleting {
        // The garbage collector removes the ConfigMaps with their owner.
        return Plan::rest(Phase::Keep);
    }
    if subject.spec.suspend {
        return Plan::rest(Phase::Suspended);
    }
    let rest = || Plan {
        wake: due_at(subject, observed).map(|due| until(due, now)),
        ..Plan::rest(Phase::Keep)
    };
    if let Some(failure) = &observed.failure {
        // A pass that nobody asked for is no further try.
        if retry::is_early(subject.standing_failure(), now) {
            // What could not be seen looks as if it were missing, and may be due for a repair.
            let plan = rest();
            let wake = plan
                .wake
                .map(|wake| if wake.is_zero() { REPAIR_PAUSE } else { wake });
            return Plan { wake, ..plan };
        }
        return Plan::rest(Phase::Failed(failure.clone()));
    }
    let Some(catalogue) = &observed.catalogue else {
        return rest();
    };
    let records = records(&observed.held);
    let settings = subject.settings();
    let wanted = match select(subject, observed, catalogue, &records, &settings) {
        Ok(wanted) => wanted,
        Err(failure) => return Plan::rest(Phase::Failed(failure)),
    };
    let failed = failures(&wanted, catalogue, observed);
    let sound = sound(&observed.held);
    let open: Vec<Wanted> = wanted
        .values()
        .filter(|wanted| !failed.contains_key(&wanted.slug))
        .filter(|wanted| {
            let record = records.get(wanted.slug.as_str());
            record.is_none_or(|record| !is_current(wanted, record, &settings, &sound))
        })
        .cloned()
        .collect();
    if !open.is_empty() {
        let phase = Phase::Syncing {
            done: wanted.len() - open.len(),
            total: wanted.len(),
        };
        let step = match subject.status.progress {
            Some(_) => Step::Fetch { toolkits: open },
            None => Step::Begin,
        };
        return Plan {
            step: Some(step),
            phase,
            wake: None,
        };
    }
    let manifest = manifest(&wanted, &records, &failed, observed, now);
    // A first sync that brought nothing leaves nothing behind.
    if manifest.toolkits.is_empty() && observed.manifest.is_none() && !failed.is_empty() {
        return Plan::rest(Phase::Finished { failed });
    }
    let syncing = Phase::Syncing {
        done: wanted.len(),
        total: wanted.len(),
    };
    if observed.manifest.as_ref() != Some(&manifest) || !observed.manifest_is_labelled {
        return Plan {
            step: Some(Step::WriteManifest(manifest)),
            phase: syncing,
            wake: None,
        };
    }
    let names = leftovers(&wanted, &manifest, observed);
    if !names.is_empty() {
        return Plan {
            step: Some(Step::Delete { names }),
            phase: syncing,
            wake: None,
        };
    }
    Plan::rest(Phase::Finished { failed })
}

/// The toolkits that are to be cached, by slug.
fn select(
    subject: &Subject<'_>,
    observed: &Observed,
    catalogue: &Catalogue,
    records: &BTreeMap<&str, &Record>,
    settings: &str,
) -> Result<BTreeMap<String, Wanted>, Failure> {
    let selection = &subject.spec.toolkits;
    let is_empty = match selection.discover {
        Discovery::AuthConfigs => catalogue.configured.as_ref().is_some_and(BTreeSet::is_empty),
        Discovery::All | Discovery::None => false,
    };
    let had_some = observed
        .manifest
        .as_ref()
        .is_some_and(|manifest| !manifest.toolkits.is_empty());
    if is_empty && had_some && confirmations(subject) < EMPTY_CONFIRMATIONS {
        return Err(Failure::transient(
            Reason::EmptyAnswer,
            "Composio lists no enabled auth config any more; looking again before anything is deleted",
        ));
    }
    let mut slugs: BTreeSet<&str> = selection.include.iter().map(String::as_str).collect();
    let listed = |no_auth: bool| {
        let toolkits = catalogue.toolkits.iter();
        toolkits
            .filter(move |(_, toolkit)| toolkit.no_auth == no_auth)
            .map(|(slug, _)| slug.as_str())
    };
    match selection.discover {
        Discovery::AuthConfigs => slugs.extend(catalogue.configured.iter().flatten().map(String::as_str)),
        Discovery::All => slugs.extend(listed(false)),
        Discovery::None => {}
    }
    if selection.no_auth && selection.discover != Discovery::None {
        slugs.extend(listed(true));
    }
    for slug in &selection.exclude {
        slugs.remove(slug.as_str());
    }
    let wanted = slugs.into_iter().map(|slug| {
        let listed = catalogue.toolkits.get(slug);
        let pin = subject
            .spec
            .versions
            .get(slug)
            .filter(|version| *version != LATEST);
        let had_tools = records
            .get(slug)
            .is_some_and(|record| record.tools > 0 && record.settings == settings);
        // The catalogue counts deprecated tools too.
        let counted = subject.spec.include_deprecated
            && listed.is_some_and(|toolkit| toolkit.tools.is_some_and(|tools| tools > 0));
        let wanted = Wanted {
            slug: slug.to_owned(),
            version: pin
                .or(listed.and_then(|toolkit| toolkit.version.as_ref()))
                .cloned(),
            updated_at: listed
                .filter(|_| pin.is_none())
                .and_then(|toolkit| toolkit.updated_at.clone()),
            has_tools: had_tools || counted,
        };
        (slug.to_owned(), wanted)
    });
    Ok(wanted.collect())
}

fn confirmations(subject: &Subject<'_>) -> i64 {
    subject
        .status
        .retry
        .as_ref()
        .filter(|retry| retry.reason == Reason::EmptyAnswer.as_str())
        .map_or(0, |retry| retry.failures)
}

fn records(held: &[Held]) -> BTreeMap<&str, &Record> {
    held.iter()
        .filter_map(|held| held.record.as_ref())
        .map(|record| (record.toolkit.as_str(), record))
        .collect()
}

/// The ConfigMaps that are as they were written, and the hash of the tools that each holds a part of.
fn sound(held: &[Held]) -> BTreeMap<&str, &str> {
    held.iter()
        .filter(|held| !held.damaged)
        .filter_map(|held| Some((held.name.as_str(), held.sha256.as_deref()?)))
        .collect()
}

/// Whether all parts of a toolkit are there, and parts of that content.
fn is_whole(config_maps: &[String], sha256: &str, sound: &BTreeMap<&str, &str>) -> bool {
    config_maps
        .iter()
        .all(|name| sound.get(name.as_str()) == Some(&sha256))
}

/// What failed in this sync, and what cannot succeed.
fn failures(
    wanted: &BTreeMap<String, Wanted>,
    catalogue: &Catalogue,
    observed: &Observed,
) -> BTreeMap<String, Failure> {
    let unknown = wanted
        .keys()
        .filter(|slug| !catalogue.toolkits.contains_key(*slug))
        .map(|slug| {
            let message = format!("Composio knows no toolkit {slug}; correct spec.toolkits");
            (slug.clone(), Failure::stalled(Reason::ToolkitNotFound, message))
        });
    let failed = observed
        .failed
        .iter()
        .filter(|(slug, _)| wanted.contains_key(*slug));
    failed
        .map(|(slug, failure)| (slug.clone(), failure.clone()))
        .chain(unknown)
        .collect()
}

fn is_current(wanted: &Wanted, record: &Record, settings: &str, sound: &BTreeMap<&str, &str>) -> bool {
    record.settings == settings
        && (wanted.version.is_none() || record.version == wanted.version)
        && (wanted.updated_at.is_none() || record.updated_at == wanted.updated_at)
        && is_whole(&record.config_maps, &record.sha256, sound)
}

fn manifest(
    wanted: &BTreeMap<String, Wanted>,
    records: &BTreeMap<&str, &Record>,
    failed: &BTreeMap<String, Failure>,
    observed: &Observed,
    now: Timestamp,
) -> Manifest {
    let sound = sound(&observed.held);
    let entries = wanted.keys().filter_map(|slug| {
        let record = records.get(slug.as_str())?;
        // Nobody could read it.
        if !is_whole(&record.config_maps, &record.sha256, &sound) {
            return None;
        }
        let mut entry = record.entry();
        entry.stale = failed.get(slug).map(|failure| {
            let known = observed
                .manifest
                .as_ref()
                .and_then(|manifest| manifest.entry(slug));
            let since = known
                .and_then(|entry| entry.stale.as_ref())
                .map(|stale| stale.since);
            Stale {
                since: since.unwrap_or_else(|| whole_seconds(now)),
                reason: failure.reason.as_str().to_owned(),
            }
        });
        Some(entry)
    });
    Manifest::new(entries.collect())
}

/// ConfigMaps that nobody needs any more. What belongs to a wanted toolkit that failed stays.
fn leftovers(wanted: &BTreeMap<String, Wanted>, manifest: &Manifest, observed: &Observed) -> Vec<String> {
    let records = observed.held.iter().filter_map(|held| held.record.as_ref());
    let of_wanted = records.filter(|record| wanted.contains_key(&record.toolkit));
    let needed: BTreeSet<&str> = of_wanted
        .flat_map(|record| record.config_maps.iter().map(String::as_str))
        .chain(manifest.config_maps())
        .collect();
    observed
        .held
        .iter()
        .filter(|held| !held.terminating && !needed.contains(held.name.as_str()))
        .map(|held| held.name.clone())
        .collect()
}
