//! What changed between two versions of a toolkit's tools, and whether it may break their callers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::walk::MAX_DEPTH;

/// Most names of one kind that are kept; the counts are always whole.
const MAX_NAMES: usize = 50;
/// Longest description of a breaking change, in bytes.
const MAX_TEXT: usize = 200;

/// How a toolkit's tools changed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Drift {
    /// How many tools of each kind.
    pub counts: Counts,
    /// New tools, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Tools that are gone, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Tools that are described differently, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What may break callers, in words, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaking: Vec<String>,
}

/// Numbers of tools.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Counts {
    /// New.
    pub added: usize,
    /// Gone.
    pub removed: usize,
    /// Described differently.
    pub changed: usize,
    /// Gone, or changed in a way that may break callers.
    pub breaking: usize,
}

impl Drift {
    /// Nothing that a caller could notice has changed.
    pub fn is_empty(&self) -> bool {
        self.counts == Counts::default()
    }

    /// Compares the tools before and after. A tool's version alone is not a change: it moves with the toolkit's.
    pub fn between(before: &[Value], after: &[Value]) -> Self {
        let (before, after) = (by_slug(before), by_slug(after));
        let mut drift = Self::default();
        for (slug, tool) in &after {
            match before.get(slug) {
                None => {
                    drift.counts.added += 1;
                    note(&mut drift.added, (*slug).to_owned());
                }
                Some(old) if same(old, tool) => {}
                Some(old) => {
                    drift.counts.changed += 1;
                    note(&mut drift.changed, (*slug).to_owned());
                    let broken = breaking(old, tool);
                    drift.counts.breaking += usize::from(!broken.is_empty());
                    for what in broken {
                        note(&mut drift.breaking, format!("{slug}: {what}"));
                    }
                }
            }
        }
        for slug in before.keys().filter(|slug| !after.contains_key(*slug)) {
            drift.counts.removed += 1;
            drift.counts.breaking += 1;
            note(&mut drift.removed, (*slug).to_owned());
            note(&mut drift.breaking, format!("{slug}: the tool is gone"));
        }
        drift
    }
}

fn note(list: &mut Vec<String>, mut text: String) {
    if list.len() < MAX_NAMES {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        list.push(text);
    }
}

fn by_slug(tools: &[Value]) -> BTreeMap<&str, &Value> {
    tools
        .iter()
        .filter_map(|tool| Some((tool["slug"].as_str()?, tool)))
        .collect()
}

fn same(old: &Value, new: &Value) -> bool {
    let without_version = |tool: &Value| -> Option<Vec<(String, Value)>> {
        let fields = tool.as_object()?.iter().filter(|(key, _)| *key != "version");
        Some(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    without_version(old) == without_version(new)
}

fn breaking(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    required_inputs(
        &old["inputParameters"],
        &new["inputParameters"],
        "",
        0,
        &mut found,
    );
    vanished_outputs(
        &old["outputParameters"],
        &new["outputParameters"],
        "",
        0,
        &mut found,
    );
    found
}

/// Inputs that are required now and were not. What lies inside an input that is new itself is no demand on old callers.
fn required_inputs(old: &Value, new: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    let before = required(old);
    for name in required(new).difference(&before) {
        found.push(format!("input {path}{name} became required"));
    }
    for_each_pair(old, new, path, depth, &mut |old, new, path| {
        required_inputs(old, new, path, depth + 1, found);
    });
}

/// Outputs that were promised and are not any more.
fn vanished_outputs(old: &Value, new: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    if let Some(promised) = old["properties"].as_object() {
        let gone = promised
            .keys()
            .filter(|name| new["properties"].get(name.as_str()).is_none());
        found.extend(gone.map(|name| format!("output {path}{name} vanished")));
    }
    for_each_pair(old, new, path, depth, &mut |old, new, path| {
        vanished_outputs(old, new, path, depth + 1, found);
    });
}

fn required(schema: &Value) -> BTreeSet<&str> {
    schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Calls `visit` for the properties and the items that both schemas have.
fn for_each_pair(
    old: &Value,
    new: &Value,
    path: &str,
    depth: usize,
    visit: &mut dyn FnMut(&Value, &Value, &str),
) {
    if depth == MAX_DEPTH {
        return;
    }
    for (name, before) in old["properties"].as_object().into_iter().flatten() {
        if let Some(after) = new["properties"].get(name) {
            visit(before, after, &format!("{path}{name}."));
        }
    }
    if let (Some(before), Some(after)) = (old.get("items"), new.get("items")) {
        visit(before, after, &format!("{path}[]."));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(slug: &str, input: &Value, output: &Value) -> Value {
        json!({"slug": slug, "version": "1", "description": "d", "inputParameters": input, "outputParameters": output})
    }

    fn object(properties: &Value, required: &[&str]) -> Value {
        json!({"type": "object", "properties": properties, "required": required})
    }

    #[test]
    fn a_new_version_of_the_same_tools_is_no_drift() {
        let old = [tool("A", &json!({}), &json!({}))];
        let mut new = old.clone();
        new[0]["version"] = json!("2");
        assert!(Drift::between(&old, &new).is_empty());
    }

    #[test]
    fn added_removed_and_changed_tools_are_told_apart() {
        let old = [
            tool("GONE", &json!({}), &json!({})),
            tool("SAME", &json!({}), &json!({})),
            tool("NEW_TEXT", &json!({}), &json!({})),
        ];
        let mut changed = tool("NEW_TEXT", &json!({}), &json!({}));
        changed["description"] = json!("other");
        let new = [
            tool("ADDED", &json!({}), &json!({})),
            tool("SAME", &json!({}), &json!({})),
            changed,
        ];
        let drift = Drift::between(&old, &new);
        assert_eq!(
            drift.counts,
            Counts {
                added: 1,
                removed: 1,
                changed: 1,
                breaking: 1
            }
        );
        assert_eq!(
            (drift.added, drift.removed, drift.changed),
            (
                vec!["ADDED".to_owned()],
                vec!["GONE".to_owned()],
                vec!["NEW_TEXT".to_owned()]
            )
        );
        assert_eq!(drift.breaking, ["GONE: the tool is gone"]);
    }

    #[test]
    fn breaking_is_what_old_callers_cannot_know() {
        let inner = |required: &[&str]| object(&json!({"x": {}}), required);
        let cases = [
            (
                "an input became required",
                object(&json!({"a": {}}), &[]),
                object(&json!({"a": {}}), &["a"]),
                json!({}),
                json!({}),
                vec!["T: input a became required"],
            ),
            (
                "a required input appears",
                object(&json!({}), &[]),
                object(&json!({"b": {}}), &["b"]),
                json!({}),
                json!({}),
                vec!["T: input b became required"],
            ),
            (
                "an optional input appears",
                object(&json!({}), &[]),
                object(&json!({"b": {}}), &[]),
                json!({}),
                json!({}),
                vec![],
            ),
            (
                "inside an input",
                object(&json!({"o": inner(&[])}), &[]),
                object(&json!({"o": inner(&["x"])}), &[]),
                json!({}),
                json!({}),
                vec!["T: input o.x became required"],
            ),
            (
                "inside a new input",
                object(&json!({}), &[]),
                object(&json!({"o": inner(&["x"])}), &[]),
                json!({}),
                json!({}),
                vec![],
            ),
            (
                "inside a list",
                json!({"items": inner(&[])}),
                json!({"items": inner(&["x"])}),
                json!({}),
                json!({}),
                vec!["T: input [].x became required"],
            ),
            (
                "an output vanished",
                json!({}),
                json!({}),
                object(&json!({"data": object(&json!({"id": {}}), &[])}), &[]),
                object(&json!({"data": object(&json!({}), &[])}), &[]),
                vec!["T: output data.id vanished"],
            ),
            (
                "an output appears",
                json!({}),
                json!({}),
                object(&json!({}), &[]),
                object(&json!({"id": {}}), &[]),
                vec![],
            ),
        ];
        for (what, old_input, new_input, old_output, new_output, wanted) in cases {
            let drift = Drift::between(
                &[tool("T", &old_input, &old_output)],
                &[tool("T", &new_input, &new_output)],
            );
            assert_eq!(drift.breaking, wanted, "{what}");
            assert_eq!(drift.counts.breaking, usize::from(!wanted.is_empty()), "{what}");
        }
    }

    #[test]
    fn however_much_changes_the_report_stays_small() {
        let old: Vec<_> = (0..1000)
            .map(|n| tool(&format!("OLD_{n}_{}", "X".repeat(300)), &json!({}), &json!({})))
            .collect();
        let drift = Drift::between(&old, &[]);
        assert_eq!((drift.counts.removed, drift.counts.breaking), (1000, 1000));
        assert!(serde_json::to_string(&drift).unwrap().len() < 32 * 1024);
    }
}
