//! Tables for the status, and for what people are told about it.

use serde_json::{Value, json};

use super::*;
use crate::api::ComposioSchemaCache;
use crate::api::conditions::{RECONCILING, STALLED};
use crate::controllers::schema_cache::observed::{CachedConfigMap, Catalogue};
use crate::controllers::schema_cache::{SyncStates, events};
use crate::runtime::summary::next_status;
use crate::schemas::drift::Counts;
use crate::schemas::manifest::Entry;
use crate::schemas::pack::Encoding;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn cache(status: &Value) -> ComposioSchemaCache {
    let object = json!({
        "apiVersion": "composio-operator.dev/v1alpha1",
        "kind": "ComposioSchemaCache",
        "metadata": {"name": "tools", "namespace": "agents", "uid": "u-1", "generation": 1},
        "spec": {},
        "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn record(slug: &str, synced_at: Timestamp, drift: Option<Drift>) -> Record {
    Record {
        toolkit: slug.to_owned(),
        version: Some("1".to_owned()),
        updated_at: None,
        settings: String::new(),
        tools: 3,
        encoding: Encoding::Json,
        sha256: slug.to_owned(),
        config_maps: vec![format!("schemas-{slug}")],
        omitted_tools: vec![],
        missing_tools: 0,
        synced_at,
        drift,
    }
}

fn observed(records: &[Record]) -> Observed {
    Observed {
        cached: records
            .iter()
            .map(|record| CachedConfigMap {
                name: record.config_maps[0].clone(),
                record: Some(record.clone()),
                sha256: Some(record.sha256.clone()),
                damaged: false,
                terminating: false,
            })
            .collect(),
        manifest: Some(Manifest::new(
            records.iter().map(Record::entry).collect::<Vec<Entry>>(),
        )),
        ..Observed::default()
    }
}

/// The status after a sync that began at 0 and took 7 calls so far.
fn next(
    status: &Value,
    observed: &Observed,
    position: impl Into<Position<Phase>>,
    now: Timestamp,
) -> ComposioSchemaCacheStatus {
    let cost = Cost {
        started_at: Some(at(0)),
        api_calls: 7,
    };
    next_with(status, observed, position, None, cost, now)
}

fn next_with(
    status: &Value,
    observed: &Observed,
    position: impl Into<Position<Phase>>,
    effect: Option<&Effect>,
    cost: Cost,
    now: Timestamp,
) -> ComposioSchemaCacheStatus {
    let cache = cache(status);
    let observed = Observed {
        cost,
        ..observed.clone()
    };
    let turn = Turn {
        view: &View::from(&cache),
        observed: &observed,
        step: None,
        effect,
        position: &position.into(),
        now,
    };
    let (status, _) = next_status(&turn);
    if !status.conditions.is_empty() {
        assert_eq!(
            conditions::kstatus_violation(&status.conditions),
            None,
            "{status:#?}"
        );
    }
    status
}

fn finished() -> Phase {
    Phase::Finished {
        failed: BTreeMap::new(),
        short: None,
    }
}

fn reason(status: &ComposioSchemaCacheStatus, type_: &str) -> (String, String) {
    let condition = conditions::find(&status.conditions, type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

#[test]
fn a_refresh_without_news_changes_nothing() {
    let observed = observed(&[record("github", at(-500), None)]);
    let first = next(&json!({}), &observed, finished(), at(10));
    assert_eq!(
        (first.state, first.toolkits, first.tools),
        (Some(CacheState::Synced), Some(1), Some(3))
    );
    assert_eq!((first.api_calls, first.duration_ms), (Some(7), Some(10_000)));
    assert_eq!(reason(&first, READY), ("True".to_owned(), "Synced".to_owned()));
    let again = next(
        &serde_json::to_value(&first).unwrap(),
        &observed,
        finished(),
        at(9000),
    );
    assert_eq!(again, first);
}

#[test]
fn what_changed_is_summed_up_and_stays_until_something_else_changes() {
    let drift = |breaking: usize| Drift {
        counts: Counts {
            added: 2,
            removed: 0,
            left_out: 0,
            changed: 3,
            breaking,
        },
        breaking: vec!["T: input a became required".to_owned(); breaking],
        ..Drift::default()
    };
    let records = [
        record("github", at(5), Some(drift(1))),
        record("reddit", at(6), Some(drift(2))),
        record("slack", at(-50), Some(drift(9))),
    ];
    let status = next(&json!({}), &observed(&records), finished(), at(10));
    let total = status.drift.clone().unwrap();
    assert_eq!(
        (
            total.added,
            total.changed,
            total.breaking,
            total.breaking_changes.len()
        ),
        (4, 6, 3, 3)
    );
    let named: Vec<_> = status
        .toolkit_statuses
        .iter()
        .map(|one| one.toolkit.as_str())
        .collect();
    assert_eq!(named, ["github", "reddit"], "what changed before is not news");
    let quiet = [
        record("github", at(-5), Some(drift(1))),
        record("reddit", at(-5), None),
    ];
    let later = next(
        &serde_json::to_value(&status).unwrap(),
        &observed(&quiet),
        finished(),
        at(20),
    );
    assert_eq!(
        (later.drift, later.toolkit_statuses),
        (status.drift, status.toolkit_statuses)
    );
}

#[test]
fn failing_toolkits_degrade_and_are_tried_again_while_the_rest_is_served() {
    let cases = [
        (Failure::transient(Reason::EmptyResponse, "none"), RECONCILING),
        (Failure::stalled(Reason::ToolkitNotFound, "unknown"), STALLED),
    ];
    for (failure, condition) in cases {
        let failed = BTreeMap::from([("github".to_owned(), failure.clone())]);
        let observed = observed(&[record("reddit", at(0), None)]);
        let status = next(
            &json!({}),
            &observed,
            Phase::Finished { failed, short: None },
            at(10),
        );
        assert_eq!(
            (status.state, status.failing_toolkits),
            (Some(CacheState::Degraded), Some(1))
        );
        assert_eq!(
            reason(&status, condition),
            ("True".to_owned(), failure.reason.to_string())
        );
        assert_eq!(reason(&status, COMPLETE).0, "False");
        assert!(status.retry.unwrap().next_attempt_at.is_some());
        assert_eq!(status.toolkit_statuses[0].toolkit, "github");
    }
}

#[test]
fn what_only_a_person_can_fix_does_not_end_the_refreshes() {
    let refused = Failure::stalled(Reason::RequestRefused, "no");
    let failed = BTreeMap::from([("github".to_owned(), refused.clone())]);
    let observed = observed(&[record("reddit", at(0), None)]);
    let short = Failure::transient(Reason::IncompleteResponse, "not all");
    let lasting = Phase::Finished {
        failed: BTreeMap::new(),
        short: Some(short),
    };
    let first = next(&json!({}), &observed, lasting.clone(), at(10))
        .retry
        .unwrap();
    assert!(first.next_attempt_at.unwrap().0 < at(60), "at first by backoff");
    let tried = |failures: i64| {
        json!({"observedGeneration": 1, "retry": {"failures": failures, "lastFailureAt": at(0),
            "nextAttemptAt": at(5), "reason": "IncompleteResponse"}})
    };
    for (status, position) in [
        (json!({}), Phase::Finished { failed, short: None }.into()),
        (json!({}), Position::Failed(refused)),
        (tried(6), lasting.into()),
    ] {
        let retry = next(&status, &observed, position, at(10)).retry.unwrap();
        let next_attempt = retry.next_attempt_at.unwrap().0;
        assert!(
            next_attempt >= at(10 + 6 * 3600) && next_attempt <= at(10 + 7 * 3600),
            "{next_attempt}"
        );
    }
}

#[test]
fn a_tool_that_fits_nowhere_is_named() {
    let mut giant = record("github", at(0), None);
    giant.omitted_tools = vec!["GIANT".to_owned()];
    let status = next(&json!({}), &observed(&[giant]), finished(), at(10));
    assert_eq!(status.state, Some(CacheState::Degraded));
    assert_eq!(
        reason(&status, READY).0,
        "True",
        "nobody can do anything about it"
    );
    assert_eq!(
        reason(&status, COMPLETE),
        ("False".to_owned(), "ToolsOmitted".to_owned())
    );
    assert!(
        status.toolkit_statuses[0]
            .message
            .as_ref()
            .unwrap()
            .contains("GIANT")
    );
}

#[test]
fn without_any_success_it_has_failed_and_with_an_older_one_it_is_degraded() {
    let down = || Position::Failed(Failure::transient(Reason::ComposioUnavailable, "down"));
    let never = next(&json!({}), &Observed::default(), down(), at(10));
    assert_eq!(never.state, Some(CacheState::Failed));
    let before = next(
        &json!({"manifest": "schemas-manifest"}),
        &Observed::default(),
        down(),
        at(10),
    );
    assert_eq!(before.state, Some(CacheState::Degraded));
}

/// Found as a sync of a second that was said to have taken nearly two: its start was known in whole seconds only.
#[test]
fn how_long_a_sync_took_is_told_to_the_millisecond_unless_another_process_began_it() {
    let milliseconds = |count| at(0) + jiff::SignedDuration::from_millis(count);
    for (remembered, expected) in [(Some(3_900), 1_000), (Some(4_200), 1_900), (None, 1_900)] {
        let cost = Cost {
            started_at: remembered.map(milliseconds),
            api_calls: 3,
        };
        let begun = json!({
            "observedGeneration": 1, "progress": {"startedAt": at(3).to_string(), "done": 1, "total": 1},
        });
        let records = observed(&[record("x", at(4), None)]);
        let status = next_with(&begun, &records, finished(), None, cost, milliseconds(4_900));
        assert_eq!(status.duration_ms, Some(expected), "{remembered:?}");
    }
}

#[test]
fn progress_shows_and_outlives_a_restart() {
    let effect = Effect::Fetched {
        done: 20,
        written: Vec::new(),
        read: BTreeSet::new(),
        failed: BTreeMap::new(),
        api_calls: 40,
        is_partial: true,
    };
    let cost = Cost {
        started_at: Some(at(3)),
        api_calls: 0,
    };
    let syncing = Phase::Syncing { done: 10, total: 45 };
    let status = next_with(
        &json!({}),
        &Observed::default(),
        syncing,
        Some(&effect),
        cost,
        at(10),
    );
    let progress = status.progress.clone().unwrap();
    assert_eq!(
        (progress.done, progress.total, progress.started_at.0),
        (30, 45, at(3))
    );
    assert_eq!(status.state, Some(CacheState::Syncing));
    // After a restart nothing is state but what status says.
    let resumed = next(
        &serde_json::to_value(&status).unwrap(),
        &observed(&[record(
            "x",
            at(4),
            Some(Drift {
                counts: Counts {
                    added: 1,
                    ..Counts::default()
                },
                ..Drift::default()
            }),
        )]),
        finished(),
        at(60),
    );
    assert_eq!((resumed.progress, resumed.drift.unwrap().added), (None, 1));
}

#[test]
fn status_stays_small_whatever_happens() {
    let long = "x".repeat(4000);
    let drift = Drift {
        counts: Counts {
            left_out: 0,
            added: 900,
            removed: 900,
            changed: 900,
            breaking: 900,
        },
        breaking: vec![long.clone(); 50],
        ..Drift::default()
    };
    let records: Vec<_> = (0..1000)
        .map(|n| record(&format!("{n:0>128}"), at(5), Some(drift.clone())))
        .collect();
    let failed = (0..1000)
        .map(|n| {
            (
                format!("{n:0>128}"),
                Failure::transient(Reason::IncompleteResponse, long.clone()),
            )
        })
        .collect();
    let status = next(
        &json!({}),
        &observed(&records),
        Phase::Finished { failed, short: None },
        at(10),
    );
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!(size < 8 * 1024, "{size}");
}

#[test]
fn news_is_told_once() {
    let failed = BTreeMap::from([(
        "github".to_owned(),
        Failure::transient(Reason::EmptyResponse, "none"),
    )]);
    let phase = Phase::Finished { failed, short: None };
    let observed = observed(&[record("reddit", at(0), None)]);
    let first = next(&json!({}), &observed, phase.clone(), at(10));
    let reasons = |old: &ComposioSchemaCacheStatus, new: &ComposioSchemaCacheStatus, phase: &Phase| {
        let told = events::of_position(old, new, &phase.clone().into());
        told.iter().map(|told| told.reason).collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(&ComposioSchemaCacheStatus::default(), &first, &phase),
        ["EmptyResponse"]
    );
    let second = next(
        &serde_json::to_value(&first).unwrap(),
        &observed,
        phase.clone(),
        at(20),
    );
    assert_eq!(reasons(&first, &second, &phase), [""; 0]);
    let well = Phase::Finished {
        failed: BTreeMap::new(),
        short: None,
    };
    let third = next(
        &serde_json::to_value(&second).unwrap(),
        &observed,
        well.clone(),
        at(30),
    );
    assert_eq!(reasons(&second, &third, &well), ["Synced"], "the failure is over");
}

/// Found as ConfigMaps that were all deleted because of one empty list, after failures of another kind.
#[test]
fn only_an_answer_of_the_list_of_auth_configs_changes_how_many_were_empty() {
    let before = json!({"observedGeneration": 1, "emptyAuthConfigLists": 3});
    let listed = |configured: &[&str]| Observed {
        catalogue: Some(Catalogue {
            configured: Some(configured.iter().map(|slug| (*slug).to_owned()).collect()),
            ..Catalogue::default()
        }),
        ..observed(&[])
    };
    let not_asked = observed(&[]);
    let failed = |reason| Position::Failed(Failure::transient(reason, "no"));
    let cases = [
        (
            "an empty list",
            listed(&[]),
            failed(Reason::EmptyResponse),
            Some(4),
        ),
        (
            "a list that did not come",
            not_asked,
            failed(Reason::EmptyResponse),
            Some(3),
        ),
        (
            "another failure",
            listed(&[]),
            failed(Reason::KubernetesApi),
            Some(3),
        ),
        (
            "a list that is not empty",
            listed(&["github"]),
            failed(Reason::KubernetesApi),
            None,
        ),
        (
            "what the empty list said is done",
            listed(&[]),
            finished().into(),
            None,
        ),
    ];
    for (what, observed, position, count) in cases {
        let status = next(&before, &observed, position, at(10));
        assert_eq!(status.empty_auth_config_lists, count, "{what}");
    }
}

#[test]
fn a_lost_toolkit_is_drift_and_stays_on_show() {
    let lost = Lost {
        slug: "slack".to_owned(),
        tools: 12,
        lost_at: at(5),
    };
    let mut observed = observed(&[record("github", at(-500), None)]);
    observed.manifest.as_mut().unwrap().lost.push(lost);
    let first = next(&json!({}), &observed, finished(), at(10));
    let drift = first.drift.clone().unwrap();
    assert_eq!((drift.removed, drift.breaking), (12, 12));
    assert_eq!(drift.breaking_changes, ["slack: the toolkit is gone"]);
    assert_eq!(first.toolkit_statuses[0].toolkit, "slack");
    let known = serde_json::to_value(&first).unwrap();
    let later = Cost {
        started_at: Some(at(8000)),
        api_calls: 3,
    };
    assert_eq!(
        next_with(&known, &observed, finished(), None, later, at(9000)),
        first
    );
}

#[test]
fn a_cache_is_verified_by_every_sync_that_ends_well_and_by_no_other() {
    let states = SyncStates::default();
    let verified = |status: &Value, position: &Position<Phase>, now| {
        let cache = cache(status);
        let view = View::from(&cache);
        states.open(view.uid, &view.key("composioschemacache"));
        let turn = Turn {
            view: &view,
            observed: &observed(&[]),
            step: None,
            effect: None,
            position,
            now,
        };
        states.verified(&turn).map(|(_, at)| at)
    };
    let recorded = json!({"lastSyncTime": at(-900)});
    let down = Failure::transient(Reason::ComposioUnavailable, "down");
    let partly = Phase::Finished {
        failed: BTreeMap::from([("github".to_owned(), down.clone())]),
        short: None,
    };
    assert_eq!(
        verified(&recorded, &Position::Failed(down), at(0)),
        Some(at(-900)),
        "what an earlier process recorded"
    );
    assert_eq!(verified(&recorded, &partly.into(), at(1)), None);
    assert_eq!(verified(&recorded, &Position::Unchanged, at(2)), None);
    for now in [at(3), at(9000)] {
        assert_eq!(verified(&recorded, &finished().into(), now), Some(now));
    }
}
