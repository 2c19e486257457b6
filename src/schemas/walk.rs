//! Where JSON Schema has schemas inside schemas. See <https://json-schema.org/draft/2020-12/json-schema-core#section-10>.

use serde_json::Value;

/// Deepest nesting that is followed: schemas refer to others by value, and some of them never seem to end.
pub(super) const MAX_DEPTH: usize = 64;

const ONE: [&str; 12] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "contentSchema",
];
const MANY: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Calls `visit` for the schema and every schema inside it. Data, such as `default`, `enum` and `examples`, is not a
/// schema whatever it looks like.
pub(super) fn for_each_schema(
    schema: &mut Value,
    visit: &mut impl FnMut(&mut serde_json::Map<String, Value>),
) {
    descend(schema, 0, visit);
}

fn descend(schema: &mut Value, depth: usize, visit: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    let Value::Object(schema) = schema else {
        return;
    };
    visit(schema);
    if depth == MAX_DEPTH {
        return;
    }
    for (key, inner) in schema.iter_mut() {
        let key = key.as_str();
        if NAMED.contains(&key) {
            for named in inner
                .as_object_mut()
                .into_iter()
                .flat_map(serde_json::Map::values_mut)
            {
                descend(named, depth + 1, visit);
            }
        } else if MANY.contains(&key) || (ONE.contains(&key) && inner.is_array()) {
            for one in inner.as_array_mut().into_iter().flatten() {
                descend(one, depth + 1, visit);
            }
        } else if ONE.contains(&key) {
            descend(inner, depth + 1, visit);
        }
    }
}
