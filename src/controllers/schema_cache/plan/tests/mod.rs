//! Tables for `plan`: one rule a case.

mod doubt;
mod due;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::api::ComposioSchemaCache;
use crate::api::composio_schema_cache::SyncProgress;
use crate::controllers::schema_cache::observed::CatalogueEntry;
use crate::controllers::schema_cache::status::Effect;
use crate::schemas::pack::Encoding;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn cache(spec: &Value, status: &Value) -> ComposioSchemaCache {
    let object = json!({
        "apiVersion": "composio-operator.dev/v1alpha1",
        "kind": "ComposioSchemaCache",
        "metadata": {"name": "tools", "namespace": "agents", "uid": "u-1", "generation": 1},
        "spec": spec,
        "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn entry(version: &str) -> CatalogueEntry {
    CatalogueEntry {
        version: Some(version.to_owned()),
        updated_at: Some("then".to_owned()),
        no_auth: false,
        tools: Some(2),
    }
}

fn catalogue(configured: &[&str]) -> Catalogue {
    let mut toolkits = BTreeMap::from([
        ("github".to_owned(), entry("g1")),
        ("reddit".to_owned(), entry("r1")),
        ("slack".to_owned(), entry("s1")),
    ]);
    toolkits.insert(
        "hackernews".to_owned(),
        CatalogueEntry {
            no_auth: true,
            ..entry("h1")
        },
    );
    Catalogue {
        toolkits,
        configured: Some(configured.iter().map(|slug| (*slug).to_owned()).collect()),
        ..Catalogue::default()
    }
}

fn record(cache: &ComposioSchemaCache, slug: &str, version: &str) -> Record {
    Record {
        toolkit: slug.to_owned(),
        version: Some(version.to_owned()),
        updated_at: Some("then".to_owned()),
        settings: View::from(cache).settings(),
        tools: 2,
        encoding: Encoding::Json,
        sha256: format!("{slug} {version}"),
        config_maps: vec![format!("schemas-{slug}")],
        omitted_tools: vec![],
        missing_tools: 0,
        synced_at: at(0),
        drift: None,
    }
}

fn cached(record: &Record) -> CachedConfigMap {
    CachedConfigMap {
        name: record.config_maps[0].clone(),
        record: Some(record.clone()),
        sha256: Some(record.sha256.clone()),
        damaged: false,
        terminating: false,
    }
}

/// The plan, once it is on record that a sync has begun if one has.
fn decide(cache: &ComposioSchemaCache, observed: &Observed) -> Plan {
    let first = plan(&View::from(cache), observed, at(100));
    if first.step != Some(Step::Begin) {
        return first;
    }
    let mut begun = cache.clone();
    begun.status.get_or_insert_default().progress = Some(SyncProgress {
        started_at: Time(at(100)),
        done: 0,
        total: 1,
    });
    plan(&View::from(&begun), observed, at(100))
}

fn fetched(plan: &Plan) -> Vec<&str> {
    match &plan.step {
        Some(Step::Fetch { toolkits }) => toolkits.iter().map(|desired| desired.slug.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Everything of `slugs` is cached and the manifest says so.
fn settled(cache: &ComposioSchemaCache, slugs: &[(&str, &str)]) -> Observed {
    let records: Vec<Record> = slugs
        .iter()
        .map(|(slug, version)| record(cache, slug, version))
        .collect();
    Observed {
        cached: records.iter().map(cached).collect(),
        manifest: Some(Manifest::new(records.iter().map(Record::entry).collect())),
        manifest_is_of_spec: true,
        manifest_is_labelled: true,
        checked_at: Some(at(90)),
        ..Observed::default()
    }
}

fn synced_status() -> Value {
    json!({"observedGeneration": 1, "manifest": "schemas-manifest", "lastSyncTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn what_is_selected_is_what_is_discovered_and_included_without_what_is_excluded() {
    let cases = [
        (json!({}), vec!["github", "hackernews"]),
        (json!({"noAuth": false}), vec!["github"]),
        (
            json!({"include": ["slack"]}),
            vec!["github", "hackernews", "slack"],
        ),
        (
            json!({"include": ["slack"], "exclude": ["github", "hackernews"]}),
            vec!["slack"],
        ),
        (
            json!({"discover": "All"}),
            vec!["github", "hackernews", "reddit", "slack"],
        ),
        (
            json!({"discover": "All", "noAuth": false}),
            vec!["github", "reddit", "slack"],
        ),
        (json!({"discover": "None", "include": ["reddit"]}), vec!["reddit"]),
    ];
    for (toolkits, desired) in cases {
        let cache = cache(&json!({"toolkits": toolkits}), &json!({}));
        let observed = Observed {
            catalogue: Some(catalogue(&["github"])),
            ..Observed::default()
        };
        assert_eq!(fetched(&decide(&cache, &observed)), desired, "{toolkits}");
    }
}

#[test]
fn only_what_moved_is_fetched_again() {
    type Change = fn(&mut Observed);

    let cache = cache(&json!({"versions": {"slack": "s0"}}), &synced_status());
    let configured = catalogue(&["github", "reddit", "slack"]);
    let all = [
        ("github", "g1"),
        ("reddit", "r1"),
        ("slack", "s0"),
        ("hackernews", "h1"),
    ];
    let nothing_new = Observed {
        catalogue: Some(configured.clone()),
        ..settled(&cache, &all)
    };
    assert_eq!(
        decide(&cache, &nothing_new).position,
        Phase::Finished {
            failed: BTreeMap::new(),
            short: None,
        }
        .into()
    );

    let changes: [(&str, Change); 6] = [
        ("a new version", |o| {
            o.catalogue
                .as_mut()
                .unwrap()
                .toolkits
                .insert("github".into(), entry("g2"));
        }),
        ("a new update time", |o| {
            o.catalogue
                .as_mut()
                .unwrap()
                .toolkits
                .get_mut("github")
                .unwrap()
                .updated_at = Some("now".into());
        }),
        ("other settings", |o| {
            o.cached[0].record.as_mut().unwrap().settings = "other".into();
        }),
        ("damage", |o| o.cached[0].damaged = true),
        ("a missing continuation", |o| {
            o.cached[0]
                .record
                .as_mut()
                .unwrap()
                .config_maps
                .push("schemas-github.2".into());
        }),
        ("edited annotations", |o| o.cached[0].record = None),
    ];
    for (what, change) in changes {
        let mut observed = nothing_new.clone();
        change(&mut observed);
        assert_eq!(fetched(&decide(&cache, &observed)), ["github"], "{what}");
    }
    let mut pinned = nothing_new;
    let toolkits = &mut pinned.catalogue.as_mut().unwrap().toolkits;
    toolkits.insert(
        "slack".into(),
        CatalogueEntry {
            updated_at: Some("now".into()),
            ..entry("s2")
        },
    );
    assert_eq!(
        decide(&cache, &pinned).step,
        None,
        "a pinned toolkit does not move"
    );
}

#[test]
fn the_manifest_follows_the_last_toolkit_and_deletion_follows_the_manifest() {
    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &json!({}));
    let mut observed = settled(&cache, &[("github", "g1"), ("slack", "s1")]);
    observed.catalogue = Some(catalogue(&["github", "reddit"]));
    assert_eq!(fetched(&decide(&cache, &observed)), ["reddit"]);

    observed.cached.push(cached(&record(&cache, "reddit", "r1")));
    let Some(Step::WriteManifest(manifest)) = decide(&cache, &observed).step else {
        panic!("no manifest");
    };
    let slugs: Vec<_> = manifest
        .toolkits
        .iter()
        .map(|entry| entry.slug.as_str())
        .collect();
    assert_eq!(slugs, ["github", "reddit"]);

    observed.manifest = Some(manifest);
    let names = vec!["schemas-slack".to_owned()];
    assert_eq!(decide(&cache, &observed).step, Some(Step::Delete { names }));
}

#[test]
fn a_toolkit_that_fails_keeps_its_last_good_config_map_and_is_marked() {
    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let mut observed = settled(&cache, &[("github", "g0")]);
    observed.catalogue = Some(catalogue(&["github"]));
    observed.failed.insert(
        "github".to_owned(),
        Failure::transient(Reason::EmptyResponse, "none"),
    );
    let Some(Step::WriteManifest(manifest)) = decide(&cache, &observed).step else {
        panic!("no manifest");
    };
    let stale = manifest.toolkits[0].stale.clone().unwrap();
    assert_eq!((stale.since, stale.reason.as_str()), (at(100), "EmptyResponse"));

    observed.manifest = Some(manifest.clone());
    let later = plan(&View::from(&cache), &observed, at(5000));
    assert_eq!(later.step, None, "the mark keeps its first time");
    assert!(
        matches!(later.position, Position::At(Phase::Finished { failed, .. }) if failed.contains_key("github"))
    );
}

#[test]
fn an_unknown_toolkit_is_named_and_the_rest_is_cached() {
    let spec = json!({"toolkits": {"discover": "None", "include": ["nosuch", "github"]}});
    let cache = cache(&spec, &json!({}));
    let mut observed = Observed {
        catalogue: Some(catalogue(&[])),
        ..Observed::default()
    };
    assert_eq!(fetched(&decide(&cache, &observed)), ["github"]);
    observed = Observed {
        catalogue: observed.catalogue,
        ..settled(&cache, &[("github", "g1")])
    };
    let Position::At(Phase::Finished { failed, .. }) = decide(&cache, &observed).position else {
        panic!("not finished");
    };
    assert_eq!(failed["nosuch"].reason, Reason::ToolkitNotFound);
}

#[test]
fn a_first_sync_that_brought_nothing_leaves_nothing_behind() {
    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &json!({}));
    let mut observed = Observed {
        catalogue: Some(catalogue(&["github"])),
        ..Observed::default()
    };
    observed.failed.insert(
        "github".to_owned(),
        Failure::transient(Reason::ComposioUnavailable, "down"),
    );
    let plan = decide(&cache, &observed);
    assert_eq!(plan.step, None);
    assert!(matches!(plan.position, Position::At(Phase::Finished { .. })));
}

#[test]
fn the_manifest_is_written_again_when_only_its_labels_are_old() {
    let calm = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let mut observed = settled(&calm, &[("github", "g1")]);
    observed.catalogue = Some(catalogue(&["github"]));
    assert_eq!(decide(&calm, &observed).step, None);
    observed.manifest_is_labelled = false;
    assert!(matches!(
        decide(&calm, &observed).step,
        Some(Step::WriteManifest(_))
    ));
}

/// Found when a part of an older version was restored from a backup: whole in itself, and of no use.
#[test]
fn parts_of_different_contents_are_no_toolkit() {
    let calm = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let mut observed = settled(&calm, &[("github", "g1")]);
    let parts = ["schemas-github", "schemas-github.2"].map(str::to_owned);
    let mut record = record(&calm, "github", "g1");
    record.config_maps = parts.to_vec();
    observed.manifest = Some(Manifest::new(vec![record.entry()]));
    let part = |name: &String, sha256: &str| CachedConfigMap {
        name: name.clone(),
        record: (*name == parts[0]).then(|| record.clone()),
        sha256: Some(sha256.to_owned()),
        damaged: false,
        terminating: false,
    };
    observed.checked_at = Some(at(0));
    let due = |observed: &Observed| is_due(&View::from(&calm), observed, at(100));
    observed.cached = parts.iter().map(|name| part(name, &record.sha256)).collect();
    assert!(!due(&observed));
    observed.cached[1] = part(&parts[1], "another");
    assert!(due(&observed));
    observed.catalogue = Some(catalogue(&["github"]));
    assert_eq!(fetched(&decide(&calm, &observed)), ["github"]);
    // It cannot be had at the moment: nobody is led to what does not fit together, and nothing of it is deleted.
    let down = Failure::transient(Reason::ComposioUnavailable, "down");
    observed.failed.insert("github".to_owned(), down);
    let Some(Step::WriteManifest(manifest)) = decide(&calm, &observed).step else {
        panic!("the manifest names it no more");
    };
    assert_eq!(manifest.toolkits, []);
    observed.manifest = Some(manifest);
    assert_eq!(decide(&calm, &observed).step, None);
}

/// Found as deletions without end of a ConfigMap that a finalizer holds back.
#[test]
fn what_is_being_deleted_is_not_deleted_again() {
    let calm = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let mut observed = settled(&calm, &[("github", "g1")]);
    observed.catalogue = Some(catalogue(&["github"]));
    observed.cached.push(cached(&record(&calm, "slack", "s1")));
    let names = vec!["schemas-slack".to_owned()];
    assert_eq!(decide(&calm, &observed).step, Some(Step::Delete { names }));
    observed.cached[1].terminating = true;
    let plan = decide(&calm, &observed);
    assert_eq!(plan.step, None);
    assert!(matches!(plan.position, Position::At(Phase::Finished { .. })));
}

/// Plays a whole sync on what is known of its own effects.
#[test]
fn a_sync_goes_through_without_observing_again() {
    let cache = cache(&json!({}), &json!({}));
    let mut begun = cache.clone();
    begun.status.get_or_insert_default().progress = Some(SyncProgress {
        started_at: Time(at(100)),
        done: 0,
        total: 2,
    });
    let mut observed = settled(&cache, &[("github", "g0"), ("reddit", "r1")]);
    observed.catalogue = Some(catalogue(&["github"]));
    let mut steps = Vec::new();
    let mut view = View::from(&cache);
    for _ in 0..10 {
        let Plan { step, position, .. } = plan(&view, &observed, at(100));
        let Some(step) = step else {
            let Position::At(Phase::Finished { failed, .. }) = position else {
                panic!("{position:?}");
            };
            assert_eq!(failed, BTreeMap::new());
            break;
        };
        let (name, effect) = match &step {
            Step::Begin => ("begin", Effect::Done),
            Step::Fetch { .. } => {
                let written = [("github", "g1"), ("hackernews", "h1")];
                let effect = Effect::Fetched {
                    done: 2,
                    written: written
                        .map(|(slug, version)| cached(&record(&cache, slug, version)))
                        .into(),
                    read: BTreeSet::from(["github", "hackernews"].map(str::to_owned)),
                    failed: BTreeMap::new(),
                    api_calls: 4,
                    is_partial: false,
                };
                ("fetch", effect)
            }
            Step::WriteManifest(_) => ("manifest", Effect::Done),
            Step::Delete { .. } => ("delete", Effect::Done),
        };
        steps.push(name);
        observed = observed.after(&step, &effect).expect("all went well");
        view = View::from(&begun);
    }
    assert_eq!(steps, ["begin", "fetch", "manifest", "delete"]);
    let names: Vec<_> = observed
        .cached
        .iter()
        .map(|cached| cached.name.as_str())
        .collect();
    assert_eq!(names, ["schemas-github", "schemas-hackernews"]);
}

/// Without observing again the manifest would name a toolkit of which one part is new and another one old.
#[test]
fn what_failed_may_have_been_written_in_part_and_is_observed_again() {
    let broken = Failure::transient(Reason::KubernetesApi, "gone away");
    let fetch = Step::Fetch { toolkits: vec![] };
    let fetched = |failed| Effect::Fetched {
        done: 1,
        written: vec![],
        read: BTreeSet::new(),
        failed,
        api_calls: 2,
        is_partial: false,
    };
    let one = BTreeMap::from([("github".to_owned(), broken)]);
    let after = |step: &Step, effect: &Effect| Observed::default().after(step, effect).is_some();
    assert!(after(&fetch, &fetched(BTreeMap::new())));
    assert!(!after(&fetch, &fetched(one)));
}
