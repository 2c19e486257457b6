//! A toolkit with its versions, and the shapes the API shows it in.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tool::Tool;
use crate::{clock::iso, ids};

/// The frozen initial version of every toolkit, and the default of `/api/v3`.
pub(crate) const INITIAL_VERSION: &str = "00000000_00";

/// A toolkit at one moment. Every change makes a new value, so that no request sees half of a change.
#[derive(Clone, Debug)]
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
    pub(crate) available_scopes: Vec<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Lists hide it unless asked for deprecated toolkits.
    pub(crate) deprecated: bool,
    /// Newest first, never empty; the last is [`INITIAL_VERSION`].
    pub(super) versions: Vec<Arc<Version>>,
    /// What its generated tools are made from.
    pub(super) seed: u64,
    /// How many tools were generated for it so far, so that no slug is used twice.
    pub(super) tools_made: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Category {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// One version of a toolkit.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    /// By slug.
    tools: Vec<Arc<Tool>>,
}

impl Version {
    pub(super) fn new(name: String, mut tools: Vec<Arc<Tool>>) -> Self {
        tools.sort_unstable_by(|a, b| a.slug.cmp(&b.slug));
        Self { name, tools }
    }

    /// In the order of their slugs.
    pub(crate) fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// By exact slug.
    pub(crate) fn tool(&self, slug: &str) -> Option<&Arc<Tool>> {
        let found = self.tools.binary_search_by(|tool| tool.slug.as_str().cmp(slug));
        found.ok().map(|index| &self.tools[index])
    }
}

impl Toolkit {
    pub(crate) fn no_auth(&self) -> bool {
        self.auth_schemes.iter().all(|scheme| scheme == "NO_AUTH")
    }

    pub(crate) fn latest(&self) -> &Version {
        // Never empty, see the field.
        &self.versions[0]
    }

    /// Newest first.
    pub(crate) fn version_names(&self) -> impl Iterator<Item = &str> {
        self.versions.iter().map(|version| version.name.as_str())
    }

    /// The version `wanted` stands for, if it exists.
    pub(crate) fn resolve(&self, wanted: &str) -> Option<&Version> {
        if wanted == "latest" {
            return Some(self.latest());
        }
        let found = self.versions.iter().find(|version| version.name == wanted);
        found.map(Arc::as_ref)
    }

    /// The versions that have a tool, newest first.
    pub(super) fn versions_of(&self, tool: &str) -> Vec<&str> {
        let with_it = self
            .versions
            .iter()
            .filter(|version| version.tool(tool).is_some());
        with_it.map(|version| version.name.as_str()).collect()
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
    pub(crate) fn detail(&self, version: &Version) -> Value {
        let mut meta = self.meta(version, "slug");
        meta["available_versions"] = self.version_names().collect();
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

    fn meta(&self, version: &Version, category_key: &str) -> Value {
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
            "created_at": iso(self.created_at),
            "updated_at": iso(self.updated_at),
            "description": self.description,
            "logo": self.logo(),
            "app_url": self.app_url,
            "categories": categories,
            "tools_count": version.tools.len(),
            "triggers_count": 0,
            "version": version.name,
        })
    }

    /// The UUID of the retired API generation, which some responses still contain.
    fn legacy_id(&self) -> String {
        let name = ids::hex(self.slug.as_bytes());
        let padded = format!("{name:0<12.12}");
        format!("00000000-0000-4000-8000-{padded}")
    }
}
