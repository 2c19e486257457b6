//! `/toolkits`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, RawQuery, State},
};
use serde_json::{Value, json};

use super::{
    ApiResult, ApiVersion, Caller,
    errors::ApiError,
    ok,
    paging::{Envelope, Page},
    payload::Payload,
    query::Query,
};
use crate::{
    catalogue::{Catalogue, Toolkit},
    core::Core,
};

/// Most toolkits on a page.
const MAX_PAGE: usize = 1_000;

/// Which toolkits a list shows, in which order.
#[derive(Default)]
struct Filter {
    /// Empty: all.
    slugs: Vec<String>,
    /// An id or a name.
    category: Option<String>,
    search: Option<String>,
    kind: Option<String>,
    managed_by: Option<String>,
    alphabetically: bool,
    include_deprecated: bool,
}

impl Filter {
    fn admits(&self, toolkit: &Toolkit) -> bool {
        let in_category = |wanted: &String| {
            toolkit
                .categories
                .iter()
                .any(|category| category.id == *wanted || category.name == *wanted)
        };
        let found = |text: &String| {
            let text = text.to_lowercase();
            [&toolkit.slug, &toolkit.name, &toolkit.description]
                .iter()
                .any(|field| field.to_lowercase().contains(&text))
        };
        let managed = match self.managed_by.as_deref() {
            Some("composio") => !toolkit.composio_managed_auth_schemes.is_empty(),
            // The simulator has no toolkits of a project's own.
            Some("project") => false,
            _ => true,
        };
        managed
            && (self.include_deprecated || !toolkit.deprecated)
            && self.kind.as_deref() != Some("custom")
            && (self.slugs.is_empty()
                || self
                    .slugs
                    .iter()
                    .any(|slug| slug.eq_ignore_ascii_case(&toolkit.slug)))
            && self.category.as_ref().is_none_or(in_category)
            && self.search.as_ref().is_none_or(found)
    }

    fn select(&self, catalogue: &Catalogue) -> Vec<Arc<Toolkit>> {
        let mut selected = catalogue.toolkits();
        selected.retain(|toolkit| self.admits(toolkit));
        if self.alphabetically {
            selected.sort_by(|a, b| a.slug.cmp(&b.slug));
        }
        selected
    }

    fn page(&self, catalogue: &Catalogue, page: Page) -> Envelope<Value> {
        let selected = self.select(catalogue);
        let items: Vec<_> = page
            .of(&selected)
            .iter()
            .map(|toolkit| toolkit.list_item())
            .collect();
        page.envelope(items, selected.len())
    }
}

/// `GET /toolkits`.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let page = Page::read(&mut query, core.assumptions.default_page_size, MAX_PAGE)
        .capped(core.assumptions.page_cap);
    let search = query.text("search");
    let shortest = if caller.version == ApiVersion::V3 { 3 } else { 1 };
    if search
        .as_ref()
        .is_some_and(|text| text.chars().count() < shortest)
    {
        query.fail(
            "search",
            &format!("String must contain at least {shortest} character(s)"),
        );
    }
    let filter = Filter {
        slugs: Vec::new(),
        category: query.text("category"),
        search,
        kind: query.choice("type", &["native", "custom", "all"]),
        managed_by: query.choice("managed_by", &["composio", "all", "project"]),
        alphabetically: query.choice("sort_by", &["usage", "alphabetically"]).as_deref()
            == Some("alphabetically"),
        include_deprecated: query.boolean("include_deprecated").unwrap_or_default(),
    };
    query.finish()?;
    ok(filter.page(&core.catalogue, page))
}

/// `POST /toolkits/multi`: the list with its parameters in a body.
pub(super) async fn multi(State(core): State<Arc<Core>>, body: Bytes) -> ApiResult {
    let known = ["toolkits", "category", "managed_by", "sort_by", "limit", "cursor"];
    let mut payload = Payload::parse(&body, &known, &core.assumptions)?;
    let filter = Filter {
        slugs: payload.strings("toolkits").unwrap_or_default(),
        category: payload.string("category"),
        managed_by: payload.choice("managed_by", &["composio", "all", "project"]),
        alphabetically: payload.choice("sort_by", &["usage", "alphabetically"]).as_deref()
            == Some("alphabetically"),
        // A toolkit that the request names is returned even if it is deprecated.
        include_deprecated: true,
        ..Filter::default()
    };
    let cursor = payload.string("cursor");
    let limit = payload
        .get("limit")
        .and_then(Value::as_u64)
        .and_then(|limit| usize::try_from(limit).ok());
    if payload.get("limit").is_some() && !limit.is_some_and(|limit| (1..=MAX_PAGE).contains(&limit)) {
        payload.fail("limit", &format!("Number must be between 1 and {MAX_PAGE}"));
    }
    let page = Page::from_parts(cursor.as_deref(), limit, core.assumptions.default_page_size);
    if page.is_none() {
        payload.fail("cursor", "Invalid cursor");
    }
    payload.finish()?;
    let page = page.ok_or_else(ApiError::internal)?;
    ok(filter.page(&core.catalogue, page.capped(core.assumptions.page_cap)))
}

/// `GET /toolkits/{slug}`.
pub(super) async fn retrieve(
    State(core): State<Arc<Core>>,
    Path(slug): Path<String>,
    RawQuery(raw): RawQuery,
) -> ApiResult {
    let query = Query::parse(raw.as_deref());
    let toolkit = core
        .catalogue
        .toolkit(&slug)
        .ok_or_else(|| ApiError::toolkit_not_found(&slug))?;
    let wanted = query.text("version").unwrap_or_else(|| "latest".to_owned());
    let version = toolkit
        .resolve(&wanted)
        .ok_or_else(|| ApiError::not_found(format!("Version {wanted} of toolkit {slug} not found")))?;
    ok(toolkit.detail(version))
}

/// `GET /toolkits/categories`.
pub(super) async fn categories(State(core): State<Arc<Core>>, RawQuery(raw): RawQuery) -> ApiResult {
    let mut query = Query::parse(raw.as_deref());
    let page = Page::read(&mut query, MAX_PAGE, MAX_PAGE).capped(core.assumptions.page_cap);
    query.finish()?;
    let toolkits = core.catalogue.toolkits();
    let categories: BTreeMap<_, _> = toolkits
        .iter()
        .flat_map(|toolkit| &toolkit.categories)
        .map(|category| (&category.id, &category.name))
        .collect();
    let items: Vec<_> = categories
        .into_iter()
        .map(|(id, name)| json!({"id": id, "name": name}))
        .collect();
    ok(page.envelope(page.of(&items).to_vec(), items.len()))
}

/// `GET /toolkits/changelog`: the last ten versions of every toolkit, without paging.
pub(super) async fn changelog(State(core): State<Arc<Core>>) -> ApiResult {
    let items: Vec<_> = core
        .catalogue
        .toolkits()
        .iter()
        .map(|toolkit| {
            let versions: Vec<_> = toolkit
                .version_names()
                .take(10)
                .map(|version| json!({"version": version, "changelog": ""}))
                .collect();
            json!({
                "slug": toolkit.slug, "name": toolkit.slug, "display_name": toolkit.name, "versions": versions,
            })
        })
        .collect();
    ok(json!({"items": items}))
}
