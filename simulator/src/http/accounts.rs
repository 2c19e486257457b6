//! `/connected_accounts`: reading, switching, naming, revoking and deleting.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, RawQuery, State},
};
use serde_json::{Map, Value, json};
use strum::VariantNames as _;

use super::{
    ApiResult, Caller,
    accounts_view::{Detail, ListItem, is_redirect_scheme},
    errors::ApiError,
    ok,
    paging::Page,
    payload::Payload,
    query::Query,
};
use crate::{
    core::Core,
    ids,
    state::{
        Project,
        account::AccountType,
        accounts::Row,
        lifecycle::{AccountStatus, Event, REASON_REVOKED_BY_CALL},
        query::{AccountFilter, OrderBy},
    },
};

/// Schemes whose credentials the update call may replace.
const EDITABLE_SCHEMES: [&str; 6] = [
    "BEARER_TOKEN",
    "API_KEY",
    "BASIC",
    "BASIC_WITH_JWT",
    "GOOGLE_SERVICE_ACCOUNT",
    "SERVICE_ACCOUNT",
];

/// Most entries of an access list.
const LONGEST_ACL: usize = 1_000;

/// `GET /connected_accounts`.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let page = Page::read(
        &mut query,
        core.assumptions.default_page_size,
        core.assumptions.max_account_page,
    )
    .capped(core.assumptions.page_cap);
    let statuses = query.choices("statuses", AccountStatus::VARIANTS);
    let order_by = query.choice("order_by", OrderBy::VARIANTS);
    let direction = query.choice("order_direction", &["asc", "desc"]);
    let account_type = query.choice("account_type", &["PRIVATE", "SHARED", "ALL"]);
    let filter = AccountFilter {
        ids: query.list("connected_account_ids"),
        user_ids: query.list("user_ids"),
        toolkits: query
            .list("toolkit_slugs")
            .iter()
            .map(|slug| slug.to_lowercase())
            .collect(),
        auth_config_ids: query.list("auth_config_ids"),
        statuses: statuses.iter().filter_map(|status| status.parse().ok()).collect(),
        account_type: match account_type.as_deref() {
            Some("ALL") => None,
            Some("SHARED") => Some(AccountType::Shared),
            _ => Some(AccountType::Private),
        },
        order_by: order_by.and_then(|name| name.parse().ok()).unwrap_or_default(),
        ascending: direction.as_deref() == Some("asc"),
    };
    query.finish()?;
    core.project(caller.project, |project, _| {
        let rows = filter.select(&project.accounts);
        let shown = page.of(&rows).iter().map(|&row| project.accounts.get(row));
        let items = shown
            .map(|account| ListItem::of(account, &project.auth_configs))
            .collect();
        ok(page.envelope(items, rows.len()))
    })
}

/// `GET /connected_accounts/{id}`.
pub(super) async fn retrieve(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> ApiResult {
    core.project(caller.project, |project, _| {
        let account = project.accounts.get(find(project, &id)?);
        let toolkit = core.catalogue.toolkit(&account.toolkit);
        let scopes = toolkit
            .as_ref()
            .map_or(&[][..], |toolkit| &toolkit.available_scopes);
        ok(Detail::of(account, &project.auth_configs, scopes))
    })
}

/// `DELETE /connected_accounts/{id}`.
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
        let row = find(project, &id)?;
        project.accounts.delete(row, revoke, now);
        let mut response = json!({"success": true});
        if revoke {
            response["revoke_job_id"] = json!(ids::uuid());
        }
        ok(response)
    })
}

/// `PATCH /connected_accounts/{id}/status`.
pub(super) async fn set_status(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult {
    let mut payload = Payload::parse(&body, &["enabled"], &core.assumptions)?;
    let enabled = payload.required_boolean("enabled");
    payload.finish()?;
    let event = if enabled {
        Event::Enabled {
            revive: core.assumptions.enable_revives_dead,
        }
    } else {
        Event::Disabled
    };
    core.project(caller.project, |project, now| {
        let row = find(project, &id)?;
        project
            .accounts
            .apply(row, &event, now)
            .map_err(|refusal| ApiError::wrong_state(&refusal))?;
        ok(json!({"success": true}))
    })
}

/// `POST /connected_accounts/{id}/revoke`, on v3.1 alone.
pub(super) async fn revoke(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> ApiResult {
    core.project(caller.project, |project, now| {
        let row = find(project, &id)?;
        let before = project.accounts.get(row);
        if !is_redirect_scheme(&before.auth_scheme) {
            let message = format!("Toolkit {} does not support revoking credentials", before.toolkit);
            return Err(ApiError::account_bad_request(message));
        }
        let already_revoked = before.status() == AccountStatus::Revoked;
        let event = Event::Revoked {
            reason: REASON_REVOKED_BY_CALL,
        };
        project
            .accounts
            .apply(row, &event, now)
            .map_err(|refusal| ApiError::conflict(&refusal))?;
        let revoked: &[&str] = if already_revoked {
            &[]
        } else {
            &["access_token", "refresh_token"]
        };
        ok(json!({
            "revoked_tokens": revoked,
            "connected_account": {"id": id, "status": AccountStatus::Revoked},
        }))
    })
}

/// `PATCH /connected_accounts/{id}`: alias, credentials, sharing.
pub(super) async fn update(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult {
    let mut payload = Payload::parse(&body, &["alias", "connection", "experimental"], &core.assumptions)?;
    let alias = payload.string("alias");
    let credentials = credentials(&mut payload);
    let sharing = sharing(&mut payload)?;
    payload.finish()?;
    core.project(caller.project, |project, now| {
        let row = find(project, &id)?;
        let scheme = &project.accounts.get(row).auth_scheme;
        if credentials.is_some() && !EDITABLE_SCHEMES.contains(&scheme.as_str()) {
            let message = format!("Credentials of {scheme} connections cannot be updated");
            return Err(ApiError::account_bad_request(message));
        }
        if let Some(alias) = alias {
            let alias = Some(alias).filter(|alias| !alias.is_empty());
            let held = core.assumptions.dead_rows_hold_alias;
            project
                .accounts
                .set_alias(row, alias, held, now)
                .map_err(|taken| ApiError::alias_taken(&taken.0))?;
        }
        if let Some(credentials) = credentials {
            project.accounts.set_credentials(row, credentials, now);
        }
        if let Some(sharing) = sharing {
            project
                .accounts
                .set_sharing(row, sharing.account_type, sharing.acl, now);
        }
        let status = project.accounts.get(row).status();
        ok(json!({"id": id, "status": status, "success": true}))
    })
}

fn find(project: &Project, id: &str) -> Result<Row, ApiError> {
    project
        .accounts
        .find(id)
        .ok_or_else(|| ApiError::account_not_found(id))
}

/// `connection.state.val`, if a state is given at all.
fn credentials(payload: &mut Payload) -> Option<Map<String, Value>> {
    payload.object("connection.state")?;
    payload.require("connection.state.authScheme");
    payload.string("connection.state.authScheme");
    let mut val = payload.required_object("connection.state.val");
    val.remove("status");
    Some(val)
}

/// The sharing of an account in a create or update request.
pub(super) struct Sharing {
    pub(super) account_type: AccountType,
    pub(super) acl: Option<Value>,
}

/// Reads `experimental`; `None` if it has no account type.
pub(super) fn sharing(payload: &mut Payload) -> Result<Option<Sharing>, ApiError> {
    let account_type = payload.choice("experimental.account_type", AccountType::VARIANTS);
    let account_type: Option<AccountType> = account_type.and_then(|name| name.parse().ok());
    let acl = payload.object("experimental.acl_config_for_shared");
    let everyone = payload.boolean("experimental.acl_config_for_shared.allow_all_users");
    let mut lists = Vec::new();
    for list in ["allowed_user_ids", "not_allowed_user_ids"] {
        let path = format!("experimental.acl_config_for_shared.{list}");
        let users = payload.strings(&path).unwrap_or_default();
        if users.len() > LONGEST_ACL {
            payload.fail(
                &path,
                &format!("Array must contain at most {LONGEST_ACL} element(s)"),
            );
        }
        lists.push((list, users));
    }
    let shared = account_type == Some(AccountType::Shared);
    if acl.is_some() && !shared {
        return Err(ApiError::account_bad_request(
            "acl_config_for_shared is only valid on SHARED connections",
        ));
    }
    let Some(account_type) = account_type else {
        return Ok(None);
    };
    let mut rendered = Map::new();
    rendered.insert("allow_all_users".to_owned(), json!(everyone.unwrap_or_default()));
    rendered.extend(
        lists
            .into_iter()
            .map(|(list, users)| (list.to_owned(), json!(users))),
    );
    Ok(Some(Sharing {
        account_type,
        acl: shared.then_some(Value::Object(rendered)),
    }))
}
