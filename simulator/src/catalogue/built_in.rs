//! The built-in toolkits: real slugs, as data.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    tool::{Content, Input, Tool},
    toolkit::{Category, Toolkit, Version},
};

/// In order of popularity, which is the default order of lists.
const FILES: [&str; 5] = [
    include_str!("../../catalogue/github.json"),
    include_str!("../../catalogue/slack.json"),
    include_str!("../../catalogue/reddit.json"),
    include_str!("../../catalogue/hackernews.json"),
    include_str!("../../catalogue/codeinterpreter.json"),
];

/// A toolkit as its file has it: every version has the same tools.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolkitFile {
    slug: String,
    name: String,
    description: String,
    app_url: Option<String>,
    categories: Vec<Category>,
    auth_schemes: Vec<String>,
    composio_managed_auth_schemes: Vec<String>,
    base_url: Option<String>,
    get_current_user_endpoint: Option<String>,
    #[serde(default)]
    available_scopes: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    versions: Vec<String>,
    tools: Vec<ToolFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolFile {
    slug: String,
    name: String,
    description: String,
    tags: Vec<String>,
    scopes: Vec<String>,
    properties: Map<String, Value>,
    required: Vec<String>,
    #[serde(default)]
    deprecated: bool,
}

/// The built-in toolkits, most used first.
pub(super) fn toolkits() -> Result<Vec<Toolkit>, serde_json::Error> {
    FILES
        .into_iter()
        .map(|file| serde_json::from_str::<ToolkitFile>(file).map(Toolkit::from))
        .collect()
}

impl From<ToolkitFile> for Toolkit {
    fn from(file: ToolkitFile) -> Self {
        let tools: Vec<_> = file.tools.into_iter().map(|tool| Arc::new(tool.into())).collect();
        let versions = file.versions.into_iter();
        Self {
            slug: file.slug,
            name: file.name,
            description: file.description,
            app_url: file.app_url,
            categories: file.categories,
            auth_schemes: file.auth_schemes,
            composio_managed_auth_schemes: file.composio_managed_auth_schemes,
            base_url: file.base_url,
            get_current_user_endpoint: file.get_current_user_endpoint,
            available_scopes: file.available_scopes,
            created_at: file.created_at,
            updated_at: file.updated_at,
            deprecated: false,
            versions: versions
                .map(|name| Arc::new(Version::new(name, tools.clone())))
                .collect(),
            seed: 0,
            tools_made: 0,
        }
    }
}

impl From<ToolFile> for Tool {
    fn from(file: ToolFile) -> Self {
        let content = Content::Given {
            description: file.description,
            input: Input {
                properties: file.properties,
                required: file.required,
            },
        };
        Self::new(
            file.slug,
            file.name,
            file.tags,
            file.scopes,
            file.deprecated,
            content,
        )
    }
}
