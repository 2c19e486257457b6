//! Changes to the catalogue: `/_sim/toolkits`.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{failure, read};
use crate::{
    catalogue::{CatalogueError, NewToolkit, Release, Toolkit, Touch},
    core::Core,
};

pub(super) async fn add(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let new = match read::<NewToolkit>(&body) {
        Ok(new) => new,
        Err(response) => return *response,
    };
    match core.catalogue.add(&new, core.clock.now()) {
        Ok(toolkit) => (StatusCode::CREATED, summary(&toolkit)).into_response(),
        Err(error) => refusal(&error),
    }
}

pub(super) async fn remove(State(core): State<Arc<Core>>, Path(slug): Path<String>) -> Response {
    match core.catalogue.remove(&slug) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refusal(&error),
    }
}

pub(super) async fn release(
    State(core): State<Arc<Core>>,
    Path(slug): Path<String>,
    body: Bytes,
) -> Response {
    let release = match read::<Release>(&body) {
        Ok(release) => release,
        Err(response) => return *response,
    };
    match core.catalogue.release(&slug, &release, core.clock.now()) {
        Ok(released) => (StatusCode::CREATED, Json(released)).into_response(),
        Err(error) => refusal(&error),
    }
}

pub(super) async fn touch(State(core): State<Arc<Core>>, Path(slug): Path<String>, body: Bytes) -> Response {
    let touch = match read::<Touch>(&body) {
        Ok(touch) => touch,
        Err(response) => return *response,
    };
    match core.catalogue.touch(&slug, &touch, core.clock.now()) {
        Ok(toolkit) => summary(&toolkit).into_response(),
        Err(error) => refusal(&error),
    }
}

fn summary(toolkit: &Toolkit) -> Json<serde_json::Value> {
    let latest = toolkit.latest();
    Json(json!({
        "slug": toolkit.slug,
        "version": latest.name,
        "updatedAt": toolkit.updated_at,
        "tools": latest.tools().len(),
    }))
}

fn refusal(error: &CatalogueError) -> Response {
    let status = match error {
        CatalogueError::NoToolkit(_) => StatusCode::NOT_FOUND,
        CatalogueError::BadSlug(_) | CatalogueError::BadVersion { .. } => StatusCode::BAD_REQUEST,
        CatalogueError::Exists(_) | CatalogueError::TooFewTools { .. } => StatusCode::CONFLICT,
    };
    failure(status, error)
}
