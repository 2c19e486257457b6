//! I/O out: takes one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::config_maps::{ConfigMaps, Role};
use super::observed::{CachedConfigMap, Observed, View};
use super::plan::{DesiredToolkit, Step};
use super::status::Effect;
use super::sync_state::SyncStates;
use crate::api::Reason;
use crate::api::composio_schema_cache::{ComposioSchemaCacheSpec, EncodingPolicy};
use crate::api::conditions::whole_seconds;
use crate::composio::{Client, Connection, Priority, Tool, ToolQuery, ToolkitDetail};
use crate::controllers::access::composio_failure;
use crate::runtime::failure::{Failure, Scope};
use crate::runtime::wake_ups::ObjectKey;
use crate::schemas::drift::Drift;
use crate::schemas::manifest::{MANIFEST_KEY, Manifest};
use crate::schemas::names;
use crate::schemas::pack::{Packed, Part, ToolkitFacts, pack, unpack};
use crate::schemas::record::{CONTENT, Record, SETTINGS, TOOLKIT};
use crate::schemas::tool::CachedTool;

/// Toolkits that are read at the same time. More would be done sooner, and hold more in memory: a refresh has hours.
const READS: usize = 2;

/// Toolkits that are packed and written at the same time, while others are read.
const WRITES: usize = 2;

/// Toolkits that are in hand at the same time: where writing is slow, two wait for it, and then reading waits.
const IN_HAND: usize = READS + WRITES + 2;

/// After this time no further toolkit is begun, so that status can tell how far the sync has come.
const TIME_SLICE: Duration = Duration::from_secs(10);

/// Toolkits in a row that fail because Composio is down, before the rest are left for later.
const MAX_OUTAGES: u32 = 5;

/// Takes one step.
pub async fn act(
    states: &SyncStates,
    config_maps: &ConfigMaps<'_>,
    view: &View<'_>,
    observed: &Observed,
    step: &Step,
    connection: Option<&Connection<ObjectKey>>,
) -> Result<Effect, Failure> {
    match step {
        Step::Begin => Ok(Effect::Done),
        Step::Fetch { toolkits } => {
            // Without a catalogue, which came through it, there is nothing to fetch.
            let Some(connection) = connection else {
                return Err(Failure::transient(
                    Reason::ApiKeyNotFound,
                    "the API key went away",
                ));
            };
            let fetcher = Fetcher {
                states,
                config_maps,
                view,
                observed,
                client: &connection.client,
            };
            fetcher.fetch(toolkits).await
        }
        Step::WriteManifest(manifest) => write_manifest(states, config_maps, view, observed, manifest).await,
        Step::Delete { names } => {
            for name in names {
                let deleted = config_maps.delete(name).await;
                deleted.map_err(|error| Failure::from(&error))?;
                states.update(view.uid, |state| state.intact.remove(name));
            }
            Ok(Effect::Done)
        }
    }
}

async fn write_manifest(
    states: &SyncStates,
    config_maps: &ConfigMaps<'_>,
    view: &View<'_>,
    observed: &Observed,
    manifest: &Manifest,
) -> Result<Effect, Failure> {
    let part = Part {
        name: names::manifest(&view.spec.output.name_prefix),
        data: BTreeMap::from([(MANIFEST_KEY.to_owned(), manifest.to_text())]),
        ..Part::default()
    };
    let settings = BTreeMap::from([(SETTINGS.to_owned(), view.settings())]);
    let version = config_maps
        .write(Role::Manifest, None, &part, observed.manifest_exists, settings)
        .await?;
    let known = version.map(|version| (version, manifest.clone()));
    states.update(view.uid, |state| state.manifest = known);
    Ok(Effect::Done)
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of the toolkits so far.
#[derive(Default)]
struct Tally {
    done: usize,
    written: Vec<CachedConfigMap>,
    failed: BTreeMap<String, Failure>,
    /// Calls of the Composio API.
    api_calls: u64,
    /// Failures in a row because Composio is down.
    outages: u32,
    /// Why no further toolkit is begun.
    stopped: Option<Failure>,
}

impl Tally {
    fn count(&mut self, desired: &DesiredToolkit, stored: Result<Vec<CachedConfigMap>, Failure>) {
        let failure = match stored {
            Ok(written) => {
                self.written.extend(written);
                (self.done, self.outages) = (self.done + 1, 0);
                return;
            }
            Err(failure) => failure,
        };
        self.outages = if failure.reason == Reason::ComposioUnavailable {
            self.outages + 1
        } else {
            0
        };
        if failure.scope > Scope::Object || self.outages >= MAX_OUTAGES {
            self.stopped = Some(failure);
            return;
        }
        tracing::warn!(
            toolkit = desired.slug,
            reason = failure.reason.as_str(),
            failure.message,
            "toolkit not updated"
        );
        self.failed.insert(desired.slug.clone(), failure);
    }
}

struct Fetcher<'a> {
    states: &'a SyncStates,
    config_maps: &'a ConfigMaps<'a>,
    view: &'a View<'a>,
    observed: &'a Observed,
    client: &'a Client,
}

/// What Composio says of a toolkit.
type Answer = (ToolkitDetail, Vec<Tool>);

impl Fetcher<'_> {
    /// Reads toolkits side by side and writes each as soon as it is there, until all are done or the time is up.
    async fn fetch(&self, toolkits: &[DesiredToolkit]) -> Result<Effect, Failure> {
        let started = Instant::now();
        let tally = Mutex::new(Tally::default());
        let (reads, writes) = (Semaphore::new(READS), Semaphore::new(WRITES));
        let (tally, reads, writes) = (&tally, &reads, &writes);
        let is_over = || started.elapsed() >= TIME_SLICE || lock(tally).stopped.is_some();
        stream::iter(toolkits.to_vec())
            .for_each_concurrent(IN_HAND, |desired| async move {
                let answer = {
                    let _slot = reads.acquire().await;
                    if is_over() {
                        return;
                    }
                    self.ask(&desired, tally).await
                };
                let _slot = writes.acquire().await;
                let stored = self.store(&desired, answer).await;
                lock(tally).count(&desired, stored);
            })
            .await;
        let tally = std::mem::take(&mut *lock(tally));
        self.states.update(self.view.uid, |state| {
            if let Some(sync) = &mut state.sync {
                sync.api_calls += tally.api_calls;
                sync.failed.extend(tally.failed.clone());
            }
        });
        match tally.stopped {
            Some(failure) => Err(failure),
            None => Ok(Effect::Fetched {
                is_partial: tally.done + tally.failed.len() < toolkits.len(),
                done: tally.done,
                written: tally.written,
                failed: tally.failed,
                api_calls: tally.api_calls,
            }),
        }
    }

    async fn ask(&self, desired: &DesiredToolkit, tally: &Mutex<Tally>) -> Result<Answer, Failure> {
        let query = ToolQuery {
            toolkit: desired.slug.clone(),
            version: desired.version.clone(),
            include_deprecated: self.view.spec.include_deprecated,
        };
        let (detail, tools) = futures::try_join!(
            self.client
                .toolkit(Priority::Background, &desired.slug, desired.version.as_deref()),
            self.client.list_tools(Priority::Background, &query),
        )
        .map_err(|error| composio_failure(&error, Reason::RequestRefused))?;
        lock(tally).api_calls += tools.pages as u64 + 1;
        let detail = detail.ok_or_else(|| unknown(self.view, desired))?;
        let missing = tools
            .reported_total
            .unwrap_or_default()
            .saturating_sub(tools.items.len());
        if missing > 0 || !tools.is_complete() {
            return Err(Failure::transient(
                Reason::IncompleteResponse,
                format!(
                    "Composio gave {} tools and said that there are {}",
                    tools.items.len(),
                    tools.items.len() + missing.max(tools.skipped.len())
                ),
            ));
        }
        if tools.items.is_empty() && desired.has_tools {
            return Err(Failure::transient(
                Reason::EmptyResponse,
                "Composio listed no tools where there were some; what was cached stays",
            ));
        }
        Ok((detail, tools.items))
    }

    async fn store(
        &self,
        desired: &DesiredToolkit,
        answer: Result<Answer, Failure>,
    ) -> Result<Vec<CachedConfigMap>, Failure> {
        let (detail, tools) = answer?;
        let packed = self.pack(desired, detail, tools).await?;
        self.write(desired, packed).await
    }

    /// Off the runtime's threads: a large toolkit takes a while.
    async fn pack(
        &self,
        desired: &DesiredToolkit,
        detail: ToolkitDetail,
        tools: Vec<Tool>,
    ) -> Result<Packed, Failure> {
        let ComposioSchemaCacheSpec { output, .. } = self.view.spec;
        let (prefix, policy): (String, EncodingPolicy) = (output.name_prefix.clone(), output.encoding);
        let facts = facts(desired, detail);
        let packed = tokio::task::spawn_blocking(move || {
            let tools = tools.into_iter().map(|tool| CachedTool::new(&tool)).collect();
            pack(&prefix, facts, tools, policy)
        });
        packed.await.map_err(|_| {
            Failure::stalled(
                Reason::InvalidResponse,
                format!("the tools of {} cannot be packed", desired.slug),
            )
        })
    }

    /// Returns the ConfigMaps that were written.
    async fn write(&self, desired: &DesiredToolkit, packed: Packed) -> Result<Vec<CachedConfigMap>, Failure> {
        let known = self
            .observed
            .cached
            .iter()
            .filter_map(|cached| cached.record.as_ref())
            .find(|record| record.toolkit == desired.slug);
        let document = &packed.document;
        let has_changed = known.is_none_or(|known| known.sha256 != document.sha256);
        // What somebody edited or restored is put right, and is no news.
        let manifest = self.observed.manifest.as_ref();
        let told = manifest
            .and_then(|manifest| manifest.entry(&desired.slug))
            .filter(|entry| entry.sha256 == document.sha256);
        let drift = match known {
            Some(known) if has_changed => {
                let drift = self.drift(known, &packed).await;
                let is_news = |drift: &Drift| told.is_none() || !drift.is_empty();
                drift.filter(is_news).or_else(|| told.and(known.drift.clone()))
            }
            Some(known) => known.drift.clone(),
            None => None,
        };
        let record = Record {
            toolkit: desired.slug.clone(),
            version: desired.version.clone(),
            updated_at: desired.updated_at.clone(),
            settings: self.view.settings(),
            tools: document.tools,
            encoding: document.encoding,
            sha256: document.sha256.clone(),
            config_maps: document
                .parts
                .iter()
                .map(|part| part.config_map.clone())
                .collect(),
            omitted_tools: document.omitted_tools.clone(),
            synced_at: match (told, known) {
                (Some(told), _) => told.synced_at,
                (None, Some(known)) if !has_changed => known.synced_at,
                _ => whole_seconds(Timestamp::now()),
            },
            drift,
        };
        let continuation = BTreeMap::from([
            (TOOLKIT.to_owned(), desired.slug.clone()),
            (CONTENT.to_owned(), document.sha256.clone()),
        ]);
        let mut written = Vec::with_capacity(packed.parts.len());
        // The toolkit's own ConfigMap last: it names the others.
        for (index, part) in packed.parts.iter().enumerate().rev() {
            let (role, annotations) = match index {
                0 => (Role::Toolkit, record.annotations()),
                _ => (Role::Continuation, continuation.clone()),
            };
            let seen = self.observed.cached.iter().any(|cached| cached.name == part.name);
            written.push(CachedConfigMap {
                name: part.name.clone(),
                record: Record::read(&annotations),
                sha256: Some(document.sha256.clone()),
                damaged: false,
                terminating: false,
            });
            let version = self
                .config_maps
                .write(role, Some(&desired.slug), part, seen, annotations)
                .await?;
            self.states.update(self.view.uid, |state| match version {
                Some(version) => state.intact.insert(part.name.clone(), version),
                None => state.intact.remove(&part.name),
            });
        }
        Ok(written)
    }

    /// What changed since the cached version; None if that cannot be read any more.
    async fn drift(&self, known: &Record, packed: &Packed) -> Option<Drift> {
        let mut before: Vec<Value> = Vec::with_capacity(known.tools);
        for name in &known.config_maps {
            let (_, part) = self.config_maps.read(name).await.ok()??;
            before.extend(unpack(&part).ok()?);
        }
        let parts = packed.parts.clone();
        let comparison = tokio::task::spawn_blocking(move || {
            let mut after = Vec::new();
            for part in &parts {
                after.extend(unpack(part).ok()?);
            }
            Some(Drift::between(&before, &after))
        });
        comparison.await.ok()?
    }
}

fn unknown(view: &View<'_>, desired: &DesiredToolkit) -> Failure {
    let slug = &desired.slug;
    let what = match (&desired.version, view.spec.versions.contains_key(slug)) {
        (Some(version), true) => {
            format!("version {version} of toolkit {slug} does not exist in Composio; correct spec.versions")
        }
        (Some(version), false) => {
            return Failure::transient(
                Reason::IncompleteResponse,
                format!("Composio lists version {version} of toolkit {slug} and does not deliver it"),
            );
        }
        (None, _) => format!("toolkit {slug} does not exist in Composio; correct spec.toolkits"),
    };
    Failure::stalled(Reason::ToolkitNotFound, what)
}

fn facts(desired: &DesiredToolkit, detail: ToolkitDetail) -> ToolkitFacts {
    let sorted = |values: Vec<String>| values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    ToolkitFacts {
        slug: desired.slug.clone(),
        name: detail.name,
        description: detail.description,
        logo: detail.logo,
        app_url: detail.app_url,
        version: desired.version.clone().or(detail.version),
        auth_modes: sorted(detail.auth_modes),
        categories: sorted(detail.categories),
    }
}
