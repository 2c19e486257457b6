//! The same schema, written in ways that differ.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{between, changes, object, tool, with};

/// A schema in plain words: no references, one way to write each thing.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "description": "text", "maxLength": 9})),
        Just(json!({"type": ["integer", "null"], "minimum": 0})),
        Just(json!({"type": "number", "maximum": 1.5, "default": 1})),
        Just(json!({"enum": ["a", "b", "c"]})),
        Just(json!({"type": "boolean"})),
        Just(json!({})),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|items| json!({"type": "array", "items": items})),
            (inner.clone(), inner, any::<bool>()).prop_map(|(a, b, required)| {
                let required = if required { vec!["a/b"] } else { vec![] };
                json!({"type": "object", "properties": {"a/b": a, "$top": b}, "required": required})
            }),
        ]
    })
}

/// The same schema, written another way; `choices` decides how, node by node.
fn rewritten(schema: &Value, choices: &mut impl Iterator<Item = u8>, definitions: &mut Value) -> Value {
    let mut schema = schema.clone();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            *property = rewritten(property, choices, definitions);
        }
    }
    if let Some(items) = schema.get("items").cloned() {
        schema["items"] = rewritten(&items, choices, definitions);
    }
    match choices.next().unwrap_or_default() % 8 {
        1 => json!({ "allOf": [schema] }),
        2 => json!({ "anyOf": [schema] }),
        3 => {
            let name = format!("d/{}~", definitions.as_object().unwrap().len());
            let pointer = name.replace('~', "~0").replace('/', "~1");
            definitions[&name] = schema;
            json!({ "$ref": format!("#/$defs/{pointer}") })
        }
        4 => match schema["type"].clone() {
            Value::String(name) => {
                schema["type"] = json!([name]);
                schema
            }
            Value::Array(names) => {
                let options: Vec<Value> = names.iter().map(|name| json!({ "type": name })).collect();
                schema.as_object_mut().unwrap().remove("type");
                schema["oneOf"] = options.into();
                schema
            }
            _ => schema,
        },
        5 => match schema["enum"].as_array() {
            Some(values) => {
                json!({"oneOf": values.iter().map(|value| json!({"const": value})).collect::<Vec<_>>()})
            }
            None => schema,
        },
        6 => match schema
            .as_object_mut()
            .and_then(|fields| fields.remove("required"))
        {
            Some(required) => json!({"allOf": [schema, {"required": required}]}),
            None => schema,
        },
        7 => match (schema["type"].clone(), schema.get("enum")) {
            (Value::Array(names), None) if names.len() == 2 => {
                schema["type"] = names[0].clone();
                schema["nullable"] = json!(true);
                schema
            }
            _ => schema,
        },
        _ => schema,
    }
}

proptest! {
    #[test]
    fn the_same_schema_written_another_way_is_never_drift(
        property in schemas(), choices in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let plain = with(&property);
        let mut definitions = json!({});
        let mut other = rewritten(&plain, &mut choices.into_iter(), &mut definitions);
        other["$defs"] = definitions;
        for (old, new) in [(&plain, &other), (&other, &plain)] {
            let drift = between(&[tool("T", old, old)], &[tool("T", new, new)]);
            prop_assert!(drift.is_empty(), "{old} and {new}: {drift:?}");
        }
    }

    #[test]
    fn what_breaks_is_found_however_it_is_written(
        property in schemas(), choices in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let plain = with(&property);
        let mut definitions = json!({});
        let mut other = rewritten(&object(&plain["properties"], &["p"]), &mut choices.into_iter(), &mut definitions);
        other["$defs"] = definitions;
        prop_assert_eq!(changes(&plain, &other), (vec!["input p became required".to_owned()], vec![]));
        prop_assert_eq!(changes(&other, &plain), (vec![], vec!["output p may be missing now".to_owned()]));
    }

    #[test]
    fn whatever_is_compared_has_an_end(old in schemas(), new in schemas()) {
        prop_assert_eq!(changes(&with(&old), &with(&old)), (vec![], vec![]));
        changes(&with(&old), &with(&new));
    }
}
