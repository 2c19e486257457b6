//! Toolkits and tools.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Skipped, Unreadable, count, flag, object, slug, text};
use crate::composio::catalogue::{Tool, ToolToolkit, ToolkitDetail, ToolkitSummary};

#[derive(Deserialize)]
struct ToolkitWire {
    #[serde(default)]
    slug: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    no_auth: Value,
    #[serde(default)]
    auth_schemes: Value,
    #[serde(default)]
    auth_config_details: Value,
    #[serde(default)]
    is_deprecated: Value,
    #[serde(default)]
    deprecated: Value,
    #[serde(default)]
    meta: Value,
}

pub(in crate::composio) fn toolkit_item(item: &RawValue) -> Result<ToolkitSummary, Skipped> {
    let wire: ToolkitWire = super::item(item)?;
    let schemes = texts(&wire.auth_schemes);
    Ok(ToolkitSummary {
        slug: text(&wire.slug).ok_or_else(Skipped::default)?,
        name: text(&wire.name).unwrap_or_default(),
        version: text(&wire.meta["version"]),
        updated_at: text(&wire.meta["updated_at"]),
        no_auth: flag(&wire.no_auth).unwrap_or_else(|| schemes == ["NO_AUTH"]),
        // Today's `deprecated` is an object with the id of a retired API.
        deprecated: flag(&wire.is_deprecated)
            .or_else(|| flag(&wire.deprecated))
            .unwrap_or(false),
        tools_count: count(&wire.meta["tools_count"]),
    })
}

pub(in crate::composio) fn toolkit(body: &[u8]) -> Result<ToolkitDetail, Unreadable> {
    let wire: ToolkitWire = object(body)?;
    let meta = |name: &str| text(&wire.meta[name]);
    let categories = wire.meta["categories"].as_array().into_iter().flatten();
    let details = wire.auth_config_details.as_array().into_iter().flatten();
    Ok(ToolkitDetail {
        slug: text(&wire.slug).ok_or_else(|| Unreadable::new("the toolkit has no slug"))?,
        name: text(&wire.name).unwrap_or_default(),
        description: meta("description").unwrap_or_default(),
        logo: meta("logo").unwrap_or_default(),
        version: meta("version"),
        updated_at: meta("updated_at"),
        app_url: meta("app_url"),
        auth_modes: details.filter_map(|detail| text(&detail["mode"])).collect(),
        // Lists of toolkits call a category's slug its id.
        categories: categories
            .filter_map(|category| text(&category["slug"]).or_else(|| text(&category["id"])))
            .collect(),
    })
}

#[derive(Deserialize)]
struct ToolWire<'a> {
    #[serde(default)]
    slug: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    description: Value,
    #[serde(default)]
    toolkit: Value,
    #[serde(default)]
    version: Value,
    #[serde(borrow, default)]
    input_parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_parameters: Option<&'a RawValue>,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    scopes: Value,
    #[serde(default)]
    no_auth: Value,
    #[serde(default)]
    is_deprecated: Value,
}

pub(in crate::composio) fn tool_item(item: &RawValue) -> Result<Tool, Skipped> {
    let wire: ToolWire<'_> = super::item(item)?;
    Ok(Tool {
        slug: text(&wire.slug).ok_or_else(Skipped::default)?,
        name: text(&wire.name).unwrap_or_default(),
        description: text(&wire.description).unwrap_or_default(),
        toolkit: ToolToolkit {
            slug: slug(&wire.toolkit),
            name: text(&wire.toolkit["name"]).unwrap_or_default(),
            logo: text(&wire.toolkit["logo"]).unwrap_or_default(),
        },
        version: text(&wire.version),
        input_parameters: schema(wire.input_parameters)?,
        output_parameters: schema(wire.output_parameters)?,
        tags: texts(&wire.tags),
        scopes: texts(&wire.scopes),
        no_auth: flag(&wire.no_auth).unwrap_or(false),
        is_deprecated: flag(&wire.is_deprecated).unwrap_or(false),
    })
}

/// A schema as it was sent, even if it is not valid JSON Schema: that is for its users to judge.
fn schema(sent: Option<&RawValue>) -> Result<Box<RawValue>, Skipped> {
    match sent {
        Some(schema) => Ok(schema.to_owned()),
        None => RawValue::from_string("{}".to_owned()).map_err(|_| Skipped::default()),
    }
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    #[test]
    fn a_documented_toolkit_is_read_in_both_its_shapes() {
        let meta = |category: &str| {
            json!({
                "created_at": "2024-05-03T11:44:32.061Z", "updated_at": "2026-04-24T09:12:40.000Z",
                "description": "Networks.", "logo": "https://logos/reddit", "app_url": "https://www.reddit.com",
                "categories": [{category: "social", "name": "Social"}], "tools_count": 7.0, "triggers_count": 0.0,
                "version": "20260424_00", "available_versions": ["20260424_00", "00000000_00"],
            })
        };
        let listed = toolkit_item(&raw(&json!({
            "slug": "reddit", "name": "Reddit", "type": "native", "auth_schemes": ["OAUTH2"], "no_auth": false,
            "is_local_toolkit": false, "deprecated": {"toolkitId": "1"}, "meta": meta("id"),
        })))
        .unwrap();
        let expected = ToolkitSummary {
            slug: "reddit".into(),
            name: "Reddit".into(),
            version: Some("20260424_00".into()),
            updated_at: Some("2026-04-24T09:12:40.000Z".into()),
            no_auth: false,
            deprecated: false,
            tools_count: Some(7),
        };
        assert_eq!(listed, expected);
        let expected = ToolkitDetail {
            slug: "reddit".into(),
            name: "Reddit".into(),
            description: "Networks.".into(),
            logo: "https://logos/reddit".into(),
            version: Some("20260424_00".into()),
            updated_at: Some("2026-04-24T09:12:40.000Z".into()),
            app_url: Some("https://www.reddit.com".into()),
            auth_modes: vec!["OAUTH2".into(), "API_KEY".into()],
            categories: vec!["social".into()],
        };
        for category in ["slug", "id"] {
            let body = json!({
                "slug": "reddit", "name": "Reddit", "enabled": true, "meta": meta(category),
                "auth_config_details": [{"mode": "OAUTH2", "name": "o"}, {"name": "no mode"}, {"mode": "API_KEY"}],
            });
            assert_eq!(
                toolkit(body.to_string().as_bytes()).as_ref(),
                Ok(&expected),
                "{category}"
            );
        }
    }

    #[test]
    fn missing_null_and_oddly_typed_fields_do_not_hide_a_toolkit() {
        let table = [
            (json!({"slug": "a"}), false, false),
            (
                json!({"slug": "a", "name": null, "meta": null, "no_auth": null}),
                false,
                false,
            ),
            (json!({"slug": "a", "auth_schemes": ["NO_AUTH"]}), true, false),
            (
                json!({"slug": "a", "auth_schemes": ["NO_AUTH", "API_KEY"]}),
                false,
                false,
            ),
            (
                json!({"slug": "a", "auth_schemes": ["NO_AUTH"], "no_auth": false}),
                false,
                false,
            ),
            (
                json!({"slug": "a", "no_auth": "true", "is_deprecated": 1}),
                true,
                true,
            ),
            (json!({"slug": "a", "deprecated": true, "meta": "x"}), false, true),
        ];
        for (item, no_auth, deprecated) in table {
            let read = toolkit_item(&raw(&item)).unwrap();
            assert_eq!((read.no_auth, read.deprecated), (no_auth, deprecated), "{item}");
            assert_eq!(
                (read.version, read.updated_at, read.tools_count),
                (None, None, None)
            );
            assert!(toolkit(item.to_string().as_bytes()).is_ok());
        }
        for item in [
            json!({"name": "a"}),
            json!({"slug": ""}),
            json!(["a"]),
            json!(null),
        ] {
            assert_eq!(toolkit_item(&raw(&item)), Err(Skipped::default()), "{item}");
            assert!(toolkit(item.to_string().as_bytes()).is_err(), "{item}");
        }
    }

    #[test]
    fn schemas_are_kept_as_they_were_sent() {
        // Spaces, order, repeated names and big numbers: a schema that was read and written again would lose them.
        let odd = r#"{ "z":1, "required":["b","a","a"], "a":1e400, "z":2 }"#;
        let item = format!(
            r#"{{"slug":"A_B","name":"n","description":"d","toolkit":{{"slug":"a","name":"A","logo":"l"}},
                "version":"20260424_00","input_parameters":{odd},"output_parameters":"odd but sent",
                "tags":["t",null,""],"scopes":["s"],"no_auth":true,"is_deprecated":true,"deprecated":{{}}}}"#
        );
        let tool = tool_item(&RawValue::from_string(item).unwrap()).unwrap();
        assert_eq!(tool.input_parameters.get(), odd);
        assert_eq!(tool.output_parameters.get(), r#""odd but sent""#);
        let toolkit = ToolToolkit {
            slug: "a".into(),
            name: "A".into(),
            logo: "l".into(),
        };
        assert_eq!(tool.toolkit, toolkit);
        assert_eq!((tool.slug.as_str(), tool.name.as_str()), ("A_B", "n"));
        assert_eq!(
            (tool.description.as_str(), tool.version.as_deref()),
            ("d", Some("20260424_00"))
        );
        assert_eq!(
            (tool.tags, tool.scopes),
            (vec!["t".to_owned()], vec!["s".to_owned()])
        );
        assert!(tool.no_auth && tool.is_deprecated);
    }

    #[test]
    fn a_tool_needs_only_its_slug() {
        for item in [
            json!({"slug": "A_B"}),
            json!({"slug": "A_B", "input_parameters": null, "output_parameters": null, "toolkit": null, "tags": null}),
        ] {
            let tool = tool_item(&raw(&item)).unwrap();
            assert_eq!(
                (tool.input_parameters.get(), tool.output_parameters.get()),
                ("{}", "{}")
            );
            assert_eq!((tool.toolkit.slug.as_str(), tool.version), ("", None));
            assert!(tool.tags.is_empty() && !tool.no_auth && !tool.is_deprecated);
        }
        for item in [
            json!({"name": "A_B", "input_parameters": {}}),
            json!({"slug": {}}),
            json!(["A_B"]),
            json!(7),
        ] {
            assert_eq!(tool_item(&raw(&item)).unwrap_err(), Skipped::default(), "{item}");
        }
    }
}
