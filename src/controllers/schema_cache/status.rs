//! The next status: a pure function of the old one, the plan and what came of it. And the events that follow from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{Held, Observed, Subject};
use super::plan::{Phase, Plan, refresh_interval};
use crate::api::RetryStatus;
use crate::api::composio_schema_cache::{
    COMPLETE, CacheState, ComposioSchemaCacheStatus, DriftStatus, SyncProgress, ToolkitStatus,
};
use crate::api::conditions::{self, READY, RECONCILING, STALLED, Truth, truncated, whole_seconds};
use crate::controllers::failure::{Class, Failure, Reason};
use crate::controllers::retry;
use crate::schemas::drift::Drift;
use crate::schemas::manifest::Manifest;
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
/// Most failing toolkits that a condition names.
const MAX_NAMED: usize = 5;
/// Longest text about a toolkit or a change, in bytes.
const MAX_TEXT: usize = 120;
/// Reason of a toolkit whose tools changed.
const CHANGED: &str = "Changed";
/// Reason of a toolkit with a tool that fits into no ConfigMap.
const INCOMPLETE: &str = "Incomplete";

/// What came of a plan's step.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Acted {
    /// The plan had no step.
    #[default]
    Nothing,
    /// Done.
    Done,
    /// Toolkits were read, as many as there was time for.
    Fetched {
        /// How many were brought up to date.
        done: usize,
        /// Their ConfigMaps.
        written: Vec<Held>,
        /// Those that could not be.
        failed: BTreeMap<String, Failure>,
        /// Why no more were tried. None: all were, or the time was up.
        stopped: Option<Failure>,
    },
    /// The step failed.
    Failed(Failure),
}

/// What a sync cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Calls of the Composio API so far.
    pub api_calls: u64,
}

/// Where the object stands after the step.
pub fn final_phase(plan: &Plan, acted: &Acted) -> Phase {
    match acted {
        Acted::Failed(failure)
        | Acted::Fetched {
            stopped: Some(failure),
            ..
        } => Phase::Failed(failure.clone()),
        _ => plan.phase.clone(),
    }
}

/// Computes the next status. A sync that found everything as it was leaves it as it is.
pub fn next_status(
    subject: &Subject<'_>,
    observed: &Observed,
    plan: &Plan,
    acted: &Acted,
    cost: Cost,
    now: Timestamp,
) -> ComposioSchemaCacheStatus {
    let old = subject.status;
    let mut status = old.clone();
    let phase = final_phase(plan, acted);
    if phase != Phase::Keep {
        status.observed_generation = Some(subject.generation);
    }
    let recorded = old.progress.as_ref().map(|progress| progress.started_at.0);
    // Times in status are whole seconds. One that differs is of a sync that an earlier process began.
    let remembered = cost
        .started_at
        .filter(|started_at| recorded.is_none_or(|recorded| recorded == whole_seconds(*started_at)));
    let started_at = remembered.or(recorded);
    match &phase {
        Phase::Keep => return status,
        Phase::Suspended => {}
        Phase::Syncing { done, total } => {
            let more = match acted {
                Acted::Fetched { done, failed, .. } => done + failed.len(),
                _ => 0,
            };
            status.progress = Some(SyncProgress {
                started_at: Time(whole_seconds(started_at.unwrap_or(now))),
                done: count(done + more),
                total: count(*total),
            });
        }
        Phase::Finished { failed } => {
            note_result(&mut status, subject, observed, failed, started_at);
        }
        Phase::Failed(failure) => {
            status.retry = Some(retry_after(subject, failure, now));
        }
    }
    if matches!(phase, Phase::Finished { .. } | Phase::Failed(_))
        && let Some(token) = subject.open_request()
    {
        status.last_handled_request_at = Some(token.to_owned());
    }
    if let Phase::Finished { failed } = &phase {
        status.retry = worst(failed).map(|failure| retry_after(subject, &failure, now));
    }
    judge(&mut status, &phase, observed, subject.generation, now);
    if matches!(phase, Phase::Finished { .. }) && status != *old {
        let started_at = started_at.unwrap_or(now);
        status.last_sync_time = Some(Time(whole_seconds(now)));
        let next = whole_seconds(now).checked_add(refresh_interval(subject));
        status.next_sync_time = next.ok().map(|next| Time(whole_seconds(next)));
        status.duration_ms = i64::try_from(now.duration_since(started_at).as_millis()).ok();
        status.api_calls = i64::try_from(cost.api_calls).ok();
    }
    status
}

/// What only a person can mend is looked at again with the next refresh: the rest must not wait for it.
fn retry_after(subject: &Subject<'_>, failure: &Failure, now: Timestamp) -> RetryStatus {
    let mut retry = retry::after(subject.standing_failure(), failure, subject.seed(), now);
    // These are looked at sooner: it costs next to nothing.
    let is_cheap = matches!(
        failure.reason,
        Reason::ApiKeyRejected | Reason::ApiKeyForbidden | Reason::ConfigMapConflict
    );
    if failure.class == Class::Stalled && !is_cheap {
        let next = whole_seconds(now).checked_add(refresh_interval(subject));
        retry.next_attempt_at = next.ok().map(|next| Time(whole_seconds(next)));
    }
    retry
}

fn note_result(
    status: &mut ComposioSchemaCacheStatus,
    subject: &Subject<'_>,
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
        status.manifest = Some(names::manifest(&subject.spec.output.name_prefix));
        status.content_hash = Some(manifest.content_hash.clone());
    }
    let changed = changed_since(observed, started_at);
    if !changed.is_empty() {
        status.drift = Some(sum(changed.iter().map(|(_, drift)| *drift)));
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
    let news: Vec<ToolkitStatus> = if changed.is_empty() {
        let known = status.toolkit_statuses.iter();
        known
            .filter(|known| known.reason == CHANGED && manifest.entry(&known.toolkit).is_some())
            .cloned()
            .collect()
    } else {
        changed
            .iter()
            .map(|(record, drift)| in_words(record, drift))
            .collect()
    };
    let mut all: Vec<ToolkitStatus> = failing.chain(incomplete).chain(news).collect();
    let mut seen = std::collections::BTreeSet::new();
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
        .held
        .iter()
        .filter_map(|held| held.record.as_ref())
        .filter(|record| record.synced_at >= started_at)
        .filter_map(|record| Some((record, record.drift.as_ref().filter(|drift| !drift.is_empty())?)))
        .collect()
}

fn in_words(record: &Record, drift: &Drift) -> ToolkitStatus {
    let counts = drift.counts;
    let message = format!(
        "{} added, {} removed, {} changed, {} breaking",
        counts.added, counts.removed, counts.changed, counts.breaking
    );
    ToolkitStatus {
        toolkit: record.toolkit.clone(),
        version: record.version.clone(),
        reason: CHANGED.to_owned(),
        message: Some(message),
    }
}

fn sum<'a>(drifts: impl Iterator<Item = &'a Drift>) -> DriftStatus {
    let mut total = DriftStatus::default();
    for drift in drifts {
        total.added += count(drift.counts.added);
        total.removed += count(drift.counts.removed);
        total.changed += count(drift.counts.changed);
        total.breaking += count(drift.counts.breaking);
        let room = MAX_BREAKING - total.breaking_changes.len();
        let words = drift.breaking.iter().take(room);
        total
            .breaking_changes
            .extend(words.map(|what| truncated(what, MAX_TEXT).to_owned()));
    }
    total
}

/// The failure that decides when the failing toolkits are tried again, in words about all of them.
pub fn worst(failed: &BTreeMap<String, Failure>) -> Option<Failure> {
    let rank = |failure: &Failure| match failure.class {
        Class::Transient => 0,
        Class::Waiting => 1,
        Class::Stalled => 2,
    };
    let (_, failure) = failed.iter().min_by_key(|(_, failure)| rank(failure))?;
    let message = match failed.iter().next() {
        Some((slug, only)) if failed.len() == 1 => format!("{slug}: {}", only.message),
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
            format!(
                "{} toolkits could not be brought up to date: {}{more}",
                failed.len(),
                names.join(", ")
            )
        }
    };
    Some(Failure {
        message,
        ..failure.clone()
    })
}

fn judge(
    status: &mut ComposioSchemaCacheStatus,
    phase: &Phase,
    observed: &Observed,
    generation: i64,
    now: Timestamp,
) {
    let has_cache = status.manifest.is_some();
    let omits = observed.manifest.as_ref().is_some_and(|manifest| {
        manifest
            .toolkits
            .iter()
            .any(|entry| !entry.omitted_tools.is_empty())
    });
    let failure = match phase {
        Phase::Failed(failure) => Some(failure.clone()),
        Phase::Finished { failed } => worst(failed),
        _ => None,
    };
    let verdict = match (phase, &failure) {
        (Phase::Keep, _) => return,
        (Phase::Suspended, _) => {
            let was_ready = conditions::is_true(&status.conditions, READY);
            let ready = if was_ready { Truth::True } else { Truth::False };
            Verdict {
                ready,
                ..Verdict::resting(
                    "Suspended",
                    "spec.suspend is true: nothing is done until it is false",
                )
            }
        }
        (Phase::Syncing { done, total }, _) => {
            // What came of the last sync holds while newer versions are read; status.progress shows that they are.
            let ready = conditions::find(&status.conditions, READY);
            if ready.is_some_and(|ready| {
                ready.observed_generation == Some(generation)
                    && ready.reason != "Syncing"
                    && ready.reason != "Suspended"
            }) {
                return;
            }
            status.state = Some(CacheState::Syncing);
            Verdict::working("Syncing", format!("{done} of {total} toolkits are up to date"))
        }
        (_, Some(failure)) => {
            status.state = Some(if has_cache {
                CacheState::Degraded
            } else {
                CacheState::Failed
            });
            let reason = failure.reason.as_str();
            match failure.class {
                Class::Stalled => Verdict {
                    stalled: true,
                    ..Verdict::resting(reason, failure.message.clone())
                },
                Class::Waiting | Class::Transient => Verdict::working(reason, failure.message.clone()),
            }
        }
        (Phase::Finished { .. } | Phase::Failed(_), None) => {
            status.state = Some(if omits {
                CacheState::Degraded
            } else {
                CacheState::Synced
            });
            let message = format!(
                "{} tools of {} toolkits are cached",
                status.tools.unwrap_or_default(),
                status.toolkits.unwrap_or_default()
            );
            Verdict {
                ready: Truth::True,
                ..Verdict::resting("Synced", message)
            }
        }
    };
    let complete = match (phase, &failure) {
        (Phase::Suspended | Phase::Keep, _) => None,
        (Phase::Syncing { .. }, _) if has_cache_condition(status) => None,
        (Phase::Syncing { .. }, _) => Some((Truth::Unknown, "Syncing", String::new())),
        (_, Some(failure)) => Some((Truth::False, failure.reason.as_str(), failure.message.clone())),
        _ if omits => Some((
            Truth::False,
            "ToolsOmitted",
            "some tools are too large for a ConfigMap and left out: see status.toolkitStatuses".to_owned(),
        )),
        _ => Some((Truth::True, "Complete", String::new())),
    };
    let abnormal = |holds: bool| {
        if holds {
            (Truth::True, verdict.message.as_str())
        } else {
            (Truth::False, "")
        }
    };
    let conditions = &mut status.conditions;
    let mut set = |type_, truth, reason, message: &str| {
        conditions::set(conditions, type_, truth, reason, message, Some(generation), now);
    };
    set(READY, verdict.ready, verdict.reason, &verdict.message);
    let (truth, message) = abnormal(verdict.reconciling);
    set(RECONCILING, truth, verdict.reason, message);
    let (truth, message) = abnormal(verdict.stalled);
    set(STALLED, truth, verdict.reason, message);
    if let Some((truth, reason, message)) = complete {
        set(COMPLETE, truth, reason, &message);
    }
}

fn has_cache_condition(status: &ComposioSchemaCacheStatus) -> bool {
    conditions::find(&status.conditions, COMPLETE).is_some()
}

/// What the conditions say.
struct Verdict {
    ready: Truth,
    reconciling: bool,
    stalled: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn resting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::False,
            reconciling: false,
            stalled: false,
            reason,
            message: message.into(),
        }
    }

    fn working(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reconciling: true,
            ..Self::resting(reason, message)
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
