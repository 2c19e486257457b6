//! Bad input is refused by the API server itself, with a message a person can act on.

use serde_json::{Value, json};

use crate::harness::{PATIENCE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_specs_are_refused_with_the_reason() {
    let world = World::new().await;
    let cases: &[(Value, &str)] = &[
        (json!({"userId": "a,b"}), "userId must not contain a comma"),
        (json!({"userId": "default"}), "must not be 'default'"),
        (json!({"userId": " padded "}), "white space"),
        (json!({"userId": ""}), "userId"),
        (json!({"authConfigId": "reddit"}), "authConfigId"),
        (json!({"connectedAccountId": "x"}), "connectedAccountId"),
        (json!({"managementPolicy": "Observe"}), "needs connectedAccountId"),
        (
            json!({"managementPolicy": "Observe", "connectedAccountId": "ca_1", "enabled": false}),
            "enabled: false",
        ),
        (
            json!({"managementPolicy": "Observe", "connectedAccountId": "ca_1", "deletionPolicy": "Delete"}),
            "Retain",
        ),
        (json!({"managementPolicy": "Sometimes"}), "managementPolicy"),
        (
            json!({"polling": {"fast": "10ms"}}),
            "polling.fast must be a duration such as 4s or 1m30s, between 1s and 1h",
        ),
        (json!({"polling": {"settled": "soon"}}), "polling.settled"),
        (json!({"link": {"renewals": -1}}), "renewals"),
        (json!({"callbackUrl": "not a url"}), "callbackUrl"),
        (json!({"expectedUsername": "u/alice"}), "expectedUsername"),
    ];
    for (spec, expected) in cases {
        match world.try_create("bad", spec.clone()).await {
            Err(error) => assert!(error.to_string().contains(expected), "{spec}: {error}"),
            Ok(_) => panic!("accepted: {spec}"),
        }
    }
    let error = world.try_create(&"n".repeat(64), json!({})).await.unwrap_err();
    assert!(error.to_string().contains("<name>-link"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_hangs_on_cannot_be_changed() {
    let world = World::new().await;
    world.create("fixed", json!({})).await;
    world
        .create(
            "adopting",
            json!({"connectedAccountId": "ca_12345", "authConfigId": "ac_1"}),
        )
        .await;
    let cases = [
        ("fixed", json!({"userId": "other"}), "userId is immutable"),
        (
            "fixed",
            json!({"connectedAccountId": "ca_1"}),
            "cannot be added or removed",
        ),
        (
            "adopting",
            json!({"connectedAccountId": null}),
            "cannot be added or removed",
        ),
        (
            "adopting",
            json!({"connectedAccountId": "ca_2"}),
            "connectedAccountId is immutable",
        ),
    ];
    for (name, spec, expected) in cases {
        let error = world.patch(name, json!({"spec": spec})).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{spec}: {error}");
    }
    // It counts from the next link on, and can be taken back.
    for auth_config in [json!("ac_later"), json!("ac_other"), json!(null)] {
        let spec = json!({"spec": {"authConfigId": auth_config}});
        world.patch("fixed", spec).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_is_explained_and_the_examples_apply() {
    let world = World::new().await;
    for (resource, fields) in [
        (
            "redditconnections",
            &[
                "connectedAccountId",
                "expectedUsername",
                "lastHandledRequestAt",
                "redirectUrl",
            ][..],
        ),
        (
            "composioschemacaches",
            &["namePrefix", "refreshInterval", "breakingChanges"][..],
        ),
    ] {
        let explained = explained(&world, resource).await;
        for field in fields {
            assert!(explained.contains(field), "{explained}");
        }
    }
    for (file, crd) in composio_operator::api::custom_resource_definitions() {
        let crd: Value = serde_json::to_value(&crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            let mut undocumented = vec![];
            find_undocumented(&schema[part], part, &mut undocumented);
            assert!(
                undocumented.is_empty(),
                "{file}: no kubectl explain text: {undocumented:?}"
            );
        }
    }
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let applied = world
        .plane
        .kubectl([
            "apply",
            "--dry-run=server",
            "--recursive",
            "--namespace",
            &world.namespace,
            "--filename",
            examples,
        ])
        .await
        .unwrap();
    assert!(applied.success, "{}", applied.stderr);
}

/// What `kubectl explain` prints. The API server publishes the texts of a CRD some time after it serves its objects.
async fn explained(world: &World, resource: &str) -> String {
    let published = async {
        loop {
            let answer = world
                .plane
                .kubectl(["explain", resource, "--recursive"])
                .await
                .unwrap();
            if answer.success {
                return answer.stdout;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, published)
        .await
        .expect("the texts are published")
}

fn find_undocumented(schema: &Value, path: &str, found: &mut Vec<String>) {
    if schema["description"].as_str().is_none_or(str::is_empty) {
        found.push(path.to_owned());
    }
    // Conditions are described by Kubernetes itself.
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        find_undocumented(property, &format!("{path}.{name}"), found);
    }
}
