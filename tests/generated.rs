//! Generated files are committed. They are what the types in `src/api/` say now.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read files and clocks"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use composio_operator::api::{
    ComposioSchemaCache, ComposioSchemaCacheSpec, RedditConnection, RedditConnectionSpec,
    custom_resource_definitions,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn generated() -> BTreeMap<String, String> {
    custom_resource_definitions()
        .into_iter()
        .map(|(file, crd)| (file.to_owned(), serde_saphyr::to_string(&crd).unwrap()))
        .collect()
}

fn committed(folder: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

#[track_caller]
fn is_current(folder: &str) {
    let (wanted, found) = (generated(), committed(folder));
    assert!(
        wanted.keys().eq(found.keys()),
        "{folder} holds {:?}; run `cargo xtask crds`",
        found.keys()
    );
    for (file, text) in wanted {
        assert!(
            found[&file] == text,
            "{folder}/{file} is out of date; run `cargo xtask crds`"
        );
    }
}

#[test]
fn crds_are_what_the_types_say() {
    assert!(!generated().is_empty());
    is_current("crds");
}

#[test]
fn the_chart_carries_the_same_crds() {
    is_current("charts/composio-operator/crd-files");
}

/// The value as the API server stores it: with the schema's defaults filled in.
fn defaulted(schema: &Value, mut value: Value) -> Value {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties {
        let given = value.get(name).or(property.get("default")).cloned();
        if let Some(given) = given {
            value[name] = defaulted(property, given);
        }
    }
    value
}

/// The operator may see objects from before a field had its default.
#[test]
fn the_api_server_and_the_operator_fill_in_the_same_defaults() {
    fn same<T: DeserializeOwned + PartialEq + Debug>(crd: &CustomResourceDefinition, given: &Value) {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let stored = defaulted(schema, given.clone());
        assert_ne!(&stored, given, "there are defaults");
        let (stored, given): (T, T) = (
            serde_json::from_value(stored).unwrap(),
            serde_json::from_value(given.clone()).unwrap(),
        );
        assert_eq!(stored, given);
    }
    same::<RedditConnectionSpec>(
        &RedditConnection::crd(),
        &json!({ "userId": "u", "apiKeySecretRef": { "name": "composio" } }),
    );
    same::<ComposioSchemaCacheSpec>(&ComposioSchemaCache::crd(), &json!({}));
}
