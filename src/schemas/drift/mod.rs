//! What changed between two versions of a toolkit's tools, and whether it may break their callers.

mod compare;
mod expansion;
mod shape;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::compare::{Side, breaking, is_same};

/// Most names of one kind that are kept; the counts are always whole.
const MAX_NAMES: usize = 50;
/// Longest description of a breaking change, in bytes: the longest names of properties fit into it.
const MAX_TEXT: usize = 512;
/// Most bytes of one list of names or descriptions.
const MAX_LIST_BYTES: usize = 8192;

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
    /// Deprecated tools that are not cached any more because the cache leaves deprecated tools out, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
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
    /// Deprecated, and not cached any more because the cache leaves deprecated tools out.
    pub left_out: usize,
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

    /// Compares the tools before and after: JSON arrays, each of them a part of the tools. A tool's version alone is not a
    /// change, because it moves with the toolkit's, and neither is another way to write the same schema.
    ///
    /// Only tools whose text differs are read as a whole, one at a time.
    ///
    /// # Errors
    /// One of the texts is not an array of tools.
    pub fn between<B: AsRef<str>, A: AsRef<str>>(
        before: &[B],
        after: &[A],
        includes_deprecated: bool,
    ) -> serde_json::Result<Self> {
        let (before, after) = (by_slug(before)?, by_slug(after)?);
        let mut drift = Self::default();
        for (slug, tool) in &after {
            match before.get(slug) {
                None => {
                    drift.counts.added += 1;
                    note(&mut drift.added, slug.clone().into_owned());
                }
                Some(old) if old.get() == tool.get() => {}
                Some(old) => drift.compare(slug, &read(old)?, &read(tool)?),
            }
        }
        for (slug, tool) in before.iter().filter(|(slug, _)| !after.contains_key(*slug)) {
            if !includes_deprecated && read(tool)?["isDeprecated"] == true {
                drift.counts.left_out += 1;
                note(&mut drift.left_out, slug.clone().into_owned());
                continue;
            }
            drift.counts.removed += 1;
            drift.counts.breaking += 1;
            note(&mut drift.removed, slug.clone().into_owned());
            note(&mut drift.breaking, format!("{slug}: the tool is gone"));
        }
        Ok(drift)
    }

    fn compare(&mut self, slug: &str, old: &Value, new: &Value) {
        let schemas = [
            (Side::Input, "inputParameters"),
            (Side::Output, "outputParameters"),
        ];
        let has_same_schemas = schemas
            .iter()
            .all(|(_, field)| is_same(schema(&old[*field]), schema(&new[*field])));
        if has_same_schemas && TOLD.iter().all(|field| old[*field] == new[*field]) {
            return;
        }
        self.counts.changed += 1;
        note(&mut self.changed, slug.to_owned());
        if has_same_schemas {
            return;
        }
        let broken = schemas.map(|(side, field)| breaking(side, schema(&old[field]), schema(&new[field])));
        self.counts.breaking += usize::from(broken.iter().any(|broken| !broken.is_empty()));
        for what in broken.into_iter().flatten() {
            note(&mut self.breaking, format!("{slug}: {what}"));
        }
    }
}

/// What a tool says of itself beside its schemas. Its toolkit's name and logo are not its own.
const TOLD: [&str; 6] = ["name", "description", "tags", "scopes", "noAuth", "isDeprecated"];

/// The schema of a tool's inputs or outputs. Where there is none it is that of any object.
fn schema(schema: &Value) -> &Value {
    static ANY_OBJECT: LazyLock<Value> = LazyLock::new(|| json!({"type": "object"}));
    match schema {
        Value::Object(fields) if !fields.is_empty() => schema,
        Value::String(_) => schema,
        _ => &ANY_OBJECT,
    }
}

fn note(list: &mut Vec<String>, mut text: String) {
    let size: usize = list.iter().map(String::len).sum();
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    if list.len() < MAX_NAMES && size + text.len() <= MAX_LIST_BYTES {
        list.push(text);
    }
}

#[derive(Deserialize)]
struct Slug<'a> {
    #[serde(borrow)]
    slug: Cow<'a, str>,
}

fn by_slug<T: AsRef<str>>(texts: &[T]) -> serde_json::Result<BTreeMap<Cow<'_, str>, &RawValue>> {
    let mut tools = BTreeMap::new();
    for text in texts {
        for tool in serde_json::from_str::<Vec<&RawValue>>(text.as_ref())? {
            let Slug { slug } = serde_json::from_str(tool.get())?;
            tools.insert(slug, tool);
        }
    }
    Ok(tools)
}

fn read(tool: &RawValue) -> serde_json::Result<Value> {
    serde_json::from_str(tool.get())
}
