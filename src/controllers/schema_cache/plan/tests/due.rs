//! When a sync, a repair or a further try is due.

use super::*;

#[test]
fn an_empty_list_of_auth_configs_is_believed_only_after_some_lists() {
    let spec = json!({"toolkits": {"include": ["slack"], "exclude": ["reddit"]}});
    let with = |count: Option<i64>, failures: i64, toolkits: &[(&str, &str)]| {
        let mut status = synced_status();
        status["emptyAuthConfigLists"] = json!(count);
        status["toolkits"] = json!(toolkits.len());
        status["retry"] = json!({"failures": failures, "lastFailureAt": at(0), "nextAttemptAt": at(1),
            "reason": "EmptyResponse"});
        let cache = cache(&spec, &status);
        let observed = Observed {
            catalogue: Some(catalogue(&[])),
            ..settled(&cache, toolkits)
        };
        (cache, observed)
    };
    let doubts = |(cache, observed): &(ComposioSchemaCache, Observed)| matches!(&decide(cache, observed).position, Position::Failed(failure) if failure.reason == Reason::EmptyResponse);
    let lost = [("github", "g1"), ("hackernews", "h1"), ("slack", "s1")];
    assert!(doubts(&with(None, 0, &lost)));
    assert!(
        doubts(&with(Some(5), 40, &lost)),
        "failures of other kinds are no lists"
    );
    let convinced = with(Some(6), 6, &lost);
    assert!(!doubts(&convinced));
    assert!(
        matches!(decide(&convinced.0, &convinced.1).step, Some(Step::WriteManifest(m)) if m.entry("github").is_none())
    );

    let mut without_manifest = with(None, 0, &lost);
    without_manifest.1.manifest = None;
    assert!(doubts(&without_manifest), "the ConfigMaps tell of it");
    without_manifest.1.cached.clear();
    assert!(doubts(&without_manifest), "the status tells of it");

    let kept = [("hackernews", "h1"), ("reddit", "r1"), ("slack", "s1")];
    assert!(!doubts(&with(None, 0, &kept)), "the list would change nothing");
}

#[test]
fn a_sync_is_due_when_something_asks_for_it_and_at_no_other_time() {
    let due =
        |cache: &ComposioSchemaCache, observed: &Observed| is_due(&View::from(cache), observed, at(100));
    let spec = json!({"refreshInterval": "1h"});
    let calm = cache(&spec, &synced_status());
    let observed = settled(&calm, &[("github", "g1")]);
    assert!(!due(&calm, &observed));
    assert!(due(&cache(&spec, &json!({})), &Observed::default()), "new");

    let mut status = synced_status();
    status["observedGeneration"] = json!(0);
    assert!(due(&cache(&spec, &status), &observed), "another spec");

    let mut status = synced_status();
    status["progress"] = json!({"startedAt": "2026-01-01T00:00:00Z", "done": 1, "total": 2});
    assert!(due(&cache(&spec, &status), &observed), "cut off in the middle");

    let mut asked = calm.clone();
    asked.metadata.annotations = Some(BTreeMap::from([(
        crate::api::REQUESTED_AT_ANNOTATION.to_owned(),
        "now".to_owned(),
    )]));
    assert!(due(&asked, &observed), "a request");

    let old = Observed {
        checked_at: Some(at(-4000)),
        ..observed.clone()
    };
    let mut status = synced_status();
    status["lastSyncTime"] = json!("2025-12-31T00:00:00Z");
    assert!(due(&cache(&spec, &status), &old), "the interval is over");
    assert!(
        !due(&cache(&spec, &status), &observed),
        "unchanged refreshes count although status does not show them"
    );

    let mut damaged = observed.clone();
    damaged.cached[0].damaged = true;
    damaged.checked_at = Some(at(99));
    assert!(
        due(&calm, &damaged),
        "what was deleted during a sync comes back at once"
    );
    damaged.repaired_at = Some(at(80));
    assert!(due(&calm, &damaged), "a foreign edit");
    damaged.repaired_at = Some(at(95));
    assert!(!due(&calm, &damaged), "not in a circle");

    let mut status = synced_status();
    status["retry"] = json!({"failures": 1, "lastFailureAt": "2026-01-01T00:00:00Z",
        "nextAttemptAt": "2026-01-01T00:01:50Z", "reason": "EmptyResponse"});
    assert!(!due(&cache(&spec, &status), &old), "too early");
    status["retry"]["nextAttemptAt"] = json!("2026-01-01T00:01:30Z");
    assert!(due(&cache(&spec, &status), &observed), "time to try again");
}

#[test]
fn a_missing_manifest_is_repaired() {
    let calm = cache(&json!({}), &synced_status());
    let mut observed = settled(&calm, &[("github", "g1")]);
    observed.manifest = None;
    observed.checked_at = Some(at(0));
    assert!(is_due(&View::from(&calm), &observed, at(100)));
    observed.catalogue = Some(catalogue(&["github"]));
    observed.cached.push(cached(&record(&calm, "hackernews", "h1")));
    assert!(matches!(
        decide(&calm, &observed).step,
        Some(Step::WriteManifest(_))
    ));
}

fn failing(reason: &str, next_attempt_at: Option<i64>) -> Value {
    let mut status = synced_status();
    status["lastSyncTime"] = json!("2025-12-31T00:00:00Z");
    status["retry"] = json!({"failures": 1, "lastFailureAt": at(0), "nextAttemptAt": next_attempt_at.map(at),
        "reason": reason});
    status
}

/// Found as a reconcile every 50 ms from the end of the refresh interval to the next try.
#[test]
fn while_a_failure_stands_nobody_is_woken_before_its_time() {
    let spec = json!({"refreshInterval": "1h"});
    let cache_with = |next| cache(&spec, &failing("ComposioUnavailable", next));
    let calm = cache_with(Some(110));
    let overdue = Observed {
        checked_at: Some(at(-4000)),
        ..settled(&calm, &[("github", "g1")])
    };
    let mut damaged = overdue.clone();
    damaged.cached[0].damaged = true;
    for observed in [&overdue, &damaged] {
        let plan = decide(&calm, observed);
        assert_eq!(
            plan,
            Plan::rest(Position::Unchanged).requeue_in(Duration::from_secs(10))
        );
        assert_eq!(decide(&cache_with(None), observed).requeue_after, None);
    }
}

/// Found as an edit that stayed for six hours, because `include` named a toolkit that does not exist.
#[test]
fn an_unknown_toolkit_does_not_keep_the_others_from_being_repaired() {
    let calm = cache(&json!({}), &failing("ToolkitNotFound", Some(5000)));
    let mut observed = settled(&calm, &[("github", "g1")]);
    observed.repaired_at = Some(at(80));
    let due = |observed: &Observed| is_due(&View::from(&calm), observed, at(100));
    assert!(!due(&observed));
    observed.cached[0].damaged = true;
    assert!(due(&observed));
    observed.repaired_at = Some(at(95));
    assert!(!due(&observed), "not in a circle");
    assert_eq!(
        decide(&calm, &observed).requeue_after,
        Some(Duration::from_secs(5))
    );
}

/// Found when the operator was killed early in a sync, and nobody ever heard of a breaking change.
#[test]
fn that_a_sync_begins_is_on_record_before_it_changes_anything() {
    let new = cache(&json!({"toolkits": {"noAuth": false}}), &json!({}));
    let observed = Observed {
        catalogue: Some(catalogue(&["github"])),
        ..Observed::default()
    };
    let first = plan(&View::from(&new), &observed, at(100));
    assert_eq!(first.step, Some(Step::Begin));
    assert_eq!(first.position, Phase::Syncing { done: 0, total: 1 }.into());
    assert_eq!(fetched(&decide(&new, &observed)), ["github"]);
}

#[test]
fn what_is_certain_to_be_asked_needs_no_list_of_config_maps() {
    let spec = json!({});
    let calm = cache(&spec, &synced_status());
    let desired = |cache: &ComposioSchemaCache| is_wanted(&View::from(cache));
    assert!(!desired(&calm), "only the interval or an edit can ask for it");
    let new = cache(&spec, &json!({}));
    assert!(desired(&new), "a new spec");
    let mut begun = synced_status();
    begun["progress"] = json!({"startedAt": at(0), "done": 0, "total": 1});
    assert!(desired(&cache(&spec, &begun)), "cut off in the middle");
    assert!(
        !desired(&cache(&spec, &failing("ComposioUnavailable", Some(50)))),
        "a failure stands, whatever its time"
    );
    let mut asked = cache(&spec, &failing("ComposioUnavailable", Some(5000)));
    asked.metadata.annotations = Some(BTreeMap::from([(
        crate::api::REQUESTED_AT_ANNOTATION.to_owned(),
        "now".to_owned(),
    )]));
    assert!(desired(&asked), "a request");
}
