//! `/tools`: schemas, execution and the proxy.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::IntoResponse as _,
};
use serde_json::{Map, Value, json};

use super::{
    ApiResult, ApiVersion, Caller, errors::ApiError, ok, paging::Page, payload::Payload, query::Query,
};
use crate::{
    catalogue::{INITIAL_VERSION, Tool, Toolkit, Version},
    config::{Access, Area},
    core::Core,
    ids,
    provider::{Actor, Execution, Outcome, ProviderMode, reddit},
    state::{Project, account::Account, lifecycle::AccountStatus},
};

/// Most tools on a page.
const MAX_PAGE: usize = 1_000;

/// Which version of each toolkit's tools is wanted.
struct Versions {
    by_toolkit: Vec<(String, String)>,
    otherwise: String,
}

impl Versions {
    fn read(query: &Query, api: ApiVersion) -> Self {
        Self {
            by_toolkit: query.map("toolkit_versions"),
            otherwise: query
                .text("toolkit_versions")
                .unwrap_or_else(|| default_version(api).to_owned()),
        }
    }

    fn of<'a>(&self, toolkit: &'a Toolkit) -> Option<&'a Version> {
        let pinned = self
            .by_toolkit
            .iter()
            .find(|(slug, _)| slug.eq_ignore_ascii_case(&toolkit.slug));
        toolkit.resolve(pinned.map_or(&self.otherwise, |(_, version)| version))
    }
}

/// The version of a tool where the call names none: v3 and v3.1 differ in this.
const fn default_version(api: ApiVersion) -> &'static str {
    match api {
        ApiVersion::V3 => INITIAL_VERSION,
        ApiVersion::V31 => "latest",
    }
}

/// `GET /tools`.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let page = Page::read(&mut query, core.assumptions.default_page_size, MAX_PAGE)
        .capped(core.assumptions.page_cap);
    let versions = Versions::read(&query, caller.version);
    let slugs = query.list("tool_slugs");
    let wanted = query.list("toolkit_slug");
    let (tags, scopes) = (query.list("tags"), query.list("scopes"));
    let words: Vec<_> = query
        .text("query")
        .or_else(|| query.text("search"))
        .map(|text| {
            text.to_lowercase()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let important = query.boolean("important").unwrap_or_default();
    let include_deprecated = query.boolean("include_deprecated").unwrap_or(true);
    query.finish()?;
    let admits = |tool: &Tool| {
        if !slugs.is_empty() {
            return slugs.contains(&tool.slug);
        }
        let found = || {
            let text = format!("{} {} {}", tool.slug, tool.name, tool.description()).to_lowercase();
            words.iter().all(|word| text.contains(word))
        };
        (tags.is_empty() || tags.iter().any(|tag| tool.tags.contains(tag)))
            && (scopes.is_empty() || scopes.iter().any(|scope| tool.scopes.contains(scope)))
            && (!important || tool.tags.iter().any(|tag| tag == "important"))
            && (include_deprecated || !tool.deprecated)
            && (words.is_empty() || found())
    };
    let mut toolkits = core.catalogue.toolkits();
    toolkits.retain(|toolkit| {
        !slugs.is_empty()
            || wanted.is_empty()
            || wanted.iter().any(|slug| slug.eq_ignore_ascii_case(&toolkit.slug))
    });
    toolkits.sort_unstable_by(|a, b| a.slug.cmp(&b.slug));
    let tools: Vec<_> = toolkits
        .iter()
        .filter_map(|toolkit| Some((toolkit, versions.of(toolkit)?)))
        .flat_map(|(toolkit, version)| version.tools().iter().map(move |tool| (toolkit, version, tool)))
        .filter(|(_, _, tool)| admits(tool))
        .collect();
    let items: Vec<_> = page
        .of(&tools)
        .iter()
        .map(|(toolkit, version, tool)| tool.render(toolkit, version))
        .collect();
    ok(page.envelope(items, tools.len()))
}

/// `GET /tools/enum`: every slug; a list on v3.1, one comma-joined string on v3.
pub(super) async fn slugs(State(core): State<Arc<Core>>, Extension(caller): Extension<Caller>) -> ApiResult {
    let toolkits = core.catalogue.toolkits();
    let tools = toolkits.iter().flat_map(|toolkit| toolkit.latest().tools());
    let mut slugs: Vec<_> = tools.map(|tool| tool.slug.as_str()).collect();
    slugs.sort_unstable();
    ok(match caller.version {
        ApiVersion::V3 => json!(slugs.join(",")),
        ApiVersion::V31 => json!(slugs),
    })
}

/// `GET /tools/{slug}`.
pub(super) async fn retrieve(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let query = Query::parse(raw.as_deref());
    let not_found = || ApiError::tool_not_found(&slug);
    let toolkit = core.catalogue.toolkit_of_tool(&slug).ok_or_else(not_found)?;
    let version = match query.text("version") {
        Some(version) => toolkit.resolve(&version),
        None => Versions::read(&query, caller.version).of(&toolkit),
    };
    let version = version.ok_or_else(not_found)?;
    let tool = version.tool(&slug).ok_or_else(not_found)?;
    ok(tool.render(&toolkit, version))
}

/// `POST /tools/execute/{slug}`.
pub(super) async fn execute(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    Path(slug): Path<String>,
    body: Bytes,
) -> ApiResult {
    let known = [
        "connected_account_id",
        "user_id",
        "arguments",
        "text",
        "version",
        "custom_auth_params",
        "custom_connection_data",
        "entity_id",
        "allow_tracing",
    ];
    let mut payload = Payload::parse(&body, &known, &core.assumptions)?;
    let toolkit = core.catalogue.toolkit_of_tool(&slug);
    let toolkit = toolkit.ok_or_else(|| ApiError::tool_not_found(&slug))?;
    let account_id = payload.string("connected_account_id");
    let user_id = payload.string("user_id").or_else(|| payload.string("entity_id"));
    let arguments = payload.object("arguments");
    let text = payload.string("text");
    let wanted = payload
        .string("version")
        .unwrap_or_else(|| default_version(caller.version).to_owned());
    if arguments.is_some() == text.is_some() {
        let what = if text.is_some() {
            "Only one of 'text' or 'arguments' must be provided"
        } else {
            "One of 'text' or 'arguments' must be provided"
        };
        payload.fail("text.arguments", what);
    }
    payload.finish()?;
    let Some(arguments) = arguments else {
        return Err(ApiError::not_implemented(
            "The simulator does not turn text into arguments",
        ));
    };
    let version = toolkit.resolve(&wanted);
    let version = version.ok_or_else(|| ApiError::tool_not_found(&slug))?;
    let tool = version
        .tool(&slug)
        .ok_or_else(|| ApiError::tool_removed(&slug, &version.name))?;

    let (actor, other_user_exists, now) = core.project(caller.project, |project, now| {
        let asked = ["username", "user"]
            .iter()
            .find_map(|name| arguments.get(*name)?.as_str());
        let exists = asked.is_some_and(|name| user_exists(project, name));
        let actor = if toolkit.no_auth() {
            None
        } else {
            Some(actor(
                &core,
                project,
                &toolkit,
                account_id.as_deref(),
                user_id.as_deref(),
            )?)
        };
        Ok::<_, ApiError>((actor, exists, now))
    })?;
    wait_for_provider(actor.as_ref()).await;
    let outcome = Execution {
        toolkit: &toolkit,
        tool,
        version: &version.name,
        arguments: &arguments,
        actor,
        other_user_exists,
        now,
    }
    .run();
    execution_response(&slug, outcome)
}

fn execution_response(slug: &str, outcome: Outcome) -> ApiResult {
    let (data, error) = match outcome {
        Outcome::Done(data) => (data, None),
        Outcome::Failed { error, data } => (data, Some(error)),
        Outcome::NotSimulated => {
            return Err(ApiError::not_implemented(format!(
                "The simulator does not implement {slug}"
            )));
        }
    };
    ok(json!({
        "data": data,
        "successful": error.is_none(),
        "error": error,
        "log_id": ids::execution_log(),
        "session_info": null,
    }))
}

/// Who a tool acts for, or the refusal the documented matrix gives.
fn actor(
    core: &Core,
    project: &Project,
    toolkit: &Toolkit,
    account_id: Option<&str>,
    user_id: Option<&str>,
) -> Result<Actor, ApiError> {
    let user_id = user_id
        .filter(|id| !id.is_empty())
        .ok_or_else(ApiError::user_id_required)?;
    let none = || {
        let status =
            StatusCode::from_u16(core.assumptions.no_account_status).unwrap_or(StatusCode::NOT_FOUND);
        ApiError::no_account_for_tool(status, user_id, &toolkit.slug)
    };
    let accounts = &project.accounts;
    let account = match account_id {
        Some(id) => {
            let account = accounts.get(accounts.find(id).ok_or_else(none)?);
            if account.user_id != user_id {
                return Err(ApiError::user_id_mismatch());
            }
            if account.toolkit != toolkit.slug {
                return Err(none());
            }
            account
        }
        // The newest one, where a user has several.
        None => accounts
            .of_user(user_id)
            .rev()
            .map(|row| accounts.get(row))
            .find(|account| {
                !account.is_deleted()
                    && account.toolkit == toolkit.slug
                    && account.status() == AccountStatus::Active
            })
            .ok_or_else(none)?,
    };
    usable(core, account, none)?;
    Ok(actor_of(account))
}

fn usable(core: &Core, account: &Account, none: impl Fn() -> ApiError) -> Result<(), ApiError> {
    match account.status() {
        AccountStatus::Active => Ok(()),
        AccountStatus::Expired => Err(ApiError::account_expired(&account.id)),
        status if status.is_pending() || core.assumptions.dead_execute_unprocessable => {
            Err(ApiError::account_unusable(&account.id, status))
        }
        _ => Err(none()),
    }
}

fn actor_of(account: &Account) -> Actor {
    Actor {
        // Accounts created with a secret have no username.
        username: account
            .username
            .clone()
            .unwrap_or_else(|| reddit::username_for(&account.user_id)),
        mode: account.provider.clone(),
    }
}

/// Whether some account of the project has that username at the provider.
fn user_exists(project: &Project, name: &str) -> bool {
    let accounts = &project.accounts;
    accounts.rows().any(|row| {
        accounts
            .get(row)
            .username
            .as_deref()
            .is_some_and(|known| known.eq_ignore_ascii_case(name))
    })
}

async fn wait_for_provider(actor: Option<&Actor>) {
    if let Some(ProviderMode::Slow { millis }) = actor.map(|actor| &actor.mode) {
        tokio::time::sleep(Duration::from_millis(*millis)).await;
    }
}

/// `POST /tools/execute/{slug}/input`: needs a language model.
pub(super) async fn arguments_from_text() -> ApiResult {
    Err(ApiError::not_implemented(
        "The simulator does not turn text into arguments",
    ))
}

/// `POST /tools/execute/proxy`: calls a provider's API directly. The simulator implements Reddit's identity endpoint.
pub(super) async fn proxy(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> ApiResult {
    if caller.version == ApiVersion::V31 && caller.default_key && core.assumptions.proxy_needs_scoped_key {
        return Err(ApiError::missing_scope(Area::ProxyExecute, Access::Write));
    }
    let known = [
        "endpoint",
        "method",
        "connected_account_id",
        "user_id",
        "parameters",
        "body",
        "binary_body",
        "custom_connection_data",
    ];
    let mut payload = Payload::parse(&body, &known, &core.assumptions)?;
    let endpoint = payload.required_string("endpoint");
    payload.require("method");
    let method = payload.choice("method", &["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]);
    let account_id = payload.string("connected_account_id");
    payload.finish()?;
    let Some(account_id) = account_id else {
        return Err(ApiError::proxy(
            "MissingAuthContext",
            "A connected_account_id is required",
        ));
    };
    let (toolkit, actor) = core.project(caller.project, |project, _| {
        let row = project.accounts.find(&account_id);
        let account = project
            .accounts
            .get(row.ok_or_else(|| ApiError::account_not_found(&account_id))?);
        usable(&core, account, || ApiError::account_not_found(&account_id))?;
        Ok::<_, ApiError>((account.toolkit.clone(), actor_of(account)))
    })?;
    let base_url = core
        .catalogue
        .toolkit(&toolkit)
        .and_then(|toolkit| toolkit.base_url.clone());
    let path = path_on(&base_url.unwrap_or_default(), &endpoint)
        .ok_or_else(|| ApiError::proxy("OriginMismatch", "The endpoint belongs to another domain"))?;
    wait_for_provider(Some(&actor)).await;
    if (toolkit.as_str(), method.as_deref(), path.as_str()) != ("reddit", Some("GET"), "/api/v1/me") {
        return Err(ApiError::not_implemented(
            "The simulator does not implement this endpoint",
        ));
    }
    let (status, data) = match reddit::unreachable(&actor) {
        Some(Outcome::Failed { data, .. }) => (data["status_code"].clone(), data["message"].clone()),
        _ => (json!(200), reddit::me(&actor)),
    };
    let headers: Map<String, Value> = Map::from_iter([(
        "content-type".to_owned(),
        json!("application/json; charset=UTF-8"),
    )]);
    Ok(Json(json!({"status": status, "data": data, "headers": headers})).into_response())
}

/// The path an endpoint means on a provider: relative, or absolute on the provider's own registrable domain.
fn path_on(base_url: &str, endpoint: &str) -> Option<String> {
    let base = url::Url::parse(base_url).ok()?;
    let target = base.join(endpoint).ok()?;
    let domain = |url: &url::Url| {
        let host = url.host_str()?.to_owned();
        let labels: Vec<_> = host.rsplit('.').take(2).map(str::to_owned).collect();
        Some(labels)
    };
    (target.scheme() == base.scheme() && domain(&target) == domain(&base)).then(|| target.path().to_owned())
}
