//! I/O in: gathers what the decision needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::config_maps::{ConfigMaps, Meta, Role, conflict};
use super::discovery::discover;
use super::observed::{CachedConfigMap, Observed, View};
use super::status::Cost;
use super::sync_state::{Sync, SyncState, SyncStates};
use super::{SchemaCaches, plan};
use crate::api::Reason;
use crate::composio::Connection;
use crate::runtime::Controller;
use crate::runtime::backoff::until;
use crate::runtime::failure::Failure;
use crate::runtime::wake_ups::ObjectKey;
use crate::schemas::manifest::{MANIFEST_KEY, Manifest};
use crate::schemas::names;
use crate::schemas::pack::{Part, checksum};
use crate::schemas::record::{CHECKSUM, CONTENT, Record, SETTINGS, TOOLKIT};

/// ConfigMaps that are read at the same time, if they have to be. Each is in memory as a whole.
const READ_AT_ONCE: usize = 8;

/// A sync that takes longer asks again what there is.
const CATALOGUE_FRESH_FOR: Duration = Duration::from_mins(10);

/// Composio; None if it is not needed.
pub type Handles = Option<Arc<Connection<ObjectKey>>>;

/// Gathers what `plan` needs to know about a cache. Composio has `limit` to tell what it offers.
pub async fn observe(
    controller: &SchemaCaches,
    view: &View<'_>,
    config_maps: &ConfigMaps<'_>,
    now: Timestamp,
    limit: Duration,
) -> Result<(Observed, Handles), Failure> {
    let states = &controller.states;
    states.open(view.uid, &view.key(SchemaCaches::NAME));
    let reading = read_config_maps(states, view, config_maps);
    let asking = ask_in_time(controller, view, now, limit);
    let (observed, asked) = if plan::is_wanted(view) {
        let (observed, asked) = futures::join!(reading, asking);
        (observed, Some(asked))
    } else {
        let observed = reading.await;
        let is_due = observed
            .as_ref()
            .is_ok_and(|observed| plan::is_due(view, observed, now));
        (observed, if is_due { Some(asking.await) } else { None })
    };
    if let Some(Err(_)) = asked {
        states.update(view.uid, |state| state.sync = None);
    }
    let mut observed = observed?;
    let Some((connection, sync)) = asked.transpose()? else {
        return Ok((observed, None));
    };
    observed.cost = Cost {
        started_at: Some(sync.started_at),
        api_calls: sync.api_calls,
    };
    observed.catalogue = Some(sync.catalogue);
    observed.failed = sync.failed;
    observed.read = sync.read;
    Ok((observed, Some(connection)))
}

/// The ConfigMaps there are. Only those that changed since they were last seen are read.
async fn read_config_maps(
    states: &SyncStates,
    view: &View<'_>,
    config_maps: &ConfigMaps<'_>,
) -> Result<Observed, Failure> {
    let state = states.get(view.uid);
    let mut observed = Observed {
        checked_at: state.checked_at,
        repaired_at: state.repaired_at,
        ..Observed::default()
    };
    let manifest_name = names::manifest(&view.spec.output.name_prefix);
    let prefix = format!("{}-", view.spec.output.name_prefix);
    let found = config_maps.list().await.map_err(|error| Failure::from(&error))?;
    // A copy that somebody made, owner and labels included, is theirs.
    let ours = found
        .into_iter()
        .filter(|meta| meta.name_any().starts_with(&prefix));
    let (manifests, toolkits): (Vec<_>, Vec<_>) = ours.partition(|meta| meta.name_any() == manifest_name);
    observed.manifest_exists = !manifests.is_empty();
    for meta in manifests {
        observed.manifest_is_of_spec = meta.annotations().get(SETTINGS) == Some(&view.selection());
        observed.manifest_is_labelled = has_labels(&meta, &config_maps.labels(Role::Manifest, None));
        observed.manifest = read_manifest(states, view, config_maps, &state, &meta, &manifest_name).await?;
    }
    let checksum = |meta: &Meta| Some((meta.name_any(), meta.annotations().get(CHECKSUM)?.clone()));
    observed.checksums = toolkits.iter().filter_map(checksum).collect();
    observed.cached = stream::iter(toolkits)
        .map(|meta| cached(states, view, config_maps, &state, meta))
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await?;
    if !observed.manifest_exists {
        let taken = config_maps.is_taken(&manifest_name).await;
        if taken.map_err(|error| Failure::from(&error))? {
            return Err(conflict(&manifest_name));
        }
    }
    Ok(observed)
}

async fn cached(
    states: &SyncStates,
    view: &View<'_>,
    config_maps: &ConfigMaps<'_>,
    state: &SyncState,
    meta: Meta,
) -> Result<CachedConfigMap, Failure> {
    let name = meta.name_any();
    let intact = is_intact(states, view, config_maps, state, &meta, &name).await?;
    let annotations = meta.annotations();
    let record = Record::read(annotations).filter(|record| record.config_maps.first() == Some(&name));
    let role = match &record {
        Some(_) => Role::Toolkit,
        None => Role::Continuation,
    };
    let labels = config_maps.labels(role, annotations.get(TOOLKIT).map(String::as_str));
    Ok(CachedConfigMap {
        record,
        sha256: annotations.get(CONTENT).cloned(),
        damaged: !(intact && has_labels(&meta, &labels)),
        terminating: meta.metadata.deletion_timestamp.is_some(),
        name,
    })
}

/// Whether all these labels are there.
fn has_labels(meta: &Meta, labels: &BTreeMap<String, String>) -> bool {
    let found = meta.labels();
    labels.iter().all(|(key, value)| found.get(key) == Some(value))
}

fn is_as_written(metadata: &ObjectMeta, part: &Part) -> bool {
    metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.get(CHECKSUM) == Some(&checksum(part, annotations)))
}

/// Whether the content is what was written.
async fn is_intact(
    states: &SyncStates,
    view: &View<'_>,
    config_maps: &ConfigMaps<'_>,
    state: &SyncState,
    meta: &Meta,
    name: &str,
) -> Result<bool, Failure> {
    let version = meta.metadata.resource_version.clone().unwrap_or_default();
    if state.intact.get(name) == Some(&version) {
        return Ok(true);
    }
    let Some((metadata, part)) = config_maps
        .read(name)
        .await
        .map_err(|error| Failure::from(&error))?
    else {
        return Ok(false);
    };
    let is_intact = is_as_written(&metadata, &part);
    if is_intact {
        let version = metadata.resource_version.unwrap_or_default();
        states.update(view.uid, |state| state.intact.insert(name.to_owned(), version));
    }
    Ok(is_intact)
}

async fn read_manifest(
    states: &SyncStates,
    view: &View<'_>,
    config_maps: &ConfigMaps<'_>,
    state: &SyncState,
    meta: &Meta,
    name: &str,
) -> Result<Option<Manifest>, Failure> {
    let version = meta.metadata.resource_version.clone().unwrap_or_default();
    if let Some((known, manifest)) = &state.manifest
        && *known == version
    {
        return Ok(Some(manifest.clone()));
    }
    let found = config_maps
        .read(name)
        .await
        .map_err(|error| Failure::from(&error))?;
    let Some((metadata, part)) = found else {
        return Ok(None);
    };
    let text = part
        .data
        .get(MANIFEST_KEY)
        .filter(|_| is_as_written(&metadata, &part));
    let manifest: Option<Manifest> = text.and_then(|text| serde_json::from_str(text).ok());
    if let Some(manifest) = manifest.clone() {
        let version = metadata.resource_version.unwrap_or_default();
        states.update(view.uid, |state| {
            state.manifest = Some((version, manifest));
        });
    }
    Ok(manifest)
}

async fn ask_in_time(
    controller: &SchemaCaches,
    view: &View<'_>,
    now: Timestamp,
    limit: Duration,
) -> Result<(Arc<Connection<ObjectKey>>, Sync), Failure> {
    let answer = tokio::time::timeout(limit, ask_composio(controller, view, now)).await;
    answer.unwrap_or_else(|_| {
        Err(Failure::transient(
            Reason::ComposioUnavailable,
            format!("Composio did not list its toolkits within {} s", limit.as_secs()),
        ))
    })
}

/// What Composio offers: asked once for each sync.
async fn ask_composio(
    controller: &SchemaCaches,
    view: &View<'_>,
    now: Timestamp,
) -> Result<(Arc<Connection<ObjectKey>>, Sync), Failure> {
    let states = &controller.states;
    let asked = (view.generation, view.requested_at.as_deref().map(str::to_owned));
    let reference = view.spec.api_key_secret_ref.as_ref();
    let connection = controller.access.connect(view, reference).await?;
    let under_way = states.get(view.uid).sync;
    let is_fresh = |sync: &Sync| sync.asked == asked && until(now, sync.started_at) < CATALOGUE_FRESH_FOR;
    if let Some(sync) = under_way.filter(is_fresh) {
        return Ok((connection, sync));
    }
    let found = discover(&controller.lists, &connection, view).await?;
    let sync = Sync {
        asked,
        started_at: now,
        catalogue: found.catalogue,
        failed: found.failed,
        read: BTreeSet::new(),
        api_calls: found.api_calls,
    };
    states.update(view.uid, |state| state.sync = Some(sync.clone()));
    Ok((connection, sync))
}
