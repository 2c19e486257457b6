//! What changed, and what of it breaks callers.

mod rewriting;

use serde_json::json;

use super::*;

fn between(old: &[Value], new: &[Value]) -> Drift {
    let text = |tools: &[Value]| Value::from(tools.to_vec()).to_string();
    Drift::between(&[text(old)], &[text(new)], true).unwrap()
}

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
    assert!(between(&old, &new).is_empty());
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
    let drift = between(&old, &new);
    assert_eq!(
        drift.counts,
        Counts {
            added: 1,
            removed: 1,
            left_out: 0,
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
        let drift = between(
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
    let drift = between(&old, &[]);
    assert_eq!((drift.counts.removed, drift.counts.breaking), (1000, 1000));
    assert!(serde_json::to_string(&drift).unwrap().len() < 32 * 1024);
}

/// What is said of a change of the inputs, and of the same change of the outputs.
fn changes(old: &Value, new: &Value) -> (Vec<String>, Vec<String>) {
    let none = json!({});
    let words = |drift: Drift| -> Vec<String> {
        let words = drift.breaking.iter();
        words
            .map(|what| what.strip_prefix("T: ").unwrap().to_owned())
            .collect()
    };
    (
        words(between(&[tool("T", old, &none)], &[tool("T", new, &none)])),
        words(between(&[tool("T", &none, old)], &[tool("T", &none, new)])),
    )
}

/// An object with one property.
fn with(property: &Value) -> Value {
    object(&json!({ "p": property }), &[])
}

/// Of a property: before, after, what is said of an input that changes so, and of an output that changes back.
const NARROWED: [[&str; 4]; 13] = [
    [
        r#"{"type": "number"}"#,
        r#"{"type": "integer"}"#,
        "changed from number to integer",
        "changed from integer to number",
    ],
    [
        r#"{"type": ["string", "null"]}"#,
        r#"{"type": "string"}"#,
        "changed from string or null to string",
        "changed from string to string or null",
    ],
    [
        "{}",
        r#"{"type": "string"}"#,
        "changed from anything to string",
        "changed from string to anything",
    ],
    [
        r#"{"enum": ["a", "b"]}"#,
        r#"{"enum": ["a"]}"#,
        r#"does not accept "b" any more"#,
        r#"may be "b" now"#,
    ],
    [
        r#"{"type": "string"}"#,
        r#"{"enum": ["a"]}"#,
        "accepts only some values now",
        "may be any value now",
    ],
    [
        r#"{"enum": [1, 2]}"#,
        r#"{"const": 2}"#,
        "does not accept 1 any more",
        "may be 1 now",
    ],
    [
        r#"{"type": "integer"}"#,
        r#"{"type": "integer", "minimum": 1}"#,
        "is limited more: minimum, at least 1",
        "",
    ],
    [
        r#"{"maximum": 9}"#,
        r#"{"maximum": 8}"#,
        "is limited more: maximum, at most 8",
        "",
    ],
    [
        r#"{"type": "number", "maximum": 9}"#,
        r#"{"type": "number", "exclusiveMaximum": 9}"#,
        "is limited more: maximum, at most 9 (itself excluded)",
        "",
    ],
    [
        r#"{"type": "string"}"#,
        r#"{"type": "string", "maxLength": 5}"#,
        "is limited more: maxLength, at most 5",
        "",
    ],
    [
        r#"{"type": "string"}"#,
        r#"{"type": "string", "pattern": "^a"}"#,
        r#"is limited more: pattern: "^a""#,
        "",
    ],
    [
        r#"{"type": "array"}"#,
        r#"{"type": "array", "uniqueItems": true}"#,
        "is limited more: uniqueItems: true",
        "",
    ],
    [
        r#"{"type": "object"}"#,
        r#"{"type": "object", "additionalProperties": false}"#,
        "accepts no other properties any more",
        "",
    ],
];

#[test]
fn what_narrows_an_input_breaks_it_and_what_widens_an_output_breaks_that() {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let said = |side: &str| vec![format!("{side} p changed from string to integer")];
    assert_eq!(
        changes(&with(&text), &with(&number)),
        (said("input"), said("output"))
    );
    for [wide, narrow, input, output] in NARROWED {
        let read = |text| with(&serde_json::from_str(text).unwrap());
        let (wide, narrow) = (read(wide), read(narrow));
        let said = |side: &str, what: &str| match what {
            "" => vec![],
            what => vec![format!("{side} p {what}")],
        };
        assert_eq!(
            changes(&wide, &narrow),
            (said("input", input), vec![]),
            "{wide} -> {narrow}"
        );
        assert_eq!(
            changes(&narrow, &wide),
            (vec![], said("output", output)),
            "{narrow} -> {wide}"
        );
    }
}

type Nest = fn(&Value) -> Value;

#[test]
fn what_is_required_or_gone_breaks_wherever_it_is_nested() {
    let leaf = |required: &[&str]| object(&json!({"a/b": {}, "$top": {}}), required);
    let nests: [(&str, Nest); 9] = [
        ("o.", |inner| object(&json!({ "o": inner }), &[])),
        ("l.[].", |inner| {
            object(&json!({"l": {"type": "array", "items": inner}}), &[])
        }),
        (
            "r.",
            |inner| json!({"properties": {"r": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": inner}}),
        ),
        (
            "d.",
            |inner| json!({"properties": {"d": {"$ref": "#/definitions/x%20y"}}, "definitions": {"x y": inner}}),
        ),
        (
            "",
            |inner| json!({"allOf": [{"type": "object"}, {"allOf": [inner]}]}),
        ),
        ("u.", |inner| {
            object(&json!({"u": {"anyOf": [inner, {"type": "null"}]}}), &[])
        }),
        ("v.", |inner| {
            object(&json!({"v": {"oneOf": [{"type": "string"}, inner]}}), &[])
        }),
        ("m.*.", |inner| {
            object(&json!({"m": {"additionalProperties": inner}}), &[])
        }),
        ("t.[0].", |inner| {
            object(&json!({"t": {"prefixItems": [inner]}}), &[])
        }),
    ];
    for (path, nest) in nests {
        let change = |old: &Value, new: &Value| changes(&nest(old), &nest(new));
        let (input, output) = change(&leaf(&[]), &leaf(&["$top"]));
        assert_eq!(
            (input, output),
            (vec![format!("input {path}$top became required")], vec![])
        );
        let (_, output) = change(&leaf(&["$top"]), &leaf(&[]));
        assert_eq!(output, [format!("output {path}$top may be missing now")]);
        let fewer = object(&json!({"$top": {}}), &[]);
        let (input, output) = change(&leaf(&[]), &fewer);
        assert_eq!(input, [format!("input {path}a/b vanished")]);
        assert_eq!(output, [format!("output {path}a/b vanished")]);
    }
}

#[test]
fn names_of_properties_are_told_byte_for_byte() {
    let long = "n".repeat(300);
    for name in [
        "$top",
        "a/b",
        "a~1b",
        "ключ",
        "$ref",
        "required",
        "properties",
        "a.b",
        long.as_str(),
    ] {
        let of = |names: &[&str]| object(&json!({ name: {"type": "string"} }), names);
        let (input, _) = changes(&of(&[]), &of(&[name]));
        assert_eq!(input, [format!("input {name} became required")]);
    }
}

#[test]
fn what_is_only_told_otherwise_is_a_change_and_breaks_nothing() {
    let old = tool(
        "T",
        &with(&json!({"description": "one", "default": 1})),
        &json!({}),
    );
    let mut other_toolkit = old.clone();
    other_toolkit["toolkit"] = json!({"slug": "t", "logo": "https://new"});
    other_toolkit["version"] = json!("2");
    assert!(
        between(std::slice::from_ref(&old), &[other_toolkit]).is_empty(),
        "a logo is the toolkit's"
    );
    let told = tool(
        "T",
        &with(&json!({"description": "two", "default": 1})),
        &json!({}),
    );
    let drift = between(&[old], &[told]);
    assert_eq!((drift.counts.changed, drift.counts.breaking), (1, 0));
}

#[test]
fn deprecated_tools_that_the_cache_leaves_out_are_told_as_that() {
    let text = |tools: &[Value]| Value::from(tools.to_vec()).to_string();
    let mut old = tool("OLD", &json!({}), &json!({}));
    old["isDeprecated"] = json!(true);
    let kept = tool("KEPT", &json!({}), &json!({}));
    let before = [text(&[old, kept.clone()])];
    let left_out = Drift::between(&before, &[text(std::slice::from_ref(&kept))], false).unwrap();
    assert_eq!((left_out.counts.left_out, left_out.counts.breaking), (1, 0));
    assert_eq!(left_out.left_out, ["OLD"]);
    let gone = Drift::between(&before, &[text(&[kept])], true).unwrap();
    assert_eq!((gone.counts.removed, gone.counts.breaking), (1, 1));
}

#[test]
fn a_schema_that_refers_to_itself_is_compared_to_its_end() {
    let tree =
        |node: Value| json!({"properties": {"root": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}});
    let node = |kind: &str, required: &[&str]| {
        json!({"type": "object", "required": required, "properties": {
            "value": {"type": kind}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}})
    };
    assert_eq!(
        changes(&tree(node("string", &[])), &tree(node("string", &[]))),
        (vec![], vec![])
    );
    let (input, _) = changes(&tree(node("string", &[])), &tree(node("integer", &["value"])));
    assert_eq!(
        input,
        [
            "input root.value became required",
            "input root.value changed from string to integer"
        ]
    );
    // The first level written out.
    let mut unrolled = tree(node("string", &[]));
    unrolled["properties"]["root"] = node("string", &[]);
    assert!(
        between(
            &[tool("T", &tree(node("string", &[])), &json!({}))],
            &[tool("T", &unrolled, &json!({}))]
        )
        .is_empty()
    );
    let circle = json!({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}});
    assert_eq!(changes(&circle, &with(&json!({}))).0, ["input a vanished"]);
}
