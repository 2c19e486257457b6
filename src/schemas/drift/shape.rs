//! What a JSON Schema means, whichever way it is written: `$ref`, `allOf`, `anyOf`, `oneOf`, `nullable` and lists of types
//! are resolved, one node at a time. See <https://json-schema.org/draft/2020-12/json-schema-validation>.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::expansion::Expansion;

/// The types of JSON, in the order in which they are named; a number is either whole or has a fraction.
const TYPES: [(&str, u8); 7] = [
    ("object", 1),
    ("array", 2),
    ("string", 4),
    ("number", INTEGER | FRACTION),
    ("integer", INTEGER),
    ("boolean", 32),
    ("null", NULL),
];
const INTEGER: u8 = 8;
const FRACTION: u8 = 16;
const NULL: u8 = 64;
const ALL: u8 = 127;

/// Keywords that are compared as they are written, and the types they are about.
const RULES: [(&str, u8); 15] = [
    ("pattern", 4),
    ("multipleOf", INTEGER | FRACTION),
    ("uniqueItems", 2),
    ("contains", 2),
    ("unevaluatedItems", 2),
    ("dependentRequired", 1),
    ("dependentSchemas", 1),
    ("patternProperties", 1),
    ("propertyNames", 1),
    ("unevaluatedProperties", 1),
    ("contentEncoding", 4),
    ("not", ALL),
    ("if", ALL),
    ("then", ALL),
    ("else", ALL),
];

/// Bounds, the types they are about, and whether a larger one is stricter.
const BOUNDS: [(&str, u8, bool); 6] = [
    ("minLength", 4, true),
    ("maxLength", 4, false),
    ("minItems", 2, true),
    ("maxItems", 2, false),
    ("minProperties", 1, true),
    ("maxProperties", 1, false),
];

/// A node: schemas that all hold.
pub(super) type Schemas<'a> = Vec<&'a Value>;

/// What a node allows, by type.
#[derive(Debug, Default)]
pub(super) struct Shape<'a> {
    /// For each type, as its bit, the alternatives of which one has to hold.
    pub by_type: BTreeMap<u8, Vec<Alternative<'a>>>,
    /// What it says to people.
    pub notes: BTreeSet<String>,
}

/// What has to hold of a value of one type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alternative<'a> {
    types: u8,
    /// The only values there are, as JSON.
    pub values: Option<BTreeSet<String>>,
    /// Bounds by keyword; `minimum` and `maximum` with whether the bound itself is excluded.
    pub bounds: BTreeMap<&'static str, (f64, bool)>,
    /// Keywords that are compared as they are written.
    pub rules: BTreeSet<String>,
    pub properties: BTreeMap<&'a str, Schemas<'a>>,
    pub required: BTreeSet<&'a str>,
    /// Of properties that are not named. None: there must be none.
    pub additional: Option<Schemas<'a>>,
    pub items: Schemas<'a>,
    pub first_items: Vec<Schemas<'a>>,
}

/// Whether a larger bound is stricter.
pub(super) fn is_lower_bound(keyword: &str) -> bool {
    keyword.starts_with("min")
}

/// Names of types, for people.
pub(super) fn type_names(types: impl IntoIterator<Item = u8>) -> String {
    let all = types.into_iter().fold(0, |all, one| all | one);
    if all == ALL {
        return "anything".to_owned();
    }
    let mut rest = all;
    let mut names = Vec::new();
    for (name, bits) in TYPES {
        if rest & bits == bits {
            names.push(name);
            rest &= !bits;
        }
    }
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.join(" or ")
}

impl<'a> Shape<'a> {
    /// The meaning of a node. References are looked up in `root`.
    pub fn of(root: &'a Value, schemas: &[&'a Value]) -> Self {
        let expansion = Expansion::of(root, schemas);
        let mut shape = Self {
            by_type: BTreeMap::new(),
            notes: expansion.notes,
        };
        for alternative in expansion.alternatives {
            let types = alternative.real_types();
            for bit in (0..8).map(|shift| 1_u8 << shift).filter(|bit| types & bit != 0) {
                shape.add(bit, alternative.clone().only(bit));
            }
        }
        shape
    }

    fn add(&mut self, bit: u8, new: Alternative<'a>) {
        let known = self.by_type.entry(bit).or_default();
        let unbound = Alternative::anything().only(bit);
        if known.contains(&new) || known.contains(&unbound) {
            return;
        }
        if new == unbound {
            known.clear();
        }
        // Alternatives that differ in their values only are one with the values of both.
        if let Some(values) = &new.values
            && let Some(other) = known.iter_mut().find(|known| known.differs_in_values_only(&new))
        {
            other
                .values
                .get_or_insert_default()
                .extend(values.iter().cloned());
            return;
        }
        known.push(new);
    }
}

pub(super) fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> impl Iterator<Item = &'a Value> {
    schema
        .get(keyword)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn type_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => 32,
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => INTEGER,
        Value::Number(_) => FRACTION,
        Value::String(_) => 4,
        Value::Array(_) => 2,
        Value::Object(_) => 1,
    }
}

impl<'a> Alternative<'a> {
    pub fn anything() -> Self {
        Self {
            types: ALL,
            values: None,
            bounds: BTreeMap::new(),
            rules: BTreeSet::new(),
            properties: BTreeMap::new(),
            required: BTreeSet::new(),
            additional: Some(Vec::new()),
            items: Vec::new(),
            first_items: Vec::new(),
        }
    }

    fn differs_in_values_only(&self, other: &Self) -> bool {
        let without = |one: &Self| Self {
            values: None,
            ..one.clone()
        };
        self.values.is_some() && other.values.is_some() && without(self) == without(other)
    }

    pub fn restrict(&mut self, schema: &'a Map<String, Value>) {
        self.restrict_types(schema);
        self.restrict_bounds(schema);
        for (keyword, _) in RULES {
            if let Some(value) = schema.get(keyword).filter(|value| **value != Value::Bool(false)) {
                self.rules.insert(format!("{keyword}: {value}"));
            }
        }
        self.restrict_object(schema);
        self.restrict_array(schema);
    }

    fn restrict_types(&mut self, schema: &'a Map<String, Value>) {
        let bits = |name: &Value| {
            let found = TYPES.iter().find(|(known, _)| name == known);
            found.map_or(0, |(_, bits)| *bits)
        };
        let nullable = if schema.get("nullable") == Some(&Value::Bool(true)) {
            NULL
        } else {
            0
        };
        match schema.get("type") {
            Some(Value::Array(types)) => {
                self.types &= nullable | types.iter().fold(0, |all, one| all | bits(one));
            }
            Some(name @ Value::String(_)) => self.types &= nullable | bits(name),
            _ => {}
        }
        let only = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(only), _) => std::slice::from_ref(only),
            (None, Some(values)) => values.as_slice(),
            (None, None) => return,
        };
        let types = only.iter().fold(nullable, |all, value| all | type_of(value));
        self.types &= types;
        let mut values: BTreeSet<String> = only.iter().map(Value::to_string).collect();
        if nullable != 0 {
            values.insert(Value::Null.to_string());
        }
        self.values = Some(match self.values.take() {
            Some(before) => before.intersection(&values).cloned().collect(),
            None => values,
        });
    }

    fn restrict_bounds(&mut self, schema: &Map<String, Value>) {
        let number = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        for (keyword, _, _) in BOUNDS {
            if let Some(bound) = number(keyword).filter(|bound| *bound > 0.0 || !is_lower_bound(keyword)) {
                self.bound(keyword, bound, false);
            }
        }
        for (keyword, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            // Up to draft 4 the second one was a flag of the first.
            let is_excluded = schema.get(exclusive) == Some(&Value::Bool(true));
            if let Some(bound) = number(keyword) {
                self.bound(keyword, bound, is_excluded);
            }
            if let Some(bound) = number(exclusive) {
                self.bound(keyword, bound, true);
            }
        }
    }

    /// The stricter of this bound and the one that holds already.
    fn bound(&mut self, keyword: &'static str, bound: f64, is_excluded: bool) {
        let known = self.bounds.entry(keyword).or_insert((bound, is_excluded));
        if is_stricter(keyword, (bound, is_excluded), *known) {
            *known = (bound, is_excluded);
        }
    }

    fn restrict_object(&mut self, schema: &'a Map<String, Value>) {
        for (name, property) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            self.properties.entry(name).or_default().push(property);
        }
        self.required
            .extend(list(schema, "required").filter_map(Value::as_str));
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => self.additional = None,
            Some(further @ Value::Object(_)) => {
                if let Some(additional) = &mut self.additional {
                    additional.push(further);
                }
            }
            _ => {}
        }
    }

    fn restrict_array(&mut self, schema: &'a Map<String, Value>) {
        // Up to draft 2019-09 a list of `items` was what `prefixItems` is now.
        let first = match schema.get("items") {
            Some(Value::Array(first)) => Some(first),
            Some(items) => {
                self.items.push(items);
                None
            }
            None => None,
        };
        let first = first.or_else(|| schema.get("prefixItems").and_then(Value::as_array));
        for (place, item) in first.into_iter().flatten().enumerate() {
            if self.first_items.len() == place {
                self.first_items.push(Vec::new());
            }
            self.first_items[place].push(item);
        }
    }

    /// The types it is about: schemas often leave out that something with properties is an object.
    fn real_types(&self) -> u8 {
        if self.types != ALL {
            return self.types;
        }
        let is_object = !self.properties.is_empty() || !self.required.is_empty();
        let is_array = !self.items.is_empty() || !self.first_items.is_empty();
        match (is_object, is_array) {
            (false, false) => ALL,
            (is_object, is_array) => u8::from(is_object) | (2 * u8::from(is_array)),
        }
    }

    /// What it says about values of one type.
    fn only(mut self, bit: u8) -> Self {
        let types = std::mem::replace(&mut self.types, bit);
        if let Some(values) = &mut self.values {
            values.retain(|text| {
                serde_json::from_str::<Value>(text).is_ok_and(|value| type_of(&value) & bit != 0)
            });
            // A type with one or two values is written with all of them, or with none.
            if (bit == NULL && !values.is_empty()) || (bit == 32 && values.len() == 2) {
                self.values = None;
            }
        }
        let is_about = |keyword: &str, bits: u8| {
            let of = |known: &str| {
                keyword == known
                    || keyword
                        .strip_prefix(known)
                        .is_some_and(|rest| rest.starts_with(':'))
            };
            RULES
                .iter()
                .find(|(known, _)| of(known))
                .map_or(ALL, |(_, bits)| *bits)
                & bits
                != 0
        };
        self.rules.retain(|rule| is_about(rule, bit));
        self.bounds.retain(|keyword, _| {
            let of = BOUNDS.iter().find(|(known, _, _)| known == keyword);
            of.map_or(INTEGER | FRACTION, |(_, bits, _)| *bits) & bit != 0
        });
        // Whole numbers among others keep to the bounds of those.
        if bit == INTEGER && types & FRACTION == 0 {
            for (keyword, bound) in &mut self.bounds {
                *bound = whole(keyword, *bound);
            }
        }
        if bit != 1 {
            self.properties.clear();
            self.required.clear();
            self.additional = Some(Vec::new());
        }
        if bit != 2 {
            self.items.clear();
            self.first_items.clear();
        }
        self
    }
}

/// Whether a bound lets less through than another one.
pub(super) fn is_stricter(keyword: &str, one: (f64, bool), other: (f64, bool)) -> bool {
    let is_tighter = if is_lower_bound(keyword) {
        one.0 > other.0
    } else {
        one.0 < other.0
    };
    is_tighter || (one.0.to_bits() == other.0.to_bits() && one.1 && !other.1)
}

/// The same bound of whole numbers, included.
fn whole(keyword: &str, (bound, is_excluded): (f64, bool)) -> (f64, bool) {
    let (rounded, step) = if is_lower_bound(keyword) {
        (bound.ceil(), 1.0)
    } else {
        (bound.floor(), -1.0)
    };
    let is_whole = rounded.to_bits() == bound.to_bits();
    (
        if is_whole && is_excluded {
            rounded + step
        } else {
            rounded
        },
        false,
    )
}
