//! Ways to a connected account: the hosted link, the legacy create call, and the calls that go on with a flow.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, RawQuery, State},
};
use serde_json::{Map, Value, json};

use super::{
    ApiResult, Caller,
    accounts::{Sharing, sharing},
    accounts_view::{experimental, is_redirect_scheme},
    created,
    errors::ApiError,
    ok,
    payload::Payload,
    query::Query,
};
use crate::{
    clock::iso,
    core::Core,
    state::{Project, account::NewAccount, accounts::Row, auth_configs::AuthConfig},
};

/// `POST /connected_accounts/link`: a new account and the page where a person completes it.
pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> ApiResult {
    let known = [
        "auth_config_id",
        "user_id",
        "alias",
        "callback_url",
        "connection_data",
        "experimental",
    ];
    let mut payload = Payload::parse(&body, &known, &core.assumptions)?;
    let auth_config_id = payload.required_string("auth_config_id");
    let mut new = NewAccount {
        user_id: payload.required_string("user_id"),
        alias: payload.string("alias"),
        callback_url: payload.web_address("callback_url"),
        initiation: payload.object("connection_data").unwrap_or_default(),
        ..NewAccount::default()
    };
    let sharing = sharing(&mut payload)?;
    payload.finish()?;
    let shared = sharing.is_some();
    set_sharing(&mut new, sharing);
    core.project(caller.project, |project, now| {
        usable_config(project, &auth_config_id)?.clone_into_account(&mut new);
        let row = insert(&core, project, new, now)?;
        let account = project.accounts.get(row);
        // A new account without credentials always has a link and a deadline.
        let (Some(token), Some(deadline)) = (&account.link_token, account.lifecycle.deadline) else {
            return Err(ApiError::internal());
        };
        let mut response = json!({
            "connected_account_id": account.id,
            "link_token": token,
            "redirect_url": core.link_url(token),
            "expires_at": iso(deadline),
        });
        if shared {
            response["experimental"] = experimental(account);
        }
        created(response)
    })
}

/// `POST /connected_accounts`: retired for managed OAuth, but still used to create accounts with a secret.
pub(super) async fn create_legacy(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> ApiResult {
    let mut payload = Payload::parse(
        &body,
        &["auth_config", "connection", "validate_credentials"],
        &core.assumptions,
    )?;
    payload.required_object("auth_config");
    payload.required_object("connection");
    let auth_config_id = payload.required_string("auth_config.id");
    let mut new = NewAccount {
        user_id: payload
            .string("connection.user_id")
            .unwrap_or_else(|| "default".to_owned()),
        alias: payload.string("connection.alias"),
        callback_url: payload.web_address("connection.callback_url"),
        ..NewAccount::default()
    };
    let scheme = payload.string("connection.state.authScheme");
    let val = payload.object("connection.state.val");
    let sharing = sharing(&mut payload)?;
    payload.finish()?;
    set_sharing(&mut new, sharing);
    core.project(caller.project, |project, now| {
        let config = usable_config(project, &auth_config_id)?;
        if config.managed && is_redirect_scheme(&config.auth_scheme) {
            return Err(ApiError::legacy_create_retired());
        }
        if let Some(scheme) = scheme.filter(|scheme| *scheme != config.auth_scheme) {
            let expected = &config.auth_scheme;
            let message = format!("Auth scheme {scheme} does not match the auth config's {expected}");
            return Err(ApiError::account_bad_request(message));
        }
        config.clone_into_account(&mut new);
        if is_redirect_scheme(&new.auth_scheme) {
            new.initiation = without_status(val.unwrap_or_default());
        } else {
            let credentials = without_status(val.unwrap_or_default());
            if credentials.is_empty() {
                return Err(ApiError::missing_account_fields("connection.state.val"));
            }
            new.credentials = Some(credentials);
        }
        let row = insert(&core, project, new, now)?;
        let account = project.accounts.get(row);
        let redirect = account.link_token.as_ref().map(|token| core.link_url(token));
        let mut val = json!({"status": account.status()});
        if let Some(redirect) = &redirect {
            val["redirectUrl"] = json!(redirect);
        }
        let config_uuid = project
            .auth_configs
            .get_any(&account.auth_config_id)
            .map(|config| &config.uuid);
        created(json!({
            "id": account.id,
            "connectionData": {"authScheme": account.auth_scheme, "val": val},
            "status": account.status(),
            "redirect_url": redirect,
            "redirect_uri": redirect,
            "deprecated": {"uuid": account.uuid, "authConfigUuid": config_uuid},
        }))
    })
}

/// `POST /connected_accounts/{id}/refresh`: deprecated, because it sets even a working account back to INITIATED.
pub(super) async fn refresh(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    body: Bytes,
) -> ApiResult {
    let mut payload = Payload::parse(
        &body,
        &["redirect_url", "validate_credentials"],
        &core.assumptions,
    )?;
    let callback = Query::parse(raw.as_deref())
        .text("redirect_url")
        .or_else(|| payload.web_address("redirect_url"));
    payload.finish()?;
    core.project(caller.project, |project, now| {
        let row = project
            .accounts
            .find(&id)
            .ok_or_else(|| ApiError::account_not_found(&id))?;
        let redirect = if is_redirect_scheme(&project.accounts.get(row).auth_scheme) {
            let token = project
                .accounts
                .restart(row, callback, now)
                .map_err(|refusal| ApiError::wrong_state(&refusal))?;
            Some(core.link_url(&token))
        } else {
            None
        };
        let status = project.accounts.get(row).status();
        ok(json!({"id": id, "status": status, "redirect_url": redirect}))
    })
}

/// `POST /connected_accounts/complete_auth`, on v3.1 alone. Sessions to redeem exist only in projects with a verifier
/// URL, which the simulator does not have, so every well-formed call asks for an unknown one.
pub(super) async fn complete_auth(State(core): State<Arc<Core>>, body: Bytes) -> ApiResult {
    let mut payload = Payload::parse(&body, &["session_uri", "user_id"], &core.assumptions)?;
    payload.required_string("session_uri");
    payload.required_string("user_id");
    payload.finish()?;
    Err(ApiError::not_found("Auth session not found or expired"))
}

impl AuthConfig {
    fn clone_into_account(&self, new: &mut NewAccount) {
        new.toolkit.clone_from(&self.toolkit);
        new.auth_config_id.clone_from(&self.id);
        new.auth_scheme.clone_from(&self.auth_scheme);
    }
}

/// The auth config, if new connections may use it.
fn usable_config<'a>(project: &'a Project, id: &str) -> Result<&'a AuthConfig, ApiError> {
    let config = project
        .auth_configs
        .get(id)
        .ok_or_else(|| ApiError::auth_config_not_found(id))?;
    if config.enabled {
        Ok(config)
    } else {
        Err(ApiError::bad_request(format!("Auth config \"{id}\" is disabled")))
    }
}

fn insert(
    core: &Core,
    project: &mut Project,
    new: NewAccount,
    now: jiff::Timestamp,
) -> Result<Row, ApiError> {
    let held = core.assumptions.dead_rows_hold_alias;
    project
        .accounts
        .create(new, held, now)
        .map_err(|taken| ApiError::alias_taken(&taken.0))
}

fn set_sharing(new: &mut NewAccount, sharing: Option<Sharing>) {
    if let Some(sharing) = sharing {
        new.account_type = sharing.account_type;
        new.acl = sharing.acl;
    }
}

fn without_status(mut val: Map<String, Value>) -> Map<String, Value> {
    val.remove("status");
    val
}
