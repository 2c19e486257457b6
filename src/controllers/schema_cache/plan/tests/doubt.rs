//! What Composio lists is doubted: nothing that is cached is lost, and no toolkit pays for another.

use super::*;

fn phase(plan: &Plan) -> (&BTreeMap<String, Failure>, Option<&Failure>) {
    match &plan.position {
        Position::At(Phase::Finished { failed, short }) => (failed, short.as_ref()),
        other => panic!("{other:?}, {:?}", plan.step),
    }
}

/// A catalogue that lacks Slack and Hacker News.
fn without_two(configured: &[&str]) -> Catalogue {
    let mut catalogue = catalogue(configured);
    catalogue
        .toolkits
        .retain(|slug, _| !["slack", "hackernews"].contains(&slug.as_str()));
    Catalogue {
        missing_toolkits: 2,
        ..catalogue
    }
}

#[test]
fn a_short_catalogue_deletes_nothing_and_the_missing_number_is_said() {
    let all = [
        ("github", "g1"),
        ("hackernews", "h1"),
        ("reddit", "r1"),
        ("slack", "s1"),
    ];
    let cases = [
        (json!({"discover": "All"}), true),
        (json!({"include": ["reddit"]}), true),
        // Nothing is selected because the catalogue lists it.
        (json!({"noAuth": false, "include": ["reddit"]}), false),
        (
            json!({"discover": "None", "include": ["github", "reddit"]}),
            false,
        ),
    ];
    for (toolkits, depends) in cases {
        let cache = cache(&json!({"toolkits": toolkits}), &synced_status());
        let observed = Observed {
            catalogue: Some(without_two(&["github"])),
            ..settled(&cache, &all)
        };
        let plan = decide(&cache, &observed);
        if depends {
            let (_, short) = phase(&plan);
            let short = short.expect("it is said");
            assert_eq!(short.reason, Reason::IncompleteResponse);
            assert!(short.message.contains("2 toolkits"), "{}", short.message);
        } else {
            let Some(Step::WriteManifest(manifest)) = plan.step else {
                panic!("{toolkits}: {plan:?}");
            };
            let slugs: Vec<_> = manifest
                .toolkits
                .iter()
                .map(|entry| entry.slug.as_str())
                .collect();
            assert_eq!(slugs, ["github", "reddit"], "{toolkits}");
        }
    }
}

#[test]
fn what_a_short_catalogue_does_list_is_read() {
    let cache = cache(&json!({"toolkits": {"discover": "All"}}), &json!({}));
    let observed = Observed {
        catalogue: Some(without_two(&[])),
        ..settled(&cache, &[("slack", "s0")])
    };
    assert_eq!(fetched(&decide(&cache, &observed)), ["github", "reddit"]);
}

#[test]
fn an_auth_config_that_cannot_be_read_deletes_nothing() {
    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    for configured in [&["github"][..], &[]] {
        let observed = Observed {
            catalogue: Some(Catalogue {
                missing_auth_configs: 1,
                ..catalogue(configured)
            }),
            ..settled(&cache, &[("github", "g1"), ("slack", "s1")])
        };
        let plan = decide(&cache, &observed);
        let (failed, short) = phase(&plan);
        assert_eq!(
            (failed.len(), short.map(|short| short.reason)),
            (0, Some(Reason::IncompleteResponse))
        );
    }
}

/// Found as caches without a single ConfigMap, because one toolkit that was included could not be asked for.
#[test]
fn a_toolkit_that_cannot_be_asked_for_costs_no_other() {
    let spec = json!({"toolkits": {"discover": "None", "include": ["acme", "github"]}});
    let new = cache(&spec, &json!({}));
    let mut observed = Observed {
        catalogue: Some(catalogue(&[])),
        ..Observed::default()
    };
    let refused = Failure::stalled(Reason::ApiKeyForbidden, "not this one");
    observed.failed.insert("acme".to_owned(), refused.clone());
    assert_eq!(fetched(&decide(&new, &observed)), ["github"]);
    let observed = Observed {
        failed: observed.failed,
        catalogue: observed.catalogue,
        ..settled(&new, &[("github", "g1")])
    };
    let plan = decide(&new, &observed);
    let (failed, _) = phase(&plan);
    assert_eq!(
        failed.get("acme"),
        Some(&refused),
        "and not that it does not exist"
    );
    let Position::At(phase) = plan.position else {
        panic!()
    };
    let message = runtime::Phase::failure(&phase).unwrap().message;
    assert!(message.starts_with("acme: "), "{message}");
}

#[test]
fn what_nothing_tells_of_is_read_again_once_a_refresh() {
    type Change = fn(&mut Record, &mut CatalogueEntry);

    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let changes: [(&str, Change, bool); 4] = [
        ("nothing", |_, _| {}, false),
        (
            "neither version nor time",
            |_, listed| (listed.version, listed.updated_at) = (None, None),
            true,
        ),
        ("no tools", |record, _| record.tools = 0, true),
        ("not all tools", |record, _| record.missing_tools = 3, true),
    ];
    for (what, change, is_read_again) in changes {
        let mut record = record(&cache, "github", "g1");
        let mut listed = catalogue(&["github"]);
        change(&mut record, listed.toolkits.get_mut("github").unwrap());
        let mut observed = Observed {
            cached: vec![cached(&record)],
            manifest: Some(Manifest::new(vec![record.entry()])),
            catalogue: Some(listed),
            ..settled(&cache, &[])
        };
        let step = decide(&cache, &observed).step;
        assert_eq!(
            matches!(step, Some(Step::Fetch { .. })),
            is_read_again,
            "{what}: {step:?}"
        );
        observed.read.insert("github".to_owned());
        assert_eq!(decide(&cache, &observed).step, None, "{what}");
    }
}

#[test]
fn anything_that_tells_of_tools_casts_doubt_on_an_empty_list() {
    type Change = fn(&mut Observed);

    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let has_tools = |change: Change| {
        let mut observed = settled(&cache, &[("github", "g0")]);
        observed.catalogue = Some(catalogue(&["github"]));
        let toolkits = &mut observed.catalogue.as_mut().unwrap().toolkits;
        toolkits.get_mut("github").unwrap().tools = None;
        change(&mut observed);
        match decide(&cache, &observed).step {
            Some(Step::Fetch { toolkits }) => toolkits[0].known_tools != KnownTools::None,
            other => panic!("{other:?}"),
        }
    };
    assert!(has_tools(|observed| {
        // A record that was made with other settings.
        observed.cached[0].record.as_mut().unwrap().settings = "other".into();
        observed.manifest = None;
    }));
    assert!(has_tools(|observed| observed.cached.clear()), "the manifest");
    let nothing_else: Change = |observed| {
        observed.cached.clear();
        observed.manifest = None;
    };
    assert!(!has_tools(nothing_else));
    assert!(has_tools(|observed| {
        observed.cached.clear();
        observed.manifest = None;
        let toolkits = &mut observed.catalogue.as_mut().unwrap().toolkits;
        toolkits.get_mut("github").unwrap().tools = Some(2);
    }));
}

#[test]
fn a_toolkit_that_is_gone_is_lost_unless_the_spec_says_so() {
    let cache = cache(&json!({"toolkits": {"noAuth": false}}), &synced_status());
    let lost = |observed: &Observed| match decide(&cache, observed).step {
        Some(Step::WriteManifest(manifest)) => manifest.lost,
        other => panic!("{other:?}"),
    };
    let slugs = |lost: &[Lost]| -> Vec<String> { lost.iter().map(|lost| lost.slug.clone()).collect() };
    let mut observed = settled(&cache, &[("github", "g1"), ("slack", "s1")]);
    observed.catalogue = Some(catalogue(&["github"]));
    let found = lost(&observed);
    assert_eq!(slugs(&found), ["slack"], "its auth config is gone");
    assert_eq!((found[0].tools, found[0].lost_at), (2, at(100)));

    let of_another_spec = Observed {
        manifest_is_of_spec: false,
        ..observed.clone()
    };
    assert_eq!(lost(&of_another_spec), []);

    let mut vanished = observed.clone();
    let offered = vanished.catalogue.as_mut().unwrap();
    offered.toolkits.remove("slack");
    offered.configured.as_mut().unwrap().insert("slack".to_owned());
    assert_eq!(
        slugs(&lost(&vanished)),
        ["slack"],
        "Composio does not have it any more"
    );

    // It is told of once, and forgotten when it is back.
    let Some(Step::WriteManifest(written)) = decide(&cache, &vanished).step else {
        panic!();
    };
    vanished.manifest = Some(written);
    assert_eq!(decide(&cache, &vanished).step, None);
    vanished.catalogue = Some(catalogue(&["github", "slack"]));
    assert_eq!(lost(&vanished), []);
}
