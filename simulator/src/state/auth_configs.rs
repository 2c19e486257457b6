//! The auth configs of one project.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::ids;

/// How a toolkit is authorized. No `Debug`: it holds client secrets.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own on the wire"
)]
pub(crate) struct AuthConfig {
    pub(crate) id: String,
    pub(crate) uuid: String,
    pub(crate) name: String,
    pub(crate) toolkit: String,
    pub(crate) auth_scheme: String,
    /// Composio's own OAuth app, as opposed to the customer's.
    pub(crate) managed: bool,
    pub(crate) enabled: bool,
    pub(crate) credentials: Map<String, Value>,
    pub(crate) shared_credentials: Map<String, Value>,
    pub(crate) proxy_config: Option<Value>,
    pub(crate) tool_access: Value,
    pub(crate) for_tool_router: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted: bool,
}

/// What a create call or a seed decides about an auth config.
pub(crate) struct NewAuthConfig {
    /// Absent: a random one.
    pub(crate) id: Option<String>,
    /// Absent: made from the toolkit.
    pub(crate) name: Option<String>,
    pub(crate) toolkit: String,
    pub(crate) auth_scheme: String,
    pub(crate) managed: bool,
    pub(crate) enabled: bool,
    pub(crate) credentials: Map<String, Value>,
}

/// Which auth configs a list shows.
#[derive(Debug, Default)]
pub(crate) struct AuthConfigFilter {
    /// Lower-case slugs; empty: every toolkit.
    pub(crate) toolkits: Vec<String>,
    pub(crate) managed: Option<bool>,
    pub(crate) show_disabled: bool,
    /// Part of a name or id, in any case.
    pub(crate) search: Option<String>,
}

impl AuthConfigFilter {
    fn admits(&self, config: &AuthConfig) -> bool {
        !config.deleted
            && (self.show_disabled || config.enabled)
            && (self.toolkits.is_empty() || self.toolkits.contains(&config.toolkit))
            && self.managed.is_none_or(|managed| managed == config.managed)
            && self.search.as_ref().is_none_or(|text| {
                let text = text.to_lowercase();
                config.name.to_lowercase().contains(&text) || config.id.to_lowercase().contains(&text)
            })
    }
}

#[derive(Default)]
pub(crate) struct AuthConfigs {
    rows: Vec<AuthConfig>,
    by_id: HashMap<String, usize>,
}

impl AuthConfigs {
    /// Adds a config. Repeated calls create duplicates, as they do at Composio. A seed whose id is already in use gets
    /// the existing row.
    pub(crate) fn create(&mut self, new: NewAuthConfig, now: Timestamp) -> &AuthConfig {
        let id = new.id.unwrap_or_else(ids::auth_config);
        let index = *self.by_id.entry(id.clone()).or_insert(self.rows.len());
        if index == self.rows.len() {
            let name = new
                .name
                .unwrap_or_else(|| format!("{}-{}", new.toolkit, &ids::uuid()[..6]));
            self.rows.push(AuthConfig {
                id,
                uuid: ids::uuid(),
                name,
                toolkit: new.toolkit,
                auth_scheme: new.auth_scheme,
                managed: new.managed,
                enabled: new.enabled,
                credentials: new.credentials,
                shared_credentials: Map::new(),
                proxy_config: None,
                tool_access: Value::Object(Map::new()),
                for_tool_router: true,
                created_at: now,
                updated_at: now,
                deleted: false,
            });
        }
        &self.rows[index]
    }

    /// How many were ever made.
    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The config of that id, unless it was deleted.
    pub(crate) fn get(&self, id: &str) -> Option<&AuthConfig> {
        self.get_any(id).filter(|config| !config.deleted)
    }

    /// The config of that id, even if it was deleted: accounts outlive it.
    pub(crate) fn get_any(&self, id: &str) -> Option<&AuthConfig> {
        self.by_id.get(id).map(|&index| &self.rows[index])
    }

    /// Lets `change` edit the config and moves its update time.
    pub(crate) fn update(&mut self, id: &str, now: Timestamp, change: impl FnOnce(&mut AuthConfig)) -> bool {
        let Some(config) = self
            .by_id
            .get(id)
            .map(|&index| &mut self.rows[index])
            .filter(|config| !config.deleted)
        else {
            return false;
        };
        change(config);
        config.updated_at = now;
        true
    }

    /// Newest first.
    pub(crate) fn list(&self, filter: &AuthConfigFilter) -> Vec<&AuthConfig> {
        self.rows
            .iter()
            .rev()
            .filter(|config| filter.admits(config))
            .collect()
    }
}
