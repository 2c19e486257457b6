//! The control API under `/_sim`: clock, accounts, catalogue, faults and call log. It requires no key, so it belongs on
//! loopback.

mod toolkits;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use strum::EnumString;

use crate::{
    calls::Stats,
    clock::iso,
    config::SeedAuthConfig,
    core::Core,
    faults::{Rule, RuleState},
    provider::{ProviderMode, reddit::username_for},
    state::{
        Project,
        account::{Account, AccountType, Transition},
        accounts::Row,
        lifecycle::{AccountStatus, Event, REASON_REVOKED_BY_ADMIN, Refusal},
    },
};

/// Entries of the call log that are copied out in one go.
const LOG_BATCH: usize = 1_000;

/// An account as tests and the control API see it, deleted or not. It has no link: only the create response shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountSnapshot {
    /// `ca_...`.
    pub id: String,
    /// The project it belongs to.
    pub project: String,
    /// The user it was created for.
    pub user_id: String,
    /// The toolkit's slug.
    pub toolkit: String,
    /// The auth config it uses.
    pub auth_config_id: String,
    /// As the create call or a later update named it.
    pub alias: Option<String>,
    /// Whether it is shared.
    pub account_type: AccountType,
    /// Its status, also if it was deleted.
    pub status: AccountStatus,
    /// Why, where there is a reason.
    pub status_reason: Option<String>,
    /// Deleted by an API call. The API responds with 404 for it.
    pub deleted: bool,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Whether the tokens were revoked at the provider.
    pub revoked_upstream: bool,
    /// The person's name at the provider, from consent on.
    pub username: Option<String>,
    /// How the provider treats it.
    pub provider: ProviderMode,
    /// When its outstanding consent runs out.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Everything that happened to it, oldest first.
    pub history: Vec<Transition>,
}

impl AccountSnapshot {
    fn of(project: &Project, account: &Account) -> Self {
        Self {
            id: account.id.clone(),
            project: project.name.clone(),
            user_id: account.user_id.clone(),
            toolkit: account.toolkit.clone(),
            auth_config_id: account.auth_config_id.clone(),
            alias: account.alias.clone(),
            account_type: account.kind,
            status: account.status(),
            status_reason: account.lifecycle.reason.map(str::to_owned),
            deleted: account.is_deleted(),
            deleted_at: account.deleted_at,
            revoked_upstream: account.revoked_upstream,
            username: account.username.clone(),
            provider: account.provider.clone(),
            expires_at: account.lifecycle.deadline,
            created_at: account.created_at,
            updated_at: account.updated_at,
            history: account.history.clone(),
        }
    }
}

/// Something a person, the provider or an administrator does to an account.
#[derive(Clone, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum AccountAction {
    Open,
    Consent { username: Option<String> },
    Deny,
    Revoke,
    Expire,
    Disable,
}

/// Why an account was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeedError {
    /// No account has that id, or it was deleted.
    #[error("there is no account {0}")]
    NoAccount(String),
    /// Its status does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Core {
    /// Every account of every project, oldest first within a project.
    pub(crate) fn snapshots(&self) -> Vec<AccountSnapshot> {
        let mut all = Vec::new();
        self.find_project(|project, _| {
            let accounts = project.accounts.rows().map(|row| project.accounts.get(row));
            all.extend(accounts.map(|account| AccountSnapshot::of(project, account)));
            None::<()>
        });
        all
    }

    /// One account, deleted or not.
    pub(crate) fn snapshot(&self, id: &str) -> Option<AccountSnapshot> {
        self.account(id, |project, row, _| {
            AccountSnapshot::of(project, project.accounts.get(row))
        })
    }

    /// Carries out the action and returns the account afterwards.
    pub(crate) fn act(&self, id: &str, action: AccountAction) -> Result<AccountSnapshot, DeedError> {
        let done = self.account(id, |project, row, now| {
            if project.accounts.get(row).is_deleted() {
                return Err(DeedError::NoAccount(id.to_owned()));
            }
            apply(project, row, action, now)?;
            Ok(AccountSnapshot::of(project, project.accounts.get(row)))
        });
        done.unwrap_or_else(|| Err(DeedError::NoAccount(id.to_owned())))
    }

    /// Sets how the provider treats an account.
    pub(crate) fn set_provider(&self, id: &str, mode: ProviderMode) -> Result<AccountSnapshot, DeedError> {
        let done = self.account(id, |project, row, _| {
            project.accounts.set_provider(row, mode);
            AccountSnapshot::of(project, project.accounts.get(row))
        });
        done.ok_or_else(|| DeedError::NoAccount(id.to_owned()))
    }
}

fn apply(project: &mut Project, row: Row, action: AccountAction, now: Timestamp) -> Result<(), Refusal> {
    let accounts = &mut project.accounts;
    let event = match action {
        AccountAction::Consent { username } => {
            let username = username.unwrap_or_else(|| username_for(&accounts.get(row).user_id));
            return accounts.consent(row, username, Map::new(), now);
        }
        AccountAction::Open => Event::Opened,
        AccountAction::Deny => Event::Denied,
        AccountAction::Revoke => Event::Revoked {
            reason: REASON_REVOKED_BY_ADMIN,
        },
        AccountAction::Disable => Event::Disabled,
        AccountAction::Expire if accounts.get(row).status().is_pending() => Event::LinkExpired,
        AccountAction::Expire => Event::RefreshFailed,
    };
    accounts.apply(row, &event, now)
}

pub(crate) fn router() -> Router<Arc<Core>> {
    Router::new()
        .route("/log", get(log).delete(clear_log))
        .route("/stats", get(stats))
        .route("/accounts", get(accounts))
        .route("/accounts/{id}", get(account))
        .route("/accounts/{id}/provider", post(set_provider))
        .route("/accounts/{id}/{action}", post(act))
        .route("/auth-configs", post(seed))
        .route("/toolkits", post(toolkits::add))
        .route("/toolkits/{slug}", delete(toolkits::remove))
        .route("/toolkits/{slug}/release", post(toolkits::release))
        .route("/toolkits/{slug}/touch", post(toolkits::touch))
        .route("/clock", get(clock))
        .route("/clock/advance", post(advance))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/faults/{id}/release", post(release))
        .fallback(async || failure(StatusCode::NOT_FOUND, "there is no such route"))
}

fn failure(status: StatusCode, message: impl std::fmt::Display) -> Response {
    (status, Json(json!({"error": message.to_string()}))).into_response()
}

/// The body as `T`; an empty one counts as `{}`.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    let body = if body.is_empty() { b"{}" } else { body.as_ref() };
    serde_json::from_slice(body).map_err(|error| Box::new(failure(StatusCode::BAD_REQUEST, error)))
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    after: u64,
}

/// The calls as JSON Lines, in batches, so that a long log neither blocks the simulator nor fills memory.
async fn log(State(core): State<Arc<Core>>, Query(LogQuery { after }): Query<LogQuery>) -> Response {
    let last = *core.calls.subscribe().borrow();
    let dropped = core.calls.stats().dropped;
    let lines = futures::stream::unfold((core, after), move |(core, after)| async move {
        // Later calls belong to the next request, or this response might never end.
        let batch: Vec<_> = core
            .calls
            .after(after, LOG_BATCH)
            .into_iter()
            .take_while(|call| call.seq <= last)
            .collect();
        let next = batch.last()?.seq;
        let mut lines = Vec::new();
        for call in batch {
            if let Err(error) = serde_json::to_writer(&mut lines, &*call) {
                return Some((Err(std::io::Error::from(error)), (core, next)));
            }
            lines.push(b'\n');
        }
        Some((Ok(lines), (core, next)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (HeaderName::from_static("x-sim-last-seq"), last.to_string()),
        (HeaderName::from_static("x-sim-dropped"), dropped.to_string()),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

async fn clear_log(State(core): State<Arc<Core>>) -> StatusCode {
    core.calls.clear();
    StatusCode::NO_CONTENT
}

async fn stats(State(core): State<Arc<Core>>) -> Json<Stats> {
    Json(core.calls.stats())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountsQuery {
    user_id: Option<String>,
}

async fn accounts(State(core): State<Arc<Core>>, Query(query): Query<AccountsQuery>) -> Json<Value> {
    let mut items = core.snapshots();
    items.retain(|account| query.user_id.as_ref().is_none_or(|user| *user == account.user_id));
    Json(json!({"items": items}))
}

async fn account(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    account_response(core.snapshot(&id).ok_or(DeedError::NoAccount(id)))
}

fn account_response(done: Result<AccountSnapshot, DeedError>) -> Response {
    match done {
        Ok(account) => Json(account).into_response(),
        Err(error @ DeedError::NoAccount(_)) => failure(StatusCode::NOT_FOUND, error),
        Err(error @ DeedError::Refused(_)) => failure(StatusCode::CONFLICT, error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentBody {
    username: Option<String>,
}

async fn act(
    State(core): State<Arc<Core>>,
    Path((id, action)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let Ok(mut action) = action.parse() else {
        let message = format!("no person or provider can do `{action}` to an account");
        return failure(StatusCode::NOT_FOUND, message);
    };
    if let AccountAction::Consent { username } = &mut action {
        match read::<ConsentBody>(&body) {
            Ok(body) => *username = body.username,
            Err(response) => return *response,
        }
    }
    account_response(core.act(&id, action))
}

async fn set_provider(State(core): State<Arc<Core>>, Path(id): Path<String>, body: Bytes) -> Response {
    match read::<ProviderMode>(&body) {
        Ok(mode) => account_response(core.set_provider(&id, mode)),
        Err(response) => *response,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeedBody {
    toolkit: String,
    id: Option<String>,
    name: Option<String>,
    auth_scheme: Option<String>,
    #[serde(default = "yes")]
    managed: bool,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

async fn seed(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let seed = match read::<SeedBody>(&body) {
        Ok(body) => SeedAuthConfig {
            id: body.id,
            name: body.name,
            toolkit: body.toolkit,
            auth_scheme: body.auth_scheme,
            managed: body.managed,
            enabled: body.enabled,
        },
        Err(response) => return *response,
    };
    match core.seed(&seed) {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => failure(StatusCode::BAD_REQUEST, error),
    }
}

async fn clock(State(core): State<Arc<Core>>) -> Json<Value> {
    Json(json!({
        "now": iso(core.clock.now()),
        "offsetSeconds": core.clock.offset().as_secs_f64(),
        "manual": core.clock.is_manual(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvanceBody {
    seconds: f64,
}

async fn advance(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let seconds = match read::<AdvanceBody>(&body) {
        Ok(AdvanceBody { seconds }) => seconds,
        Err(response) => return *response,
    };
    let Ok(by) = Duration::try_from_secs_f64(seconds) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "`seconds` must be a number from 0; time does not run backwards",
        );
    };
    core.clock.advance(by);
    clock(State(core)).await.into_response()
}

/// The body of the fault list and of an injection.
#[derive(Deserialize, Serialize)]
struct Rules<T> {
    rules: Vec<T>,
}

async fn faults(State(core): State<Arc<Core>>) -> Json<Rules<RuleState>> {
    Json(Rules {
        rules: core.faults.list(),
    })
}

async fn inject(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    match read::<Rules<Rule>>(&body) {
        Ok(Rules { rules }) => {
            let ids: Vec<_> = rules.into_iter().map(|rule| core.faults.inject(rule)).collect();
            (StatusCode::CREATED, Json(json!({"ids": ids}))).into_response()
        }
        Err(response) => *response,
    }
}

async fn clear_faults(State(core): State<Arc<Core>>) -> StatusCode {
    core.faults.clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    rule_response(core.faults.remove(&id), &id)
}

async fn release(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    rule_response(core.faults.release(&id), &id)
}

fn rule_response(found: bool, id: &str) -> Response {
    if found {
        StatusCode::NO_CONTENT.into_response()
    } else {
        failure(StatusCode::NOT_FOUND, format!("there is no rule {id}"))
    }
}
