//! A tool. Its schemas come from the built-in catalogue or are generated on demand.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{
    schema::{SchemaSource, summary},
    toolkit::{Toolkit, Version},
};

/// A tool in one or several versions of its toolkit.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) deprecated: bool,
    content: Content,
    /// The addition to the description by the last release that changed it.
    note: Option<String>,
    /// Required inputs that releases added.
    added_inputs: Vec<String>,
}

/// Where description and schemas come from.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Given { description: String, input: Input },
    Generated(SchemaSource),
}

/// What a tool takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    /// JSON Schema properties of the arguments.
    pub(crate) properties: Map<String, Value>,
    pub(crate) required: Vec<String>,
}

impl Tool {
    pub(super) fn new(
        slug: String,
        name: String,
        tags: Vec<String>,
        scopes: Vec<String>,
        deprecated: bool,
        content: Content,
    ) -> Self {
        Self {
            slug,
            name,
            tags,
            scopes,
            deprecated,
            content,
            note: None,
            added_inputs: Vec::new(),
        }
    }

    pub(crate) fn description(&self) -> Cow<'_, str> {
        let description = match &self.content {
            Content::Given { description, .. } => Cow::Borrowed(description.as_str()),
            Content::Generated(source) => Cow::Owned(source.description(&self.name)),
        };
        match &self.note {
            Some(note) => Cow::Owned(format!("{description} {note}")),
            None => description,
        }
    }

    pub(crate) fn input(&self) -> Cow<'_, Input> {
        let input = match &self.content {
            Content::Given { input, .. } => Cow::Borrowed(input),
            Content::Generated(source) => Cow::Owned(source.input()),
        };
        if self.added_inputs.is_empty() {
            return input;
        }
        let mut input = input.into_owned();
        for name in &self.added_inputs {
            let schema = json!({"type": "string", "description": "Needed since the tool was revised."});
            input.properties.insert(name.clone(), schema);
            input.required.push(name.clone());
        }
        Cow::Owned(input)
    }

    /// The same tool with another description, which ends with `note`.
    pub(super) fn with_note(&self, note: String) -> Self {
        Self {
            note: Some(note),
            ..self.clone()
        }
    }

    /// The same tool with one more required input.
    pub(super) fn with_required_input(&self, name: String) -> Self {
        let mut tool = self.clone();
        tool.added_inputs.push(name);
        tool
    }

    /// As lists and the detail call show it.
    pub(crate) fn render(&self, toolkit: &Toolkit, version: &Version) -> Value {
        let description = self.description();
        let human_description = match &self.content {
            Content::Given { .. } => Value::from(&*description),
            Content::Generated(_) => Value::from(summary(&self.name)),
        };
        let versions = toolkit.versions_of(&self.slug);
        let mut shown = json!({
            "slug": self.slug,
            "name": self.name,
            "description": description,
            "human_description": human_description,
            "toolkit": {"slug": toolkit.slug, "name": toolkit.name, "logo": toolkit.logo()},
            "version": version.name,
            "available_versions": versions,
            "tags": self.tags,
            "scopes": self.scopes,
            "scope_requirements": null,
            "no_auth": toolkit.no_auth(),
            "is_deprecated": self.deprecated,
            "deprecated": {
                "displayName": self.name,
                "version": version.name,
                "available_versions": versions,
                "is_deprecated": self.deprecated,
                "toolkit": {"logo": toolkit.logo()},
            },
        });
        // Moved in, because `json!` copies what it is given, and schemas are most of a tool.
        shown["input_parameters"] = self.input_schema();
        shown["output_parameters"] = self.output_schema();
        shown
    }

    fn input_schema(&self) -> Value {
        let input = self.input().into_owned();
        let mut schema = json!({"type": "object", "title": format!("{}Request", pascal_case(&self.slug))});
        schema["properties"] = input.properties.into();
        schema["required"] = input.required.into();
        schema
    }

    fn output_schema(&self) -> Value {
        let mut schema = json!({
            "type": "object",
            "title": format!("{}Response", pascal_case(&self.slug)),
            "properties": {
                "error": {"type": "string", "nullable": true, "description": "What went wrong, if something did."},
                "successful": {"type": "boolean", "description": "Whether the tool did what it was asked."},
            },
            "required": ["data", "successful"],
        });
        schema["properties"]["data"] = match &self.content {
            Content::Given { .. } => {
                json!({"type": "object", "description": "What the tool returned.", "additionalProperties": true})
            }
            Content::Generated(source) => source.output_data(),
        };
        schema
    }
}

fn pascal_case(slug: &str) -> String {
    slug.split('_')
        .fold(String::with_capacity(slug.len()), |mut text, word| {
            let (first, rest) = word.split_at(word.len().min(1));
            text.push_str(first);
            text.push_str(&rest.to_lowercase());
            text
        })
}
