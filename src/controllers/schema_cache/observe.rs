//! I/O in: gathers what the decision needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::config_maps::{ConfigMaps, Meta, Ownership, Role, conflict};
use super::memory::{Remembered, Sync};
use super::observed::{Catalogue, Held, Listed, Observed, Subject};
use super::plan;
use crate::api::composio_schema_cache::Discovery;
use crate::composio::{self, Connection, Priority, ToolkitDetail};
use crate::controllers::connect::connect;
use crate::controllers::context::{Context, Owner};
use crate::controllers::failure::{Failure, Reason, until};
use crate::schemas::manifest::{MANIFEST_KEY, Manifest};
use crate::schemas::names;
use crate::schemas::pack::{Part, checksum};
use crate::schemas::record::{CHECKSUM, CONTENT, Record, SETTINGS, TOOLKIT};

/// The facts, and the connection they came through.
#[derive(Default)]
pub struct Observation {
    /// The facts.
    pub observed: Observed,
    /// Composio; None if it is not needed, or the cache has no usable API key.
    pub connection: Option<Arc<Connection<Owner>>>,
}

/// ConfigMaps that are read at the same time, if they have to be. Each is in memory as a whole.
const READ_AT_ONCE: usize = 8;

/// A sync that takes longer asks again what there is.
const CATALOGUE_FRESH_FOR: Duration = Duration::from_mins(10);

/// Gathers what `plan` needs to know about `subject`.
pub async fn observe(
    ctx: &Context,
    owner: &Owner,
    subject: &Subject<'_>,
    config_maps: &ConfigMaps<'_>,
    now: Timestamp,
) -> Observation {
    if subject.deleting || subject.spec.suspend {
        return Observation::default();
    }
    let looking = look_around(ctx, subject, config_maps);
    let asking = ask_composio(ctx, owner, subject, now);
    let (looked, asked) = if plan::is_wanted(subject) {
        let (looked, asked) = futures::join!(looking, asking);
        (looked, Some(asked))
    } else {
        let looked = looking.await;
        let is_due = looked.failure.is_none() && plan::is_due(subject, &looked, now);
        (looked, if is_due { Some(asking.await) } else { None })
    };
    let mut observation = Observation {
        observed: looked,
        connection: None,
    };
    let observed = &mut observation.observed;
    match asked {
        Some(Ok((connection, sync))) if observed.failure.is_none() => {
            observed.catalogue = Some(sync.catalogue);
            observed.failed = sync.failed;
            observation.connection = Some(connection);
        }
        Some(Err(failure)) => {
            observed.failure.get_or_insert(failure);
            ctx.schemas.note(subject.uid, |remembered| remembered.sync = None);
        }
        _ => {}
    }
    observation
}

async fn look_around(ctx: &Context, subject: &Subject<'_>, config_maps: &ConfigMaps<'_>) -> Observed {
    let mut observed = Observed::default();
    observed.failure = look_at_all(ctx, subject, config_maps, &mut observed).await.err();
    observed
}

/// The ConfigMaps there are. Only those that changed since they were last seen are read.
async fn look_at_all(
    ctx: &Context,
    subject: &Subject<'_>,
    config_maps: &ConfigMaps<'_>,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let remembered = ctx.schemas.recall(subject.uid);
    observed.checked_at = remembered.checked_at;
    observed.repaired_at = remembered.repaired_at;
    let manifest_name = names::manifest(&subject.spec.output.name_prefix);
    let prefix = format!("{}-", subject.spec.output.name_prefix);
    let found = config_maps.list().await.map_err(|error| Failure::from(&error))?;
    // A copy that somebody made, owner and labels included, is theirs.
    let ours = found
        .into_iter()
        .filter(|meta| meta.name_any().starts_with(&prefix));
    let (manifests, toolkits): (Vec<_>, Vec<_>) = ours.partition(|meta| meta.name_any() == manifest_name);
    observed.manifest_exists = !manifests.is_empty();
    for meta in manifests {
        let settings = meta.annotations().get(SETTINGS);
        observed.manifest_is_labelled = settings == Some(&subject.settings())
            && carries(&meta, &config_maps.labels(Role::Manifest, None));
        observed.manifest =
            read_manifest(ctx, subject, config_maps, &remembered, &meta, &manifest_name).await?;
    }
    observed.held = stream::iter(toolkits)
        .map(|meta| held(ctx, subject, config_maps, &remembered, meta))
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await?;
    if !observed.manifest_exists {
        let found = config_maps.api.get_metadata_opt(&manifest_name).await;
        let found = found.map_err(|error| Failure::from(&error))?;
        if found.is_some_and(|found| config_maps.ownership(&found.metadata) == Ownership::Foreign) {
            return Err(conflict(&manifest_name));
        }
    }
    Ok(())
}

async fn held(
    ctx: &Context,
    subject: &Subject<'_>,
    config_maps: &ConfigMaps<'_>,
    remembered: &Remembered,
    meta: Meta,
) -> Result<Held, Failure> {
    let name = meta.name_any();
    let sound = is_sound(ctx, subject, config_maps, remembered, &meta, &name).await?;
    let annotations = meta.annotations();
    let record = Record::read(annotations).filter(|record| record.config_maps.first() == Some(&name));
    let role = match &record {
        Some(_) => Role::Toolkit,
        None => Role::Continuation,
    };
    let labels = config_maps.labels(role, annotations.get(TOOLKIT).map(String::as_str));
    Ok(Held {
        record,
        sha256: annotations.get(CONTENT).cloned(),
        damaged: !(sound && carries(&meta, &labels)),
        terminating: meta.metadata.deletion_timestamp.is_some(),
        name,
    })
}

/// Whether all these labels are there.
fn carries(meta: &Meta, labels: &BTreeMap<String, String>) -> bool {
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
async fn is_sound(
    ctx: &Context,
    subject: &Subject<'_>,
    config_maps: &ConfigMaps<'_>,
    remembered: &Remembered,
    meta: &Meta,
    name: &str,
) -> Result<bool, Failure> {
    let version = meta.metadata.resource_version.clone().unwrap_or_default();
    if remembered.sound.get(name) == Some(&version) {
        return Ok(true);
    }
    let Some((metadata, part)) = config_maps
        .read(name)
        .await
        .map_err(|error| Failure::from(&error))?
    else {
        return Ok(false);
    };
    let is_sound = is_as_written(&metadata, &part);
    if is_sound {
        let version = metadata.resource_version.unwrap_or_default();
        ctx.schemas.note(subject.uid, |remembered| {
            remembered.sound.insert(name.to_owned(), version)
        });
    }
    Ok(is_sound)
}

async fn read_manifest(
    ctx: &Context,
    subject: &Subject<'_>,
    config_maps: &ConfigMaps<'_>,
    remembered: &Remembered,
    meta: &Meta,
    name: &str,
) -> Result<Option<Manifest>, Failure> {
    let version = meta.metadata.resource_version.clone().unwrap_or_default();
    if let Some((known, manifest)) = &remembered.manifest
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
        ctx.schemas.note(subject.uid, |remembered| {
            remembered.manifest = Some((version, manifest));
        });
    }
    Ok(manifest)
}

/// What Composio offers: asked once for each sync.
async fn ask_composio(
    ctx: &Context,
    owner: &Owner,
    subject: &Subject<'_>,
    now: Timestamp,
) -> Result<(Arc<Connection<Owner>>, Sync), Failure> {
    let asked = (
        subject.generation,
        subject.requested_at.as_deref().map(str::to_owned),
    );
    let reference = subject.spec.api_key_secret_ref.as_ref();
    let request = subject.open_request().map(|token| (subject.uid, token));
    let connection = connect(ctx, &owner.namespace, reference, request).await?;
    let under_way = ctx.schemas.recall(subject.uid).sync;
    let is_fresh = |sync: &Sync| sync.asked == asked && until(now, sync.started_at) < CATALOGUE_FRESH_FOR;
    if let Some(sync) = under_way.filter(is_fresh) {
        return Ok((connection, sync));
    }
    let (catalogue, api_calls) = discover(&connection, subject).await?;
    let sync = Sync {
        asked,
        started_at: now,
        catalogue,
        failed: BTreeMap::new(),
        api_calls,
    };
    ctx.schemas
        .note(subject.uid, |remembered| remembered.sync = Some(sync.clone()));
    Ok((connection, sync))
}

async fn discover(
    connection: &Connection<Owner>,
    subject: &Subject<'_>,
) -> Result<(Catalogue, u64), Failure> {
    let client = &connection.client;
    let configured = async {
        if subject.spec.toolkits.discover != Discovery::AuthConfigs {
            return Ok(None);
        }
        client.list_all_auth_configs(Priority::Background).await.map(Some)
    };
    let (listing, configs) = futures::try_join!(client.list_toolkits(Priority::Background), configured)
        .map_err(|error| refused(&error))?;
    if listing
        .promised
        .is_some_and(|promised| promised > listing.items.len())
        || !listing.is_complete()
    {
        return Err(Failure::transient(
            Reason::IncompleteAnswer,
            format!(
                "Composio listed {} of {} toolkits; nothing is changed",
                listing.items.len(),
                listing
                    .promised
                    .unwrap_or(listing.items.len() + listing.skipped.len())
            ),
        ));
    }
    // No project is without toolkits: this is no news but a failure.
    if listing.items.is_empty() {
        return Err(Failure::transient(
            Reason::EmptyAnswer,
            "Composio lists no toolkit at all; nothing is changed",
        ));
    }
    let mut calls = listing.pages + configs.as_ref().map_or(0, |configs| configs.pages);
    let toolkits = listing.items.into_iter().map(|toolkit| {
        let listed = Listed {
            version: toolkit.version,
            updated_at: toolkit.updated_at,
            no_auth: toolkit.no_auth,
            tools: toolkit.tools_count,
        };
        (toolkit.slug, listed)
    });
    let mut catalogue = Catalogue {
        toolkits: toolkits.collect(),
        configured: configs.map(|configs| {
            let slugs = configs
                .items
                .into_iter()
                .map(|config| config.toolkit.to_lowercase());
            slugs.filter(|slug| !slug.is_empty()).collect::<BTreeSet<_>>()
        }),
    };
    // The list need not show every toolkit that can be asked for.
    let named = subject
        .spec
        .toolkits
        .include
        .iter()
        .chain(catalogue.configured.iter().flatten());
    let unlisted: BTreeSet<String> = named
        .filter(|slug| !catalogue.toolkits.contains_key(*slug))
        .cloned()
        .collect();
    for slug in unlisted {
        calls += 1;
        let detail = client.toolkit(Priority::Background, &slug, None).await;
        if let Some(detail) = detail.map_err(|error| refused(&error))? {
            catalogue.toolkits.insert(slug, listed(&detail));
        }
    }
    Ok((catalogue, calls as u64))
}

fn listed(detail: &ToolkitDetail) -> Listed {
    Listed {
        version: detail.version.clone(),
        updated_at: detail.updated_at.clone(),
        no_auth: !detail.auth_modes.is_empty() && detail.auth_modes.iter().all(|mode| mode == "NO_AUTH"),
        tools: None,
    }
}

fn refused(error: &composio::Error) -> Failure {
    Failure::from_composio(error, Reason::RequestRefused)
}
