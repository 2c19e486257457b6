//! This resource's own fields in its status, and what its positions mean for the conditions: pure functions.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::SchemaCaches;
use super::observed::{CachedConfigMap, Observed, View};
use super::plan::{self, Phase, refresh_interval};

use crate::api::Reason;
use crate::api::composio_schema_cache::{
    COMPLETE, CacheState, ComposioSchemaCacheStatus, DriftStatus, SyncProgress, ToolkitStatus,
};
use crate::api::conditions::{self, READY, Truth, truncated, whole_seconds};
use crate::runtime;
use crate::runtime::Phase as _;
use crate::runtime::failure::Failure;
use crate::runtime::plan::Position;
use crate::runtime::summary::Extra;
use crate::schemas::drift::Drift;
use crate::schemas::manifest::{Lost, Manifest};
use crate::schemas::names;
use crate::schemas::record::Record;

/// Most toolkits that status names.
const MAX_TOOLKITS: usize = 20;
/// Most bytes that they take.
const MAX_TOOLKITS_BYTES: usize = 3072;
/// What the fields' names and the reason of one take.
const OVERHEAD: usize = 80;
/// Most breaking changes that status names.
const MAX_BREAKING: usize = 10;
/// Longest text about a toolkit or a change, in bytes.
const MAX_TEXT: usize = 120;
/// Reason of a toolkit whose tools changed.
const CHANGED: &str = "Changed";
/// Reason of a toolkit with a tool that fits into no ConfigMap.
const INCOMPLETE: &str = "Incomplete";

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Done.
    Done,
    /// Toolkits were read, as many as there was time for.
    Fetched {
        /// How many were brought up to date.
        done: usize,
        /// Their ConfigMaps, if they were written.
        written: Vec<CachedConfigMap>,
        /// Their slugs.
        read: BTreeSet<String>,
        /// Those that could not be.
        failed: BTreeMap<String, Failure>,
        /// Calls of the Composio API that this took.
        api_calls: u64,
        /// The time was up before all were tried.
        is_partial: bool,
    },
}

impl runtime::Effect for Effect {
    /// Only the end of a sync shows that what failed works again.
    fn clears(&self, _failed: Option<&str>, _step: &str) -> bool {
        false
    }

    fn yields(&self) -> bool {
        matches!(self, Self::Fetched { is_partial: true, .. })
    }
}

/// What a sync cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Calls of the Composio API so far.
    pub api_calls: u64,
}

type Turn<'a> = runtime::Turn<'a, SchemaCaches>;
pub type Summary = runtime::summary::Summary<CacheState>;

/// When the sync under way started. Times in status are whole seconds; a remembered one that differs is of a sync that an
/// earlier process began.
fn started_at(turn: &Turn<'_>) -> Option<Timestamp> {
    let recorded = turn
        .view
        .status
        .progress
        .as_ref()
        .map(|progress| progress.started_at.0);
    let remembered = turn.observed.cost.started_at;
    remembered
        .filter(|started_at| recorded.is_none_or(|recorded| recorded == whole_seconds(*started_at)))
        .or(recorded)
}

/// The status with its own fields brought up to date.
pub fn status(turn: &Turn<'_>) -> ComposioSchemaCacheStatus {
    let mut status = turn.view.status.clone().into_owned();
    status.empty_auth_config_lists = empty_auth_config_lists(turn);
    match turn.position {
        Position::At(Phase::Syncing { done, total }) => {
            let more = match turn.effect {
                Some(Effect::Fetched { done, failed, .. }) => done + failed.len(),
                _ => 0,
            };
            status.progress = Some(SyncProgress {
                started_at: Time(whole_seconds(started_at(turn).unwrap_or(turn.now))),
                done: count(done + more),
                total: count(*total),
            });
        }
        Position::At(Phase::Finished { failed, .. }) => {
            record_result(&mut status, turn.view, turn.observed, failed, started_at(turn));
        }
        Position::Unchanged | Position::Failed(_) => {}
    }
    status
}

/// How many lists of auth configs in a row were empty and not believed. Only an answer of that list changes it, whatever else
/// fails in between.
fn empty_auth_config_lists(turn: &Turn<'_>) -> Option<i64> {
    let before = turn.view.status.empty_auth_config_lists;
    let Some(catalogue) = &turn.observed.catalogue else {
        return before;
    };
    if !plan::lists_no_auth_config(catalogue) {
        return None;
    }
    match turn.position {
        Position::Failed(failure) if turn.step.is_none() && failure.reason == Reason::EmptyResponse => {
            Some(before.unwrap_or_default() + 1)
        }
        // It is believed, and what it said has been done.
        Position::At(Phase::Finished { .. }) => None,
        _ => before,
    }
}

/// When a sync ended and what it cost is recorded only if it found something new.
pub fn on_change(turn: &Turn<'_>, status: &mut ComposioSchemaCacheStatus) {
    if !matches!(turn.position, Position::At(Phase::Finished { .. })) {
        return;
    }
    let started_at = started_at(turn).unwrap_or(turn.now);
    status.last_sync_time = Some(Time(whole_seconds(turn.now)));
    let next = whole_seconds(turn.now).checked_add(refresh_interval(turn.view));
    status.next_sync_time = next.ok().map(|next| Time(whole_seconds(next)));
    status.duration_ms = i64::try_from(turn.now.duration_since(started_at).as_millis()).ok();
    status.api_calls = i64::try_from(turn.observed.cost.api_calls).ok();
}

/// What the position means for state and conditions.
pub fn summary(turn: &Turn<'_>, status: &ComposioSchemaCacheStatus) -> Option<Summary> {
    match turn.position {
        Position::Unchanged => None,
        Position::Failed(failure) => Some(failed(failure, status)),
        Position::At(Phase::Syncing { done, total }) => syncing(*done, *total, status, turn.view.generation),
        Position::At(phase) => Some(match phase.failure() {
            Some(failure) => failed(&failure, status),
            None => synced(status, turn.observed),
        }),
    }
}

fn failed(failure: &Failure, status: &ComposioSchemaCacheStatus) -> Summary {
    let state = if status.manifest.is_some() {
        CacheState::Degraded
    } else {
        CacheState::Failed
    };
    Summary::failure(failure)
        .with_state(state)
        .with(COMPLETE, Truth::False, failure.message.clone())
}

/// What came of the last sync holds while newer versions are read; `status.progress` shows that they are.
fn syncing(
    done: usize,
    total: usize,
    status: &ComposioSchemaCacheStatus,
    generation: i64,
) -> Option<Summary> {
    let ready = conditions::find(&status.conditions, READY);
    let still_holds = ready.is_some_and(|ready| {
        ready.observed_generation == Some(generation)
            && !matches!(ready.reason.as_str(), "Syncing" | "Suspended")
    });
    if still_holds {
        return None;
    }
    let message = format!("{done} of {total} toolkits are up to date");
    Some(Summary::reconciling("Syncing", message).with_state(CacheState::Syncing))
}

fn synced(status: &ComposioSchemaCacheStatus, observed: &Observed) -> Summary {
    let omits = observed.manifest.as_ref().is_some_and(|manifest| {
        manifest
            .toolkits
            .iter()
            .any(|entry| !entry.omitted_tools.is_empty())
    });
    let summary = Summary::ready(
        "Synced",
        format!(
            "{} tools of {} toolkits are cached",
            status.tools.unwrap_or_default(),
            status.toolkits.unwrap_or_default()
        ),
    );
    let (state, truth, reason, message) = if omits {
        (
            CacheState::Degraded,
            Truth::False,
            "ToolsOmitted",
            "some tools are too large for a ConfigMap and left out: see status.toolkitStatuses",
        )
    } else {
        (CacheState::Synced, Truth::True, "Complete", "")
    };
    let mut summary = summary.with_state(state);
    summary.extra.push(Extra {
        type_: COMPLETE,
        truth,
        reason: Some(reason),
        message: message.to_owned(),
    });
    summary
}

fn record_result(
    status: &mut ComposioSchemaCacheStatus,
    view: &View<'_>,
    observed: &Observed,
    failed: &BTreeMap<String, Failure>,
    started_at: Option<Timestamp>,
) {
    status.progress = None;
    status.failing_toolkits = (!failed.is_empty()).then(|| count(failed.len()));
    let nothing = Manifest::default();
    let manifest = observed.manifest.as_ref().unwrap_or(&nothing);
    status.toolkits = Some(count(manifest.totals.toolkits));
    status.tools = Some(count(manifest.totals.tools));
    if observed.manifest.is_some() {
        status.manifest = Some(names::manifest(&view.spec.output.name_prefix));
        status.content_hash = Some(manifest.content_hash.clone());
    }
    let changed = changed_since(observed, started_at);
    let lost = lost_since(manifest, started_at);
    let has_news = !(changed.is_empty() && lost.is_empty());
    if has_news {
        status.drift = Some(sum(changed.iter().map(|(_, drift)| *drift), &lost));
    }
    let failing = failed.iter().map(|(slug, failure)| ToolkitStatus {
        toolkit: slug.clone(),
        version: manifest.entry(slug).and_then(|entry| entry.version.clone()),
        reason: failure.reason.as_str().to_owned(),
        message: Some(truncated(&failure.message, MAX_TEXT).to_owned()),
    });
    let incomplete = manifest
        .toolkits
        .iter()
        .filter(|entry| !entry.omitted_tools.is_empty())
        .map(|entry| {
            let message = format!(
                "too large for a ConfigMap and left out: {}",
                entry.omitted_tools.join(", ")
            );
            ToolkitStatus {
                toolkit: entry.slug.clone(),
                version: entry.version.clone(),
                reason: INCOMPLETE.to_owned(),
                message: Some(truncated(&message, MAX_TEXT).to_owned()),
            }
        });
    let news: Vec<ToolkitStatus> = if has_news {
        let lost = lost.iter().map(|lost| lost_in_words(lost));
        let changed = changed.iter().map(|(record, drift)| in_words(record, drift));
        lost.chain(changed).collect()
    } else {
        let is_lost = |slug: &str| manifest.lost.iter().any(|lost| lost.slug == slug);
        let known = status.toolkit_statuses.iter();
        known
            .filter(|known| known.reason == CHANGED)
            .filter(|known| manifest.entry(&known.toolkit).is_some() || is_lost(&known.toolkit))
            .cloned()
            .collect()
    };
    let mut all: Vec<ToolkitStatus> = failing.chain(incomplete).chain(news).collect();
    let mut seen = BTreeSet::new();
    all.retain(|one| seen.insert(one.toolkit.clone()));
    all.truncate(MAX_TOOLKITS);
    let mut room = MAX_TOOLKITS_BYTES;
    all.retain(|one| {
        let texts = [one.version.as_deref(), one.message.as_deref()];
        let size = texts.into_iter().flatten().map(str::len).sum::<usize>() + one.toolkit.len();
        room = room.saturating_sub(size + OVERHEAD);
        room > 0
    });
    status.toolkit_statuses = all;
}

/// The toolkits that this sync changed. The ConfigMaps tell, so that an interrupted sync forgets none.
fn changed_since(observed: &Observed, started_at: Option<Timestamp>) -> Vec<(&Record, &Drift)> {
    let Some(started_at) = started_at.map(whole_seconds) else {
        return Vec::new();
    };
    observed
        .cached
        .iter()
        .filter_map(|cached| cached.record.as_ref())
        .filter(|record| record.synced_at >= started_at)
        .filter_map(|record| Some((record, record.drift.as_ref().filter(|drift| !drift.is_empty())?)))
        .collect()
}

/// The toolkits that this sync found to be gone.
fn lost_since(manifest: &Manifest, started_at: Option<Timestamp>) -> Vec<&Lost> {
    let started_at = started_at.map(whole_seconds);
    let lost = manifest.lost.iter();
    lost.filter(|lost| started_at.is_some_and(|started_at| lost.lost_at >= started_at))
        .collect()
}

fn lost_in_words(lost: &Lost) -> ToolkitStatus {
    ToolkitStatus {
        toolkit: lost.slug.clone(),
        version: None,
        reason: CHANGED.to_owned(),
        message: Some(format!("the toolkit is gone with its {} tools", lost.tools)),
    }
}

fn in_words(record: &Record, drift: &Drift) -> ToolkitStatus {
    let counts = drift.counts;
    let left_out = match counts.left_out {
        0 => String::new(),
        some => format!(", {some} deprecated ones left out"),
    };
    let message = format!(
        "{} added, {} removed, {} changed, {} breaking{left_out}",
        counts.added, counts.removed, counts.changed, counts.breaking
    );
    ToolkitStatus {
        toolkit: record.toolkit.clone(),
        version: record.version.clone(),
        reason: CHANGED.to_owned(),
        message: Some(message),
    }
}

fn sum<'a>(drifts: impl Iterator<Item = &'a Drift>, lost: &[&Lost]) -> DriftStatus {
    let mut total = DriftStatus::default();
    let mut words: Vec<String> = Vec::new();
    for lost in lost {
        total.removed += count(lost.tools);
        total.breaking += count(lost.tools);
        words.push(format!("{}: the toolkit is gone", lost.slug));
    }
    let mut left_out = 0;
    for drift in drifts {
        total.added += count(drift.counts.added);
        total.removed += count(drift.counts.removed);
        left_out += drift.counts.left_out;
        total.changed += count(drift.counts.changed);
        total.breaking += count(drift.counts.breaking);
        words.extend(drift.breaking.iter().take(MAX_BREAKING).cloned());
    }
    total.left_out = (left_out > 0).then(|| count(left_out));
    words.truncate(MAX_BREAKING);
    total.breaking_changes = words
        .iter()
        .map(|what| truncated(what, MAX_TEXT).to_owned())
        .collect();
    total
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
