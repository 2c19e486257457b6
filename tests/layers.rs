//! Arrows run one way: each folder of `src` uses only what stands below it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads files and fails by panicking"
)]

use std::fs;
use std::path::Path;

/// A folder or file of `src`, and the parts of the crate that it must not use.
const ABOVE: [(&str, &[&str]); 7] = [
    (
        "api",
        &["composio", "controllers", "operator", "runtime", "telemetry"],
    ),
    (
        "composio",
        &["api", "controllers", "operator", "runtime", "telemetry"],
    ),
    (
        "digest.rs",
        &[
            "api",
            "composio",
            "controllers",
            "operator",
            "runtime",
            "telemetry",
        ],
    ),
    (
        "redact.rs",
        &[
            "api",
            "composio",
            "controllers",
            "operator",
            "runtime",
            "telemetry",
        ],
    ),
    ("runtime", &["composio", "controllers", "operator", "schemas"]),
    (
        "schemas",
        &[
            "composio::Client",
            "controllers",
            "operator",
            "runtime",
            "telemetry",
        ],
    ),
    (
        "telemetry",
        &["api", "composio", "controllers", "operator", "runtime"],
    ),
];

/// Lines below `path` that use one of `parts`.
fn uses(path: &Path, parts: &[&str], found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            uses(&entry.unwrap().path(), parts, found);
        }
        return;
    }
    for line in fs::read_to_string(path).unwrap().lines() {
        let is_used = |part: &&str| line.contains(&format!("crate::{part}"));
        if parts.iter().any(&is_used) {
            found.push(format!("{}: {}", path.display(), line.trim()));
        }
    }
}

#[test]
fn arrows_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (part, above) in ABOVE {
        uses(&src.join(part), above, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    uses(&src.join("controllers"), &["runtime"], &mut found);
    assert!(!found.is_empty(), "the search finds what is there");
}
