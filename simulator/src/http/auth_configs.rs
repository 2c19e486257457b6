//! `/auth_configs`.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, RawQuery, State},
};
use serde_json::{Map, Value, json};

use super::{
    ApiResult, Caller, accounts_view::masked, created, errors::ApiError, ok, paging::Page, payload::Payload,
    query::Query,
};
use crate::{
    clock::iso,
    core::Core,
    ids,
    state::{
        Project,
        accounts::Row,
        auth_configs::{AuthConfig, AuthConfigFilter, NewAuthConfig},
        lifecycle::{Event, REASON_REVOKED_BY_DELETE},
    },
};

/// Most auth configs on a page.
const MAX_PAGE: usize = 200;

/// Every scheme an own auth config may have.
const SCHEMES: [&str; 15] = [
    "OAUTH2",
    "OAUTH1",
    "API_KEY",
    "BASIC",
    "BILLCOM_AUTH",
    "BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT",
    "NO_AUTH",
    "BASIC_WITH_JWT",
    "CALCOM_AUTH",
    "SERVICE_ACCOUNT",
    "SAML",
    "DCR_OAUTH",
    "S2S_OAUTH2",
    "CIMD_OAUTH",
];

/// `GET /auth_configs`.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let page = Page::read(&mut query, core.assumptions.default_page_size, MAX_PAGE)
        .capped(core.assumptions.page_cap);
    let filter = AuthConfigFilter {
        toolkits: query
            .list("toolkit_slug")
            .iter()
            .map(|slug| slug.to_lowercase())
            .collect(),
        managed: query.boolean("is_composio_managed"),
        show_disabled: query.boolean("show_disabled").unwrap_or_default(),
        search: query.text("search"),
    };
    query.finish()?;
    ok(core.project(caller.project, |project, _| {
        let configs = project.auth_configs.list(&filter);
        let items: Vec<_> = page
            .of(&configs)
            .iter()
            .map(|config| view(&core, project, config))
            .collect();
        page.envelope(items, configs.len())
    }))
}

/// `GET /auth_configs/{id}`.
pub(super) async fn retrieve(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> ApiResult {
    core.project(caller.project, |project, _| {
        let config = project
            .auth_configs
            .get(&id)
            .ok_or_else(|| ApiError::auth_config_not_found(&id))?;
        ok(view(&core, project, config))
    })
}

/// `POST /auth_configs`. Not idempotent: each call makes another config.
pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> ApiResult {
    let mut payload = Payload::parse(&body, &["toolkit", "auth_config"], &core.assumptions)?;
    payload.required_object("toolkit");
    let slug = payload.required_string("toolkit.slug");
    let kind = payload.choice(
        "auth_config.type",
        &["use_composio_managed_auth", "use_custom_auth"],
    );
    let own = kind.as_deref() == Some("use_custom_auth");
    if own {
        payload.require("auth_config.authScheme");
    }
    let scheme = payload.choice("auth_config.authScheme", &SCHEMES);
    let name = payload.string("auth_config.name").filter(|name| !name.is_empty());
    let credentials = payload.object("auth_config.credentials").unwrap_or_default();
    let shared_credentials = payload
        .object("auth_config.shared_credentials")
        .unwrap_or_default();
    let proxy_config = payload.object("auth_config.proxy_config");
    let tool_access = payload
        .object("auth_config.tool_access_config")
        .unwrap_or_default();
    let for_tool_router = payload.boolean("auth_config.is_enabled_for_tool_router");
    payload.finish()?;

    let toolkit = core
        .catalogue
        .toolkit(&slug)
        .ok_or_else(|| ApiError::toolkit_not_found(&slug))?;
    if toolkit.no_auth() {
        return Err(ApiError::no_auth_toolkit(&toolkit.slug));
    }
    let auth_scheme = match scheme.filter(|_| own) {
        Some(scheme) => scheme,
        None => toolkit
            .composio_managed_auth_schemes
            .first()
            .cloned()
            .ok_or_else(|| ApiError::no_managed_credentials(&toolkit.slug))?,
    };
    core.project(caller.project, |project, now| {
        let new = NewAuthConfig {
            id: None,
            name,
            toolkit: toolkit.slug.clone(),
            auth_scheme,
            managed: !own,
            enabled: true,
            credentials,
        };
        let id = project.auth_configs.create(new, now).id.clone();
        project.auth_configs.update(&id, now, |config| {
            config.shared_credentials = shared_credentials;
            config.proxy_config = proxy_config.map(Value::Object);
            config.tool_access = Value::Object(tool_access);
            config.for_tool_router = for_tool_router.unwrap_or(true);
        });
        let config = project.auth_configs.get(&id).ok_or_else(ApiError::internal)?;
        created(json!({
            "toolkit": {"slug": config.toolkit},
            "auth_config": {
                "id": config.id,
                "auth_scheme": config.auth_scheme,
                "is_composio_managed": config.managed,
            },
        }))
    })
}

/// `PATCH /auth_configs/{id}`: what the body does not name stays.
pub(super) async fn update(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult {
    let known = [
        "type",
        "name",
        "credentials",
        "proxy_config",
        "shared_credentials",
        "tool_access_config",
        "is_enabled_for_tool_router",
        "scopes",
        "user_scopes",
        "restrict_to_following_tools",
    ];
    let mut payload = Payload::parse(&body, &known, &core.assumptions)?;
    payload.require("type");
    payload.choice("type", &["custom", "default"]);
    let name = payload.string("name");
    let mut credentials = payload.object("credentials").unwrap_or_default();
    let shared_credentials = payload.object("shared_credentials");
    let proxy_config = payload.object("proxy_config");
    let tool_access = payload.object("tool_access_config");
    let for_tool_router = payload.boolean("is_enabled_for_tool_router");
    payload.finish()?;
    for scopes in ["scopes", "user_scopes"] {
        if let Some(value) = payload.get(scopes) {
            credentials.insert(scopes.to_owned(), value.clone());
        }
    }
    core.project(caller.project, |project, now| {
        let found = project.auth_configs.update(&id, now, |config| {
            config.credentials.extend(credentials);
            if let Some(name) = name {
                config.name = name;
            }
            if let Some(shared) = shared_credentials {
                config.shared_credentials = shared;
            }
            if let Some(proxy) = proxy_config {
                config.proxy_config = Some(Value::Object(proxy));
            }
            if let Some(access) = tool_access {
                config.tool_access = Value::Object(access);
            }
            if let Some(enabled) = for_tool_router {
                config.for_tool_router = enabled;
            }
        });
        change_response(found, &id, "Auth config updated successfully")
    })
}

/// `PATCH /auth_configs/{id}/{status}`.
pub(super) async fn set_status(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path((id, status)): Path<(String, String)>,
) -> ApiResult {
    let enabled = match status.as_str() {
        "ENABLED" => true,
        "DISABLED" => false,
        other => {
            let what = super::unexpected_choice(&["ENABLED", "DISABLED"], other);
            return Err(ApiError::validation(vec![format!(
                "Error in params.status: {what}"
            )]));
        }
    };
    core.project(caller.project, |project, now| {
        let found = project
            .auth_configs
            .update(&id, now, |config| config.enabled = enabled);
        change_response(found, &id, "Auth config status updated successfully")
    })
}

/// `DELETE /auth_configs/{id}`: soft, and not to be undone. Its accounts stay; `revoke_on_delete` revokes them.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let revoke = query.boolean("revoke_on_delete").unwrap_or_default();
    query.finish()?;
    core.project(caller.project, |project, now| {
        if !project
            .auth_configs
            .update(&id, now, |config| config.deleted = true)
        {
            return Err(ApiError::auth_config_not_found(&id));
        }
        let mut response = json!({"success": true, "message": "Auth config deleted successfully"});
        if revoke {
            let accounts = &mut project.accounts;
            let rows: Vec<Row> = accounts
                .rows()
                .filter(|&row| accounts.get(row).auth_config_id == id)
                .collect();
            for row in rows {
                // Those that do not work have nothing to revoke.
                let _ = accounts.apply(
                    row,
                    &Event::Revoked {
                        reason: REASON_REVOKED_BY_DELETE,
                    },
                    now,
                );
            }
            response["revoke_job_id"] = json!(ids::uuid());
        }
        ok(response)
    })
}

fn change_response(found: bool, id: &str, message: &str) -> ApiResult {
    if found {
        ok(json!({"success": true, "message": message}))
    } else {
        Err(ApiError::auth_config_not_found(id))
    }
}

/// As lists and the retrieve call show it.
fn view(core: &Core, project: &Project, config: &AuthConfig) -> Value {
    let logo = core
        .catalogue
        .toolkit(&config.toolkit)
        .map(|toolkit| toolkit.logo())
        .unwrap_or_default();
    json!({
        "id": config.id,
        "uuid": config.uuid,
        "type": if config.managed { "default" } else { "custom" },
        "name": config.name,
        "status": if config.enabled { "ENABLED" } else { "DISABLED" },
        "toolkit": {"slug": config.toolkit, "logo": logo, "auth_guide_url": null, "auth_hint_url": null},
        "no_of_connections": project.accounts.active_of_config(&config.id),
        "tool_access_config": config.tool_access,
        "auth_scheme": config.auth_scheme,
        "is_composio_managed": config.managed,
        "credentials": masked_credentials(&config.credentials),
        "shared_credentials": masked_credentials(&config.shared_credentials),
        "proxy_config": config.proxy_config.as_ref().map(mask_proxy),
        "created_by": "simulator",
        "created_at": iso(config.created_at),
        "last_updated_at": iso(config.updated_at),
        "expected_input_fields": [],
        "restrict_to_following_tools": [],
        "is_enabled_for_tool_router": config.for_tool_router,
    })
}

/// Scopes and addresses are no secrets; everything else is masked.
fn masked_credentials(credentials: &Map<String, Value>) -> Map<String, Value> {
    let public = |name: &str| name.contains("scope") || name.contains("uri") || name == "client_id";
    credentials
        .iter()
        .map(|(name, value)| {
            (
                name.clone(),
                if public(name) {
                    value.clone()
                } else {
                    masked(value)
                },
            )
        })
        .collect()
}

fn mask_proxy(proxy: &Value) -> Value {
    let mut proxy = proxy.clone();
    if let Some(key) = proxy.get_mut("proxy_auth_key") {
        *key = masked(key);
    }
    proxy
}
