//! I/O out: takes one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::config_maps::{ConfigMaps, Role};
use super::failure_run::FailureRun;
use super::observed::{CachedConfigMap, Observed, View};
use super::plan::{DesiredToolkit, Step};
use super::reading::{Answer, Reader};
use super::status::Effect;
use super::sync_state::SyncStates;
use crate::api::Reason;
use crate::api::composio_schema_cache::{ComposioSchemaCacheSpec, EncodingPolicy};
use crate::api::conditions::whole_seconds;
use crate::composio::{Client, Connection, ToolkitDetail};
use crate::runtime::failure::Failure;
use crate::runtime::wake_ups::ObjectKey;
use crate::schemas::drift::Drift;
use crate::schemas::manifest::{MANIFEST_KEY, Manifest};
use crate::schemas::names;
use crate::schemas::pack::{Packed, Part, ToolkitFacts, checksum, pack, tools_text, unpack};
use crate::schemas::record::{CONTENT, Record, SETTINGS, TOOLKIT};
use crate::schemas::tool::CachedTool;

/// Toolkits that are read at the same time: an answer takes much longer than what is done with it.
const READS: usize = 8;

/// Toolkits that are packed and written at the same time, while others are read.
const WRITES: usize = 2;

/// Toolkits that are in hand at the same time: where writing is slow, two wait for it, and then reading waits.
const IN_HAND: usize = READS + WRITES + 2;

/// After this time no further toolkit is begun, so that status can tell how far the sync has come.
const TIME_SLICE: Duration = Duration::from_secs(10);

/// Takes one step. Toolkits that are not read within `limit` have failed.
pub async fn act(
    states: &SyncStates,
    config_maps: &ConfigMaps<'_>,
    view: &View<'_>,
    observed: &Observed,
    step: &Step,
    connection: Option<&Connection<ObjectKey>>,
    limit: Duration,
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
                limit,
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
    let settings = BTreeMap::from([(SETTINGS.to_owned(), view.selection())]);
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
    read: BTreeSet<String>,
    written: Vec<CachedConfigMap>,
    failed: BTreeMap<String, Failure>,
    run: FailureRun,
    /// Why no further toolkit is begun.
    stopped: Option<Failure>,
}

impl Tally {
    fn count(&mut self, desired: &DesiredToolkit, stored: Result<Stored, Failure>) {
        let failure = match stored {
            Ok(stored) => {
                self.run.succeeded();
                self.written.extend(stored.written);
                self.read.insert(desired.slug.clone());
                stored.shortage
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else { return };
        if self.run.concerns_all(&failure) {
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

/// What became of a toolkit.
struct Stored {
    /// Its ConfigMaps, if they were written.
    written: Vec<CachedConfigMap>,
    /// Why it is not all that there is.
    shortage: Option<Failure>,
}

struct Fetcher<'a> {
    states: &'a SyncStates,
    config_maps: &'a ConfigMaps<'a>,
    view: &'a View<'a>,
    observed: &'a Observed,
    client: &'a Client,
    limit: Duration,
}

impl Fetcher<'_> {
    /// Reads toolkits side by side and writes each as soon as it is there, until all are done or the time is up.
    async fn fetch(&self, toolkits: &[DesiredToolkit]) -> Result<Effect, Failure> {
        let started = Instant::now();
        let reader = Reader {
            client: self.client,
            include_deprecated: self.view.spec.include_deprecated,
            deadline: (started + self.limit).into(),
            api_calls: AtomicU64::default(),
        };
        let slice = TIME_SLICE.min(self.limit / 2);
        let tally = Mutex::new(Tally::default());
        let (reads, writes) = (Semaphore::new(READS), Semaphore::new(WRITES));
        let (reader, tally, reads, writes) = (&reader, &tally, &reads, &writes);
        let is_over = || started.elapsed() >= slice || lock(tally).stopped.is_some();
        stream::iter(toolkits.to_vec())
            .for_each_concurrent(IN_HAND, |desired| async move {
                let answer = {
                    let _slot = reads.acquire().await;
                    if is_over() {
                        return;
                    }
                    reader.read(&desired).await
                };
                let _slot = writes.acquire().await;
                let stored = self.store(&desired, answer).await;
                lock(tally).count(&desired, stored);
            })
            .await;
        let tally = std::mem::take(&mut *lock(tally));
        let api_calls = reader.api_calls.load(Ordering::Relaxed);
        self.states.update(self.view.uid, |state| {
            if let Some(sync) = &mut state.sync {
                sync.api_calls += api_calls;
                sync.failed.extend(tally.failed.clone());
                sync.read.extend(tally.read.iter().cloned());
            }
        });
        if let Some(failure) = tally.stopped {
            return Err(failure);
        }
        let is_tried = |desired: &DesiredToolkit| {
            tally.read.contains(&desired.slug) || tally.failed.contains_key(&desired.slug)
        };
        Ok(Effect::Fetched {
            is_partial: !toolkits.iter().all(is_tried),
            done: tally
                .read
                .iter()
                .filter(|slug| !tally.failed.contains_key(*slug))
                .count(),
            written: tally.written,
            read: tally.read,
            failed: tally.failed,
            api_calls,
        })
    }

    async fn store(
        &self,
        desired: &DesiredToolkit,
        answer: Result<Answer, Failure>,
    ) -> Result<Stored, Failure> {
        let answer = answer?;
        let shortage = answer.shortage();
        let packed = self.pack(desired, answer).await?;
        Ok(Stored {
            written: self.write(desired, packed).await?,
            shortage,
        })
    }

    /// Off the runtime's threads: a large toolkit takes a while.
    async fn pack(&self, desired: &DesiredToolkit, answer: Answer) -> Result<Packed, Failure> {
        let ComposioSchemaCacheSpec { output, .. } = self.view.spec;
        let (prefix, policy): (String, EncodingPolicy) = (output.name_prefix.clone(), output.encoding);
        let kept = self.kept(desired, &answer).await;
        let Answer {
            detail,
            tools,
            missing,
        } = answer;
        let facts = facts(desired, detail, missing);
        let packed = tokio::task::spawn_blocking(move || {
            let mut tools: Vec<CachedTool> = tools.iter().map(CachedTool::new).collect();
            let read: BTreeSet<String> = tools.iter().map(|tool| tool.slug.clone()).collect();
            tools.extend(kept.into_iter().filter(|tool| !read.contains(&tool.slug)));
            pack(&prefix, facts, tools, policy)
        });
        packed.await.map_err(|_| {
            Failure::stalled(
                Reason::InvalidResponse,
                format!("the tools of {} cannot be packed", desired.slug),
            )
        })
    }

    /// What is cached of a toolkit of which not every tool could be read: what Composio did not deliver may be among it.
    async fn kept(&self, desired: &DesiredToolkit, answer: &Answer) -> Vec<CachedTool> {
        let Some(known) = self.known(desired).filter(|_| answer.missing > 0) else {
            return Vec::new();
        };
        let fits = |tool: &Value| {
            (self.view.spec.include_deprecated || tool["isDeprecated"] != true)
                && (!desired.is_pinned || tool["version"].as_str() == desired.version.as_deref())
        };
        let tools = self.cached_tools(known).await.unwrap_or_default();
        let tools = tools.iter().filter(|tool| fits(tool));
        tools.filter_map(CachedTool::from_json).collect()
    }

    fn known(&self, desired: &DesiredToolkit) -> Option<&Record> {
        let records = self
            .observed
            .cached
            .iter()
            .filter_map(|cached| cached.record.as_ref());
        records.into_iter().find(|record| record.toolkit == desired.slug)
    }

    /// The tools that are cached; None if they cannot be read any more.
    async fn cached_tools(&self, known: &Record) -> Option<Vec<Value>> {
        let mut tools: Vec<Value> = Vec::with_capacity(known.tools);
        for name in &known.config_maps {
            let (_, part) = self.config_maps.read(name).await.ok()??;
            tools.extend(unpack(&part).ok()?);
        }
        Some(tools)
    }

    /// Returns the ConfigMaps that were written.
    async fn write(&self, desired: &DesiredToolkit, packed: Packed) -> Result<Vec<CachedConfigMap>, Failure> {
        let known = self.known(desired);
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
            missing_tools: document.facts.missing_tools,
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
            if self.is_written(part, &annotations) {
                continue;
            }
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

    /// Whether that very content is there.
    fn is_written(&self, part: &Part, annotations: &BTreeMap<String, String>) -> bool {
        let cached = self
            .observed
            .cached
            .iter()
            .find(|cached| cached.name == part.name);
        cached.is_some_and(|cached| !cached.damaged && !cached.terminating)
            && self.observed.checksums.get(&part.name) == Some(&checksum(part, annotations))
    }

    /// What changed since the cached version; None if that cannot be read any more.
    async fn drift(&self, known: &Record, packed: &Packed) -> Option<Drift> {
        let mut before = Vec::with_capacity(known.config_maps.len());
        for name in &known.config_maps {
            before.push(self.config_maps.read(name).await.ok()??.1);
        }
        let (parts, includes_deprecated) = (packed.parts.clone(), self.view.spec.include_deprecated);
        let comparison = tokio::task::spawn_blocking(move || {
            let texts = |parts: &[Part]| -> Option<Vec<String>> {
                let text = |part| Some(tools_text(part).ok()?.into_owned());
                parts.iter().map(text).collect()
            };
            Drift::between(&texts(&before)?, &texts(&parts)?, includes_deprecated).ok()
        });
        comparison.await.ok()?
    }
}

fn facts(desired: &DesiredToolkit, detail: ToolkitDetail, missing_tools: usize) -> ToolkitFacts {
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
        missing_tools,
    }
}
