//! Connected accounts as JSON.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    clock::iso,
    ids,
    state::{
        account::{Account, AccountType},
        auth_configs::AuthConfigs,
        lifecycle::{AccountStatus, REASON_CONFIG_DISABLED},
    },
};

/// Whether accounts of a scheme are authorized by a redirect to the provider.
pub(super) fn is_redirect_scheme(scheme: &str) -> bool {
    matches!(scheme, "OAUTH1" | "OAUTH2" | "DCR_OAUTH" | "CIMD_OAUTH")
}

/// As lists show it. Borrows, because a page of a hundred is what clients poll.
#[derive(Serialize)]
pub(super) struct ListItem<'a> {
    id: &'a str,
    word_id: &'a str,
    alias: Option<&'a str>,
    toolkit: Slug<'a>,
    auth_config: ConfigRef<'a>,
    user_id: &'a str,
    status: AccountStatus,
    status_reason: Option<&'a str>,
    is_disabled: bool,
    state: State<'a>,
    /// Deprecated duplicate of `state.val`.
    data: Map<String, Value>,
    created_at: String,
    updated_at: String,
    experimental: Value,
    test_request_endpoint: &'a str,
    deprecated: Deprecated<'a>,
}

#[derive(Serialize)]
struct Slug<'a> {
    slug: &'a str,
}

#[derive(Serialize)]
struct ConfigRef<'a> {
    id: &'a str,
    auth_scheme: &'a str,
    is_composio_managed: bool,
    is_disabled: bool,
    deprecated: Uuid<'a>,
}

#[derive(Serialize)]
struct Uuid<'a> {
    uuid: &'a str,
}

#[derive(Serialize)]
struct State<'a> {
    #[serde(rename = "authScheme")]
    auth_scheme: &'a str,
    val: Map<String, Value>,
}

#[derive(Serialize)]
struct Deprecated<'a> {
    labels: [&'a str; 0],
    uuid: &'a str,
}

impl<'a> ListItem<'a> {
    pub(super) fn of(account: &'a Account, auth_configs: &'a AuthConfigs) -> Self {
        let config = auth_configs.get_any(&account.auth_config_id);
        let config_disabled = config.is_some_and(|config| !config.enabled);
        let status = account.status();
        let disabled_with_config =
            (config_disabled && status == AccountStatus::Active).then_some(REASON_CONFIG_DISABLED);
        let val = state_val(account);
        Self {
            id: &account.id,
            word_id: &account.word_id,
            alias: account.alias.as_deref(),
            toolkit: Slug {
                slug: &account.toolkit,
            },
            auth_config: ConfigRef {
                id: &account.auth_config_id,
                auth_scheme: &account.auth_scheme,
                is_composio_managed: config.is_some_and(|config| config.managed),
                is_disabled: config_disabled,
                deprecated: Uuid {
                    uuid: config.map_or("", |config| &config.uuid),
                },
            },
            user_id: &account.user_id,
            status,
            status_reason: account.lifecycle.reason.or(disabled_with_config),
            is_disabled: status == AccountStatus::Inactive,
            data: val.clone(),
            state: State {
                auth_scheme: &account.auth_scheme,
                val,
            },
            created_at: iso(account.created_at),
            updated_at: iso(account.updated_at),
            experimental: experimental(account),
            test_request_endpoint: "",
            deprecated: Deprecated {
                labels: [],
                uuid: &account.uuid,
            },
        }
    }
}

/// As the retrieve call shows it.
#[derive(Serialize)]
pub(super) struct Detail<'a> {
    #[serde(flatten)]
    item: ListItem<'a>,
    params: &'a Map<String, Value>,
    /// Of redirect schemes alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_scopes: Option<&'a [String]>,
}

impl<'a> Detail<'a> {
    pub(super) fn of(account: &'a Account, auth_configs: &'a AuthConfigs, scopes: &'a [String]) -> Self {
        Self {
            item: ListItem::of(account, auth_configs),
            params: &account.initiation,
            requested_scopes: is_redirect_scheme(&account.auth_scheme).then_some(scopes),
        }
    }
}

/// The sharing of an account; the access list only where it has a meaning.
pub(super) fn experimental(account: &Account) -> Value {
    let mut view = json!({"account_type": account.kind});
    if account.kind == AccountType::Shared {
        view["acl_config_for_shared"] = account.acl.clone().unwrap_or_else(
            || json!({"allow_all_users": false, "allowed_user_ids": [], "not_allowed_user_ids": []}),
        );
    }
    view
}

/// `state.val`: what it holds depends on the status; secrets are masked.
fn state_val(account: &Account) -> Map<String, Value> {
    let mut val = account.initiation.clone();
    let lifecycle = &account.lifecycle;
    val.insert("status".to_owned(), json!(lifecycle.status));
    let redirect = is_redirect_scheme(&account.auth_scheme);
    match lifecycle.status {
        AccountStatus::Initiated => {
            // The provider's page without a usable state; the hosted link is shown only in the create response.
            let page = format!(
                "https://auth.{}.invalid/authorize?state=REDACTED",
                account.toolkit
            );
            val.insert("redirectUrl".to_owned(), json!(page));
            if let Some(callback) = &account.callback_url {
                val.insert("callback_url".to_owned(), json!(callback));
            }
        }
        AccountStatus::Active | AccountStatus::Inactive if redirect => {
            let tokens = json!({
                "access_token": "eyJh...", "refresh_token": "REDACTED", "token_type": "bearer", "expires_in": 86_400,
                "scope": "identity read",
            });
            val.extend(tokens.as_object().cloned().unwrap_or_default());
        }
        AccountStatus::Failed => {
            val.insert("error".to_owned(), json!(lifecycle.error));
            val.insert(
                "error_description".to_owned(),
                json!("The user declined the request."),
            );
        }
        AccountStatus::Expired => {
            val.insert("expired_at".to_owned(), json!(lifecycle.expired_at.map(iso)));
        }
        _ => {}
    }
    val.extend(
        account
            .credentials
            .iter()
            .map(|(name, value)| (name.clone(), masked(value))),
    );
    val
}

/// A value with every text in it masked.
pub(super) fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(ids::masked(text)),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), masked(value)))
            .collect(),
        other => other.clone(),
    }
}
