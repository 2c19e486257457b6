//! What to do next: a pure function of the object, what was observed, and the time.
//!
//! Everything that a sync achieves is in the ConfigMaps themselves, so that one that is cut off goes on where it was. The
//! manifest is written once nothing is left to fetch, and ConfigMaps that it does not name are deleted after that.

mod select;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use strum::IntoStaticStr;

pub use self::select::{DesiredToolkit, KnownTools, lists_no_auth_config, needs_whole_list};
use self::select::{select, short};
use super::observed::{CachedConfigMap, Catalogue, Observed, View};
use crate::api::Reason;
use crate::api::conditions::whole_seconds;
use crate::runtime;
use crate::runtime::backoff::{spread, until};
use crate::runtime::failure::{Class, Failure};
use crate::runtime::plan::Position;
use crate::schemas::manifest::{Entry, Lost, Manifest, Stale};
use crate::schemas::record::Record;

/// How often what Composio did not deliver is asked for again by backoff.
const MAX_HASTE: i64 = 6;

/// Most failing toolkits that a message names.
const MAX_NAMED: usize = 5;

/// A cache whose ConfigMaps are edited again and again is repaired this often.
const REPAIR_PAUSE: Duration = Duration::from_secs(10);

/// One step.
#[derive(Clone, Debug, IntoStaticStr, PartialEq)]
pub enum Step {
    /// Record in the status that a sync begins, and when: what it changes is told by that.
    Begin,
    /// Read these toolkits and write their ConfigMaps.
    Fetch {
        /// What is missing, out of date or damaged.
        toolkits: Vec<DesiredToolkit>,
    },
    /// Write the manifest.
    WriteManifest(Manifest),
    /// Delete ConfigMaps that the manifest does not name (any more).
    Delete {
        /// Their names.
        names: Vec<String>,
    },
}

/// What to do, where the object stands, and when to come back.
pub type Plan = runtime::plan::Plan<Step, Phase>;

/// Where the object stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// A sync is under way.
    Syncing {
        /// Toolkits that are up to date, or failed for this time.
        done: usize,
        /// Toolkits that are to be cached.
        total: usize,
    },
    /// A sync has ended.
    Finished {
        /// Toolkits that could not be brought up to date.
        failed: BTreeMap<String, Failure>,
        /// Composio did not list everything that there is to choose from.
        short: Option<Failure>,
    },
}

impl runtime::Step for Step {
    fn name(&self) -> &'static str {
        self.into()
    }

    /// They write ConfigMaps, and those only over the versions that were seen.
    fn is_external(&self) -> bool {
        false
    }
}

impl runtime::Phase for Phase {
    fn failure(&self) -> Option<Failure> {
        match self {
            Self::Finished { failed, short } => worst(failed, short.as_ref()),
            Self::Syncing { .. } => None,
        }
    }
}

/// Whether Composio is to be asked for changes now.
pub fn is_due(view: &View<'_>, observed: &Observed, now: Timestamp) -> bool {
    due_at(view, observed).is_some_and(|due| due <= now)
}

/// Whether Composio is to be asked for changes whatever there is of ConfigMaps.
pub fn is_wanted(view: &View<'_>) -> bool {
    let status = &view.status;
    let is_asked_for = status.progress.is_some()
        || status.observed_generation != Some(view.generation)
        || view.pending_request().is_some()
        || status.retry.is_some();
    is_asked_for && view.current_failure().is_none()
}

/// When Composio is to be asked for changes; None: not until something changes.
fn due_at(view: &View<'_>, observed: &Observed) -> Option<Timestamp> {
    let repair = needs_repair(view, observed).then(|| repair_at(observed));
    if let Some(failure) = view.current_failure() {
        // If only a part failed, the rest is repaired.
        let repair = repair.filter(|_| !failure.concerns_all());
        return failure.next_attempt_at.into_iter().chain(repair).min();
    }
    if is_wanted(view) {
        return Some(Timestamp::MIN);
    }
    let refresh = refresh_at(view, observed).unwrap_or(Timestamp::MIN);
    Some(repair.map_or(refresh, |repair| repair.min(refresh)))
}

/// When the next refresh is due; None if there was none yet.
fn refresh_at(view: &View<'_>, observed: &Observed) -> Option<Timestamp> {
    let recorded = view.status.last_sync_time.as_ref().map(|time| time.0);
    let last = observed.checked_at.max(recorded)?;
    last.checked_add(refresh_interval(view)).ok()
}

/// `spec.refreshInterval` and up to a tenth.
pub fn refresh_interval(view: &View<'_>) -> Duration {
    Duration::from(view.spec.refresh_interval).mul_f64(1.0 + spread(view.seed()) / 10.0)
}

fn repair_at(observed: &Observed) -> Timestamp {
    observed
        .repaired_at
        .and_then(|repaired| repaired.checked_add(REPAIR_PAUSE).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Whether somebody changed or deleted what was written.
pub fn needs_repair(view: &View<'_>, observed: &Observed) -> bool {
    let Some(manifest) = &observed.manifest else {
        return view.status.manifest.is_some();
    };
    let intact = intact(&observed.cached);
    let is_complete = |entry: &Entry| all_parts_present(&entry.config_maps, &entry.sha256, &intact);
    !manifest.toolkits.iter().all(is_complete)
}

/// Decides.
pub fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    let Some(catalogue) = &observed.catalogue else {
        return Plan {
            requeue_after: due_at(view, observed).map(|due| until(due, now)),
            ..Plan::rest(Position::Unchanged)
        };
    };
    let records = records(&observed.cached);
    let settings = view.settings();
    let desired = match select(view, observed, catalogue, &records) {
        Ok(desired) => desired,
        Err(failure) => return Plan::fail(failure),
    };
    let short = short(view, catalogue);
    let failed = failures(&desired, catalogue, observed);
    let intact = intact(&observed.cached);
    let open: Vec<DesiredToolkit> = desired
        .values()
        .filter(|desired| !desired.is_only_kept && !failed.contains_key(&desired.slug))
        .filter(|desired| {
            let record = records.get(desired.slug.as_str());
            let is_read = observed.read.contains(&desired.slug);
            record.is_none_or(|record| !is_current(desired, record, &settings, &intact, is_read))
        })
        .cloned()
        .collect();
    if !open.is_empty() {
        let phase = Phase::Syncing {
            done: desired.len() - open.len(),
            total: desired.len(),
        };
        let step = match view.status.progress {
            Some(_) => Step::Fetch { toolkits: open },
            None => Step::Begin,
        };
        return Plan::step(step, phase);
    }
    let manifest = manifest(&desired, &records, &failed, observed, now);
    // A first sync that brought nothing leaves nothing behind.
    let all_went_well = failed.is_empty() && short.is_none();
    if manifest.toolkits.is_empty() && observed.manifest.is_none() && !all_went_well {
        return finished(view, failed, short);
    }
    let syncing = Phase::Syncing {
        done: desired.len(),
        total: desired.len(),
    };
    if observed.manifest.as_ref() != Some(&manifest)
        || !(observed.manifest_is_of_spec && observed.manifest_is_labelled)
    {
        return Plan::step(Step::WriteManifest(manifest), syncing);
    }
    let names = unneeded(&desired, &manifest, observed);
    if !names.is_empty() {
        return Plan::step(Step::Delete { names }, syncing);
    }
    finished(view, failed, short)
}

fn finished(view: &View<'_>, failed: BTreeMap<String, Failure>, short: Option<Failure>) -> Plan {
    Plan::rest(Phase::Finished { failed, short }).requeue_in(refresh_interval(view))
}

/// What only a person can fix, and nothing tells of, is tried again with the next refresh: the rest must not wait for it. So
/// is what Composio does not deliver however often it is asked: what it did deliver is cached.
pub fn retry_policy(view: &View<'_>, failure: Failure) -> Failure {
    let is_for_a_person = failure.class == Class::Stalled && failure.reason.policy().recheck.is_none();
    let is_lasting = failure.reason == Reason::IncompleteResponse
        && view
            .current_failure()
            .is_some_and(|current| current.reason == Some(failure.reason) && current.failures >= MAX_HASTE);
    Failure {
        retry_after: if is_for_a_person || is_lasting {
            Some(refresh_interval(view))
        } else {
            failure.retry_after
        },
        ..failure
    }
}

/// The failure that decides when what failed is tried again, in words about all of it.
fn worst(failed: &BTreeMap<String, Failure>, short: Option<&Failure>) -> Option<Failure> {
    let rank = |failure: &Failure| match failure.class {
        Class::Transient => 0,
        Class::Waiting => 1,
        Class::Stalled => 2,
    };
    let failure = failed.values().chain(short).min_by_key(|failure| rank(failure))?;
    let of_toolkits = match failed.iter().next() {
        None => None,
        Some((slug, only)) if failed.len() == 1 => Some(format!("{slug}: {}", only.message)),
        _ => {
            let names: Vec<String> = failed
                .iter()
                .take(MAX_NAMED)
                .map(|(slug, failure)| format!("{slug} ({})", failure.reason.as_str()))
                .collect();
            let more = match failed.len() - names.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let cause = failed.iter().min_by_key(|(_, failure)| rank(failure));
            let cause = cause.map_or(String::new(), |(slug, failure)| {
                format!(". {slug}: {}", failure.message)
            });
            Some(format!(
                "{} toolkits could not be brought up to date: {}{more}{cause}",
                failed.len(),
                names.join(", ")
            ))
        }
    };
    let messages: Vec<String> = short
        .map(|short| short.message.clone())
        .into_iter()
        .chain(of_toolkits)
        .collect();
    Some(Failure {
        message: messages.join(". "),
        ..failure.clone()
    })
}

fn records(cached: &[CachedConfigMap]) -> BTreeMap<&str, &Record> {
    cached
        .iter()
        .filter_map(|cached| cached.record.as_ref())
        .map(|record| (record.toolkit.as_str(), record))
        .collect()
}

/// The ConfigMaps that are as they were written, and the hash of the tools that each holds a part of.
fn intact(cached: &[CachedConfigMap]) -> BTreeMap<&str, &str> {
    cached
        .iter()
        .filter(|cached| !cached.damaged)
        .filter_map(|cached| Some((cached.name.as_str(), cached.sha256.as_deref()?)))
        .collect()
}

/// Whether all parts of a toolkit are there, and parts of that content.
fn all_parts_present(config_maps: &[String], sha256: &str, intact: &BTreeMap<&str, &str>) -> bool {
    config_maps
        .iter()
        .all(|name| intact.get(name.as_str()) == Some(&sha256))
}

/// What failed in this sync, and what cannot succeed.
fn failures(
    desired: &BTreeMap<String, DesiredToolkit>,
    catalogue: &Catalogue,
    observed: &Observed,
) -> BTreeMap<String, Failure> {
    let is_unknown = |desired: &&DesiredToolkit| {
        !desired.is_only_kept
            && !catalogue.toolkits.contains_key(&desired.slug)
            && !observed.failed.contains_key(&desired.slug)
    };
    let unknown = desired.values().filter(is_unknown).map(|desired| {
        let slug = &desired.slug;
        let message = format!("toolkit {slug} does not exist in Composio; correct spec.toolkits");
        (slug.clone(), Failure::stalled(Reason::ToolkitNotFound, message))
    });
    let failed = observed
        .failed
        .iter()
        .filter(|(slug, _)| desired.contains_key(*slug));
    failed
        .map(|(slug, failure)| (slug.clone(), failure.clone()))
        .chain(unknown)
        .collect()
}

/// `is_read`: it was read in this sync.
fn is_current(
    desired: &DesiredToolkit,
    record: &Record,
    settings: &str,
    intact: &BTreeMap<&str, &str>,
    is_read: bool,
) -> bool {
    record.settings == settings
        && (desired.version.is_none() || record.version == desired.version)
        && (desired.updated_at.is_none() || record.updated_at == desired.updated_at)
        && all_parts_present(&record.config_maps, &record.sha256, intact)
        && (is_read || !is_in_doubt(desired, record))
}

/// Whether nothing but its tools can tell whether it has changed, or what was read of it may not be all.
fn is_in_doubt(desired: &DesiredToolkit, record: &Record) -> bool {
    let says_nothing = desired.version.is_none() && desired.updated_at.is_none();
    says_nothing || record.tools == 0 || record.missing_tools > 0
}

fn manifest(
    desired: &BTreeMap<String, DesiredToolkit>,
    records: &BTreeMap<&str, &Record>,
    failed: &BTreeMap<String, Failure>,
    observed: &Observed,
    now: Timestamp,
) -> Manifest {
    let intact = intact(&observed.cached);
    let entries = desired.keys().filter_map(|slug| {
        let record = records.get(slug.as_str())?;
        // Nobody could read it.
        if !all_parts_present(&record.config_maps, &record.sha256, &intact) {
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
    let lost = lost(desired, failed, observed, now);
    Manifest::new(entries.collect()).having_lost(lost, observed.manifest.as_ref())
}

/// Toolkits that were cached and are gone, although the spec selects as it did: Composio does not have them any more, or
/// they are not in use there any more.
fn lost(
    desired: &BTreeMap<String, DesiredToolkit>,
    failed: &BTreeMap<String, Failure>,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Lost> {
    let before = observed
        .manifest
        .as_ref()
        .filter(|_| observed.manifest_is_of_spec);
    let is_unknown = |slug: &str| {
        failed
            .get(slug)
            .is_some_and(|failure| failure.reason == Reason::ToolkitNotFound)
    };
    let was_unknown = |entry: &Entry| {
        let stale = entry.stale.as_ref();
        stale.is_some_and(|stale| stale.reason == Reason::ToolkitNotFound.as_str())
    };
    let entries = before.iter().flat_map(|manifest| &manifest.toolkits);
    let lost = entries.filter(|entry| {
        !was_unknown(entry) && (!desired.contains_key(&entry.slug) || is_unknown(&entry.slug))
    });
    lost.map(|entry| Lost {
        slug: entry.slug.clone(),
        tools: entry.tools,
        lost_at: whole_seconds(now),
    })
    .collect()
}

/// ConfigMaps that nobody needs any more. What belongs to a desired toolkit that failed stays.
fn unneeded(
    desired: &BTreeMap<String, DesiredToolkit>,
    manifest: &Manifest,
    observed: &Observed,
) -> Vec<String> {
    let records = observed.cached.iter().filter_map(|cached| cached.record.as_ref());
    let of_desired = records.filter(|record| desired.contains_key(&record.toolkit));
    let needed: BTreeSet<&str> = of_desired
        .flat_map(|record| record.config_maps.iter().map(String::as_str))
        .chain(manifest.config_maps())
        .collect();
    observed
        .cached
        .iter()
        .filter(|cached| !cached.terminating && !needed.contains(cached.name.as_str()))
        .map(|cached| cached.name.clone())
        .collect()
}
