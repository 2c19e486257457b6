//! Resolves what a schema says through others: `$ref`, `allOf`, `anyOf` and `oneOf`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shape::{Alternative, Schemas, list};

/// Most alternatives of one node that are told apart.
const MAX_ALTERNATIVES: usize = 32;

/// Most references that lead to each other.
const MAX_DETOURS: usize = 16;

/// Keywords that only tell people something.
const NOTES: [&str; 3] = ["description", "default", "format"];

/// What came of a node so far.
pub(super) struct Expansion<'a> {
    root: &'a Value,
    /// One of them has to hold.
    pub alternatives: Vec<Alternative<'a>>,
    /// What it says to people.
    pub notes: BTreeSet<String>,
}

impl<'a> Expansion<'a> {
    /// Schemas that all hold.
    pub fn of(root: &'a Value, schemas: &[&'a Value]) -> Self {
        let mut expansion = Self {
            root,
            alternatives: vec![Alternative::anything()],
            notes: BTreeSet::new(),
        };
        for schema in schemas {
            expansion.add(schema, &mut Vec::new());
        }
        expansion
    }

    /// Adds a schema that has to hold as well. `followed`: references that led here.
    fn add(&mut self, schema: &'a Value, followed: &mut Vec<&'a str>) {
        let schema = match schema {
            Value::Bool(false) => return self.alternatives.clear(),
            Value::Object(schema) => schema,
            _ => return,
        };
        for alternative in &mut self.alternatives {
            alternative.restrict(schema);
        }
        let notes = NOTES
            .iter()
            .filter_map(|keyword| Some(format!("{keyword}: {}", schema.get(*keyword)?)));
        self.notes.extend(notes);
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str)
            && !followed.contains(&reference)
        {
            match resolve(self.root, reference) {
                Some(target) => {
                    followed.push(reference);
                    self.add(target, followed);
                    followed.pop();
                }
                None => self.rule(&format!("$ref: {reference}")),
            }
        }
        for part in list(schema, "allOf") {
            self.add(part, followed);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(keyword).and_then(Value::as_array) {
                self.choose(options, followed);
            }
        }
    }

    fn choose(&mut self, options: &'a [Value], followed: &mut Vec<&'a str>) {
        let before = std::mem::take(&mut self.alternatives);
        let mut chosen = Vec::new();
        for option in options {
            self.alternatives.clone_from(&before);
            self.add(option, followed);
            chosen.append(&mut self.alternatives);
        }
        self.alternatives = chosen;
        if self.alternatives.len() > MAX_ALTERNATIVES {
            self.alternatives.truncate(MAX_ALTERNATIVES);
            self.rule("too many alternatives");
        }
    }

    fn rule(&mut self, rule: &str) {
        for alternative in &mut self.alternatives {
            alternative.rules.insert(rule.to_owned());
        }
    }
}

/// The same node without detours: what only refers to something is that.
pub(super) fn direct<'a>(root: &'a Value, schemas: &[&'a Value]) -> Schemas<'a> {
    let target = |schema: &'a Value| {
        let only = schema.as_object().filter(|schema| schema.len() == 1)?;
        resolve(root, only.get("$ref")?.as_str()?)
    };
    let direct = |schema: &&'a Value| {
        let way = std::iter::successors(Some(*schema), |schema| target(schema));
        way.take(MAX_DETOURS).last().unwrap_or(schema)
    };
    schemas.iter().map(direct).collect()
}

/// What a reference inside the document points at: `#`, `#/$defs/user` or `#name`.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let fragment = reference.strip_prefix('#')?;
    let decoded = percent_decoded(fragment)?;
    if decoded.is_empty() || decoded.starts_with('/') {
        return root.pointer(&decoded);
    }
    let definitions = ["$defs", "definitions"]
        .into_iter()
        .filter_map(|keyword| root[keyword].as_object());
    let mut all = definitions.flat_map(Map::values);
    all.find(|schema| schema["$anchor"] == *decoded || schema["$id"] == *reference)
}

/// The fragment of an address with its escapes resolved.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut parts = fragment.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
