//! The HTTP surface: the API under both version prefixes, the hosted page, and the control API.

mod accounts;
mod accounts_view;
mod auth_configs;
mod delivery;
mod errors;
mod links;
mod page;
mod paging;
mod payload;
mod pipeline;
mod query;
mod toolkits;
mod tools;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::OriginalUri,
    http::StatusCode,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, patch, post},
};
use serde::Serialize;

use crate::{control, core::Core};
use errors::ApiError;
pub(crate) use pipeline::Hangup;

/// The two generations of the API. They differ in default tool versions and a few routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiVersion {
    /// `/api/v3`.
    V3,
    /// `/api/v3.1`.
    V31,
}

impl ApiVersion {
    const fn prefix(self) -> &'static str {
        match self {
            Self::V3 => "/api/v3",
            Self::V31 => "/api/v3.1",
        }
    }
}

/// The sender of a request, as far as handlers need to know. The pipeline adds it to each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Position of the key's project.
    project: usize,
    version: ApiVersion,
    /// Holds a default project key rather than a scoped one.
    default_key: bool,
}

type ApiResult = Result<Response, ApiError>;

pub(crate) fn router(core: &Arc<Core>) -> Router {
    Router::new()
        .nest(ApiVersion::V3.prefix(), api(core, ApiVersion::V3))
        .nest(ApiVersion::V31.prefix(), api(core, ApiVersion::V31))
        .nest("/_sim", control::router())
        .merge(page::router())
        .with_state(Arc::clone(core))
}

fn api(core: &Arc<Core>, version: ApiVersion) -> Router<Arc<Core>> {
    let mut api = Router::new()
        .route(
            "/connected_accounts",
            get(accounts::list).post(links::create_legacy),
        )
        .route("/connected_accounts/link", post(links::create))
        .route(
            "/connected_accounts/{id}",
            get(accounts::retrieve)
                .delete(accounts::delete)
                .patch(accounts::update),
        )
        .route("/connected_accounts/{id}/status", patch(accounts::set_status))
        .route("/connected_accounts/{id}/refresh", post(links::refresh))
        .route(
            "/auth_configs",
            get(auth_configs::list).post(auth_configs::create),
        )
        .route(
            "/auth_configs/{id}",
            get(auth_configs::retrieve)
                .patch(auth_configs::update)
                .delete(auth_configs::delete),
        )
        .route("/auth_configs/{id}/{status}", patch(auth_configs::set_status))
        .route("/toolkits", get(toolkits::list))
        .route("/toolkits/multi", post(toolkits::multi))
        .route("/toolkits/categories", get(toolkits::categories))
        .route("/toolkits/changelog", get(toolkits::changelog))
        .route("/toolkits/{slug}", get(toolkits::retrieve))
        .route("/tools", get(tools::list))
        .route("/tools/enum", get(tools::slugs))
        .route("/tools/{slug}", get(tools::retrieve))
        .route("/tools/execute/proxy", post(tools::proxy))
        .route("/tools/execute/{slug}", post(tools::execute))
        .route("/tools/execute/{slug}/input", post(tools::arguments_from_text));
    if version == ApiVersion::V31 {
        api = api
            .route("/connected_accounts/{id}/revoke", post(accounts::revoke))
            .route("/connected_accounts/complete_auth", post(links::complete_auth));
    }
    api.fallback(
        async |method: axum::http::Method, OriginalUri(uri): OriginalUri| {
            ApiError::not_found(format!("Route {method} {} not found", uri.path()))
        },
    )
    .method_not_allowed_fallback(async || ApiError::method_not_allowed())
    .layer(middleware::from_fn_with_state(
        (Arc::clone(core), version),
        pipeline::handle,
    ))
}

/// 200 with a JSON body.
#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers return its value, which must be a result"
)]
fn ok(body: impl Serialize) -> ApiResult {
    Ok(Json(body).into_response())
}

/// 201 with a JSON body.
#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers return its value, which must be a result"
)]
fn created(body: impl Serialize) -> ApiResult {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

fn unexpected_choice(allowed: &[&str], received: &str) -> String {
    let allowed: Vec<_> = allowed.iter().map(|name| format!("'{name}'")).collect();
    format!(
        "Invalid enum value. Expected {}, received '{received}'",
        allowed.join(" | ")
    )
}
