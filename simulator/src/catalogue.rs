//! The toolkits and tools that exist: a small built-in catalogue with real slugs, as data.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::ids;

/// The frozen initial version of every toolkit, and the default of `/api/v3`.
pub(crate) const INITIAL_VERSION: &str = "00000000_00";

/// In order of popularity, which is the default order of lists.
const BUILT_IN: [&str; 5] = [
    include_str!("../catalogue/github.json"),
    include_str!("../catalogue/slack.json"),
    include_str!("../catalogue/reddit.json"),
    include_str!("../catalogue/hackernews.json"),
    include_str!("../catalogue/codeinterpreter.json"),
];

/// A toolkit with its tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Toolkit {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) app_url: Option<String>,
    pub(crate) categories: Vec<Category>,
    /// The first is the default of new auth configs. `["NO_AUTH"]`: needs no account.
    pub(crate) auth_schemes: Vec<String>,
    pub(crate) composio_managed_auth_schemes: Vec<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) get_current_user_endpoint: Option<String>,
    #[serde(default)]
    pub(crate) available_scopes: Vec<String>,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    /// Newest first; the last is [`INITIAL_VERSION`].
    pub(crate) versions: Vec<String>,
    pub(crate) tools: Vec<Tool>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Category {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A tool. Its schemas are rendered on demand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) scopes: Vec<String>,
    /// JSON Schema properties of the arguments.
    pub(crate) properties: Map<String, Value>,
    pub(crate) required: Vec<String>,
    #[serde(default)]
    pub(crate) deprecated: bool,
}

impl Toolkit {
    pub(crate) fn no_auth(&self) -> bool {
        self.auth_schemes.iter().all(|scheme| scheme == "NO_AUTH")
    }

    pub(crate) fn latest(&self) -> &str {
        self.versions.first().map_or(INITIAL_VERSION, String::as_str)
    }

    /// The version `wanted` stands for, if it exists.
    pub(crate) fn resolve<'a>(&'a self, wanted: &str) -> Option<&'a str> {
        if wanted == "latest" {
            return Some(self.latest());
        }
        self.versions
            .iter()
            .map(String::as_str)
            .find(|version| *version == wanted)
    }

    pub(crate) fn logo(&self) -> String {
        format!("https://logos.composio.dev/api/{}", self.slug)
    }

    /// As lists show it.
    pub(crate) fn list_item(&self) -> Value {
        json!({
            "slug": self.slug,
            "name": self.name,
            "type": "native",
            "auth_schemes": self.auth_schemes,
            "composio_managed_auth_schemes": self.composio_managed_auth_schemes,
            "no_auth": self.no_auth(),
            "is_local_toolkit": false,
            "auth_guide_url": null,
            "deprecated": {"toolkitId": self.legacy_id()},
            "meta": self.meta(self.latest(), "id"),
        })
    }

    /// As the detail call shows it, which differs from lists: no `no_auth`, no `auth_schemes`, category slugs.
    pub(crate) fn detail(&self, version: &str) -> Value {
        let mut meta = self.meta(version, "slug");
        meta["available_versions"] = json!(self.versions);
        let managed = self.composio_managed_auth_schemes.iter();
        let managed: Vec<_> = managed
            .map(|mode| json!({"mode": mode, "scopes": {"available": self.available_scopes}}))
            .collect();
        let details: Vec<_> = self
            .auth_schemes
            .iter()
            .map(|mode| self.auth_detail(mode))
            .collect();
        json!({
            "slug": self.slug,
            "name": self.name,
            "type": "native",
            "enabled": true,
            "is_local_toolkit": false,
            "composio_managed_auth": managed,
            "composio_managed_auth_schemes": self.composio_managed_auth_schemes,
            "auth_config_details": details,
            "auth_guide_url": null,
            "base_url": self.base_url,
            "get_current_user_endpoint": self.get_current_user_endpoint,
            "get_current_user_endpoint_method": self.get_current_user_endpoint.as_ref().map(|_| "GET"),
            "deprecated": {"toolkitId": self.legacy_id(), "rawProxyInfoByAuthSchemes": []},
            "meta": meta,
        })
    }

    fn auth_detail(&self, mode: &str) -> Value {
        let field = |name: &str, display: &str, secret: bool| {
            json!({
                "name": name, "displayName": display, "type": "string", "required": true, "is_secret": secret,
                "description": format!("{display} of your {} app.", self.name),
            })
        };
        let (creation, initiation) = match mode {
            "OAUTH2" => (
                vec![
                    field("client_id", "Client id", false),
                    field("client_secret", "Client secret", true),
                ],
                vec![],
            ),
            "BEARER_TOKEN" => (vec![], vec![field("token", "Bearer token", true)]),
            "NO_AUTH" => (vec![], vec![]),
            _ => (vec![], vec![field("generic_api_key", "API key", true)]),
        };
        json!({
            "mode": mode,
            "name": format!("{}_{}", self.slug, mode.to_lowercase()),
            "fields": {
                "auth_config_creation": {"required": creation, "optional": []},
                "connected_account_initiation": {"required": initiation, "optional": []},
            },
            "proxy": self.base_url.as_ref().map(|base_url| json!({"base_url": base_url})),
        })
    }

    fn meta(&self, version: &str, category_key: &str) -> Value {
        let categories: Vec<_> = self
            .categories
            .iter()
            .map(|category| {
                Value::from(Map::from_iter([
                    (category_key.to_owned(), json!(category.id)),
                    ("name".to_owned(), json!(category.name)),
                ]))
            })
            .collect();
        json!({
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "description": self.description,
            "logo": self.logo(),
            "app_url": self.app_url,
            "categories": categories,
            "tools_count": self.tools.len(),
            "triggers_count": 0,
            "version": version,
        })
    }

    /// The UUID of the retired API generation, which some answers still carry.
    fn legacy_id(&self) -> String {
        let name = ids::hex(self.slug.as_bytes());
        let padded = format!("{name:0<12.12}");
        format!("00000000-0000-4000-8000-{padded}")
    }
}

impl Tool {
    /// As lists and the detail call show it.
    pub(crate) fn render(&self, toolkit: &Toolkit, version: &str) -> Value {
        json!({
            "slug": self.slug,
            "name": self.name,
            "description": self.description,
            "human_description": self.description,
            "toolkit": {"slug": toolkit.slug, "name": toolkit.name, "logo": toolkit.logo()},
            "version": version,
            "available_versions": toolkit.versions,
            "input_parameters": {
                "type": "object",
                "title": format!("{}Request", pascal_case(&self.slug)),
                "properties": self.properties,
                "required": self.required,
            },
            "output_parameters": output_schema(&self.slug),
            "tags": self.tags,
            "scopes": self.scopes,
            "scope_requirements": null,
            "no_auth": toolkit.no_auth(),
            "is_deprecated": self.deprecated,
            "deprecated": {
                "displayName": self.name,
                "version": version,
                "available_versions": toolkit.versions,
                "is_deprecated": self.deprecated,
                "toolkit": {"logo": toolkit.logo()},
            },
        })
    }
}

fn output_schema(slug: &str) -> Value {
    json!({
        "type": "object",
        "title": format!("{}Response", pascal_case(slug)),
        "properties": {
            "data": {"type": "object", "description": "What the tool returned.", "additionalProperties": true},
            "error": {"type": "string", "nullable": true, "description": "What went wrong, if something did."},
            "successful": {"type": "boolean", "description": "Whether the tool did what it was asked."},
        },
        "required": ["data", "successful"],
    })
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

/// Every toolkit and tool of a simulator.
#[derive(Debug)]
pub(crate) struct Catalogue {
    toolkits: Vec<Arc<Toolkit>>,
    by_slug: HashMap<String, Arc<Toolkit>>,
    /// Tool slug to its toolkit and position there, in the order lists use.
    tools: BTreeMap<String, (Arc<Toolkit>, usize)>,
}

impl Catalogue {
    /// The built-in toolkits.
    pub(crate) fn built_in() -> Result<Self, serde_json::Error> {
        let toolkits: Result<Vec<Toolkit>, _> = BUILT_IN.into_iter().map(serde_json::from_str).collect();
        Ok(Self::new(toolkits?))
    }

    fn new(toolkits: Vec<Toolkit>) -> Self {
        let toolkits: Vec<_> = toolkits.into_iter().map(Arc::new).collect();
        let by_slug = toolkits
            .iter()
            .map(|toolkit| (toolkit.slug.clone(), Arc::clone(toolkit)))
            .collect();
        let tools = toolkits
            .iter()
            .flat_map(|toolkit| {
                let tools = toolkit.tools.iter().enumerate();
                tools.map(|(index, tool)| (tool.slug.clone(), (Arc::clone(toolkit), index)))
            })
            .collect();
        Self {
            toolkits,
            by_slug,
            tools,
        }
    }

    /// Most used first.
    pub(crate) fn toolkits(&self) -> &[Arc<Toolkit>] {
        &self.toolkits
    }

    /// By slug in any case: requests spell slugs both ways.
    pub(crate) fn toolkit(&self, slug: &str) -> Option<&Arc<Toolkit>> {
        self.by_slug.get(&slug.to_ascii_lowercase())
    }

    /// By exact slug.
    pub(crate) fn tool(&self, slug: &str) -> Option<(&Toolkit, &Tool)> {
        self.tools
            .get(slug)
            .map(|(toolkit, index)| (&**toolkit, &toolkit.tools[*index]))
    }

    /// By slug, in alphabetical order.
    pub(crate) fn tools(&self) -> impl Iterator<Item = (&Toolkit, &Tool)> {
        self.tools
            .values()
            .map(|(toolkit, index)| (&**toolkit, &toolkit.tools[*index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_consistent() {
        let catalogue = Catalogue::built_in().unwrap();
        let slugs: Vec<_> = catalogue
            .toolkits()
            .iter()
            .map(|toolkit| toolkit.slug.as_str())
            .collect();
        assert_eq!(
            slugs,
            ["github", "slack", "reddit", "hackernews", "codeinterpreter"]
        );
        for toolkit in catalogue.toolkits() {
            assert_eq!(
                toolkit.versions.last().map(String::as_str),
                Some(INITIAL_VERSION),
                "{}",
                toolkit.slug
            );
            assert!(
                toolkit.versions.is_sorted_by(|a, b| a > b),
                "{} newest first",
                toolkit.slug
            );
            assert!(!toolkit.tools.is_empty());
            let prefix = format!("{}_", toolkit.slug.to_uppercase());
            for tool in &toolkit.tools {
                assert!(tool.slug.starts_with(&prefix), "{}", tool.slug);
                assert!(
                    tool.required
                        .iter()
                        .all(|name| tool.properties.contains_key(name)),
                    "{} requires what it describes",
                    tool.slug
                );
            }
        }
        assert_eq!(
            catalogue.tools().count(),
            catalogue.toolkits().iter().map(|t| t.tools.len()).sum::<usize>()
        );
    }

    #[test]
    fn versions_resolve() {
        let catalogue = Catalogue::built_in().unwrap();
        let reddit = catalogue.toolkit("REDDIT").unwrap();
        assert_eq!(reddit.resolve("latest"), Some("20260424_00"));
        assert_eq!(reddit.resolve("00000000_00"), Some("00000000_00"));
        assert_eq!(reddit.resolve("19990101_00"), None);
    }

    #[test]
    fn list_and_detail_differ_as_documented() {
        let catalogue = Catalogue::built_in().unwrap();
        let hackernews = catalogue.toolkit("hackernews").unwrap();
        let item = hackernews.list_item();
        assert_eq!(item["no_auth"], true);
        assert_eq!(item["meta"]["categories"][0]["id"], "news");
        let detail = hackernews.detail("20251209_00");
        assert!(detail.get("no_auth").is_none() && detail.get("auth_schemes").is_none());
        assert_eq!(detail["meta"]["categories"][0]["slug"], "news");
        assert_eq!(detail["auth_config_details"][0]["mode"], "NO_AUTH");
    }

    #[test]
    fn schema_titles_come_from_slugs() {
        assert_eq!(pascal_case("REDDIT_GET_R_TOP"), "RedditGetRTop");
        assert_eq!(pascal_case("A__B"), "AB");
    }
}
