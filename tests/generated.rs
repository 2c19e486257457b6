//! Generated files are committed. They are what the types in `src/api/` say now.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::collections::BTreeMap;
use std::path::Path;

use composio_operator::api::custom_resource_definitions;

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
