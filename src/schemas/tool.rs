//! A tool as it is cached: always the same bytes for the same tool.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::walk::for_each_schema;
use crate::composio::Tool;

/// A tool as compact JSON with sorted keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedTool {
    /// Its slug, such as `GITHUB_CREATE_ISSUE`.
    pub slug: String,
    /// The JSON.
    pub json: String,
}

impl CachedTool {
    /// Brings a tool into its cached form. Where the schemas list a required field twice, as some do, it is listed once.
    pub fn new(tool: &Tool) -> Self {
        let mut tags = tool.tags.clone();
        let mut scopes = tool.scopes.clone();
        for list in [&mut tags, &mut scopes] {
            list.sort_unstable();
            list.dedup();
        }
        // A map of serde_json is sorted by its keys.
        let json = json!({
            "slug": tool.slug,
            "name": tool.name,
            "description": tool.description,
            "inputParameters": schema(&tool.input_parameters),
            "outputParameters": schema(&tool.output_parameters),
            "tags": tags,
            "scopes": scopes,
            "version": tool.version,
            "noAuth": tool.no_auth,
            "isDeprecated": tool.is_deprecated,
            "toolkit": { "slug": tool.toolkit.slug, "name": tool.toolkit.name, "logo": tool.toolkit.logo },
        });
        Self {
            slug: tool.slug.clone(),
            json: json.to_string(),
        }
    }

    /// A tool that was cached before, from its JSON.
    pub fn from_json(tool: &Value) -> Option<Self> {
        Some(Self {
            slug: tool["slug"].as_str()?.to_owned(),
            json: tool.to_string(),
        })
    }
}

/// The schema with its keys sorted. One that is nested too deeply to be read stays as it was sent, as text: a single bad
/// schema must not cost the toolkit.
fn schema(raw: &RawValue) -> Value {
    let Ok(mut schema) = serde_json::from_str::<Value>(raw.get()) else {
        return Value::String(raw.get().to_owned());
    };
    for_each_schema(&mut schema, &mut |schema| {
        if let Some(Value::Array(required)) = schema.get_mut("required")
            && required.iter().all(Value::is_string)
        {
            required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            required.dedup();
        }
    });
    schema
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::composio::ToolToolkit;

    pub(crate) fn tool(slug: &str, input: &Value, output: &Value) -> Tool {
        let raw = |value: &Value| RawValue::from_string(value.to_string()).unwrap();
        Tool {
            slug: slug.to_owned(),
            name: format!("Name of {slug}"),
            description: "What it does".to_owned(),
            toolkit: ToolToolkit {
                slug: "github".to_owned(),
                name: "GitHub".to_owned(),
                logo: "https://logo".to_owned(),
            },
            version: Some("20260101_00".to_owned()),
            input_parameters: raw(input),
            output_parameters: raw(output),
            tags: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
            scopes: vec![],
            no_auth: false,
            is_deprecated: false,
        }
    }

    #[test]
    fn the_order_in_which_it_was_sent_does_not_matter() {
        let sent = r#"{"type":"object","required":["z","a","z"],"properties":{"z":{},"a":{}}}"#;
        let raw = RawValue::from_string(sent.to_owned()).unwrap();
        let one = Tool {
            input_parameters: raw,
            ..tool("T", &json!({}), &json!({}))
        };
        let json = CachedTool::new(&one).json;
        let wanted =
            r#""inputParameters":{"properties":{"a":{},"z":{}},"required":["a","z"],"type":"object"}"#;
        assert!(json.contains(wanted), "{json}");
        assert!(json.contains(r#""tags":["a","b"]"#), "{json}");
        assert!(json.starts_with(r#"{"description""#), "{json}");
    }

    #[test]
    fn data_that_looks_like_a_schema_stays_as_it_is() {
        let input = json!({"properties": {"default": {"required": ["b", "a", "a"]}}, "default": {"required": ["b", "a", "a"]}});
        let json: Value =
            serde_json::from_str(&CachedTool::new(&tool("T", &input, &json!({}))).json).unwrap();
        let input = &json["inputParameters"];
        assert_eq!(input["properties"]["default"]["required"], json!(["a", "b"]));
        assert_eq!(input["default"]["required"], json!(["b", "a", "a"]));
    }

    #[test]
    fn a_schema_too_deep_to_read_is_kept_as_text() {
        let deep = format!(
            "{}{}",
            r#"{"not":"#.repeat(200),
            "{}".to_owned() + &"}".repeat(200)
        );
        let raw = RawValue::from_string(deep.clone());
        // Reading it as raw JSON may be refused already; then there is nothing to keep.
        if let Ok(raw) = raw {
            let one = Tool {
                input_parameters: raw,
                ..tool("T", &json!({}), &json!({}))
            };
            let json: Value = serde_json::from_str(&CachedTool::new(&one).json).unwrap();
            assert_eq!(json["inputParameters"], Value::String(deep));
        }
    }
}
