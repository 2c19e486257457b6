//! Which toolkits are to be cached: a pure function of the spec and of what Composio lists.

use std::collections::{BTreeMap, BTreeSet};

use super::super::observed::{Catalogue, CatalogueEntry, Observed, View};
use crate::api::Reason;
use crate::api::composio_schema_cache::{Discovery, ToolkitSelection};
use crate::runtime::failure::Failure;
use crate::schemas::manifest::Entry;
use crate::schemas::record::Record;

/// Empty lists of auth configs in a row that are asked for again before one is believed: that takes some two minutes.
const EMPTY_CONFIRMATIONS: i64 = 6;

/// What people write for no pin.
const LATEST: &str = "latest";

/// A toolkit that is to be cached.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredToolkit {
    /// Its slug.
    pub slug: String,
    /// The version to read. None: the catalogue does not say, so the latest.
    pub version: Option<String>,
    /// `spec.versions` names that version.
    pub is_pinned: bool,
    /// When Composio last updated it, in its own words. None for a pinned version, which does not change.
    pub updated_at: Option<String>,
    /// What is known of its tools.
    pub known_tools: KnownTools,
    /// Composio does not list it, and does not list everything either: what is cached stays as it is.
    pub is_only_kept: bool,
}

/// What is known of a toolkit's tools before it is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KnownTools {
    /// Nothing tells of any.
    None,
    /// It has some: an answer without any is in doubt.
    Some,
    /// All are cached, of this version or another: they stay where Composio lists only some.
    AllCached,
}

impl KnownTools {
    fn of(record: Option<&Record>, entry: Option<&Entry>, listed: Option<&CatalogueEntry>) -> Self {
        if record.is_some_and(|record| record.tools > 0 && record.missing_tools == 0) {
            return Self::AllCached;
        }
        let tells_of_some = record.is_some_and(|record| record.tools > 0)
            || entry.is_some_and(|entry| entry.tools > 0)
            || listed.is_some_and(|toolkit| toolkit.tools > Some(0));
        if tells_of_some { Self::Some } else { Self::None }
    }
}

/// The toolkits that are to be cached, by slug.
pub(super) fn select(
    view: &View<'_>,
    observed: &Observed,
    catalogue: &Catalogue,
    records: &BTreeMap<&str, &Record>,
) -> Result<BTreeMap<String, DesiredToolkit>, Failure> {
    let selection = &view.spec.toolkits;
    let mut slugs = discovered(selection, catalogue);
    let kept: BTreeSet<&str> = known(observed)
        .filter(|slug| !slugs.contains(slug) && may_be_unlisted(slug, selection, catalogue))
        .collect();
    slugs.extend(&kept);
    for slug in &selection.exclude {
        slugs.remove(slug.as_str());
    }
    if lists_no_auth_config(catalogue)
        && view.status.empty_auth_config_lists.unwrap_or_default() < EMPTY_CONFIRMATIONS
        && would_lose(view, observed, &slugs)
    {
        return Err(Failure::transient(
            Reason::EmptyResponse,
            "Composio lists no enabled auth config any more; asking again before anything is deleted",
        ));
    }
    let desired = slugs.into_iter().map(|slug| {
        let listed = catalogue.toolkits.get(slug);
        let pin = view.spec.versions.get(slug).filter(|version| *version != LATEST);
        let record = records.get(slug);
        let entry = observed
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.entry(slug));
        let desired = DesiredToolkit {
            slug: slug.to_owned(),
            version: pin
                .or(listed.and_then(|toolkit| toolkit.version.as_ref()))
                .cloned(),
            is_pinned: pin.is_some(),
            updated_at: listed
                .filter(|_| pin.is_none())
                .and_then(|toolkit| toolkit.updated_at.clone()),
            // The catalogue counts the tools of the latest version.
            known_tools: KnownTools::of(record.copied(), entry, listed.filter(|_| pin.is_none())),
            is_only_kept: listed.is_none() && kept.contains(slug),
        };
        (slug.to_owned(), desired)
    });
    Ok(desired.collect())
}

/// What is discovered and what is included.
fn discovered<'a>(selection: &'a ToolkitSelection, catalogue: &'a Catalogue) -> BTreeSet<&'a str> {
    let mut slugs: BTreeSet<&str> = selection.include.iter().map(String::as_str).collect();
    let listed = |no_auth: bool| {
        let toolkits = catalogue.toolkits.iter();
        toolkits
            .filter(move |(_, toolkit)| toolkit.no_auth == no_auth)
            .map(|(slug, _)| slug.as_str())
    };
    match selection.discover {
        Discovery::AuthConfigs => slugs.extend(catalogue.configured.iter().flatten().map(String::as_str)),
        Discovery::All => slugs.extend(listed(false)),
        Discovery::None => {}
    }
    if selection.no_auth && selection.discover != Discovery::None {
        slugs.extend(listed(true));
    }
    slugs
}

/// Every toolkit that the manifest or a ConfigMap names.
fn known(observed: &Observed) -> impl Iterator<Item = &str> {
    let listed = observed.manifest.iter().flat_map(|manifest| &manifest.toolkits);
    let records = observed.cached.iter().filter_map(|cached| cached.record.as_ref());
    listed
        .map(|entry| entry.slug.as_str())
        .chain(records.map(|record| record.toolkit.as_str()))
}

/// Whether it may be among those that Composio counts and does not list.
fn may_be_unlisted(slug: &str, selection: &ToolkitSelection, catalogue: &Catalogue) -> bool {
    let in_catalogue = needs_whole_list(selection)
        && catalogue.missing_toolkits > 0
        && !catalogue.toolkits.contains_key(slug);
    let in_auth_configs = catalogue.configured.is_some() && catalogue.missing_auth_configs > 0;
    in_catalogue || in_auth_configs
}

/// Whether auth configs were asked for, and there are none.
pub fn lists_no_auth_config(catalogue: &Catalogue) -> bool {
    catalogue.missing_auth_configs == 0 && catalogue.configured.as_ref().is_some_and(BTreeSet::is_empty)
}

/// Whether toolkits are known that are neither selected nor excluded. Where the manifest is lost, the ConfigMaps and the
/// status still tell of them.
fn would_lose(view: &View<'_>, observed: &Observed, selected: &BTreeSet<&str>) -> bool {
    let excluded = &view.spec.toolkits.exclude;
    let counted = usize::try_from(view.status.toolkits.unwrap_or_default()).unwrap_or_default();
    known(observed).any(|slug| !selected.contains(slug) && !excluded.iter().any(|excluded| excluded == slug))
        || (observed.manifest.is_none() && counted > selected.len())
}

/// Where a toolkit is looked for in the catalogue, one that is not listed may be there all the same.
pub(super) fn short(view: &View<'_>, catalogue: &Catalogue) -> Option<Failure> {
    let message = if catalogue.configured.is_some() && catalogue.missing_auth_configs > 0 {
        format!(
            "Composio counts {} auth configs that cannot be read",
            catalogue.missing_auth_configs
        )
    } else if catalogue.missing_toolkits > 0 && needs_whole_list(&view.spec.toolkits) {
        format!(
            "Composio counts {} toolkits that it does not list",
            catalogue.missing_toolkits
        )
    } else {
        return None;
    };
    Some(Failure::transient(
        Reason::IncompleteResponse,
        format!("{message}; what is known is cached, and nothing is deleted"),
    ))
}

/// Whether toolkits are selected because the catalogue lists them.
pub fn needs_whole_list(selection: &ToolkitSelection) -> bool {
    match selection.discover {
        Discovery::All => true,
        Discovery::AuthConfigs => selection.no_auth,
        Discovery::None => false,
    }
}
