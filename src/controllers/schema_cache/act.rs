//! I/O out: runs one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::config_maps::{ConfigMaps, Role};
use super::observed::{Held, Observed, Subject};
use super::plan::{Step, Wanted};
use super::status::Acted;
use crate::api::composio_schema_cache::{ComposioSchemaCacheSpec, EncodingPolicy};
use crate::api::conditions::whole_seconds;
use crate::composio::{Client, Connection, Priority, Tool, ToolQuery, ToolkitDetail};
use crate::controllers::context::{Context, Owner};
use crate::controllers::failure::{Class, Failure, Reason};
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

/// Runs one step.
pub async fn act(
    ctx: &Context,
    config_maps: &ConfigMaps<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    step: &Step,
    connection: Option<&Connection<Owner>>,
) -> Acted {
    match step {
        Step::Begin => Acted::Done,
        Step::Fetch { toolkits } => match connection {
            Some(connection) => {
                fetch(ctx, config_maps, subject, observed, toolkits, &connection.client).await
            }
            None => Acted::Failed(Failure::transient(
                Reason::ApiKeyNotFound,
                "the API key went away",
            )),
        },
        Step::WriteManifest(manifest) => write_manifest(ctx, config_maps, subject, observed, manifest).await,
        Step::Delete { names } => {
            for name in names {
                if let Err(error) = config_maps.delete_named(name).await {
                    return Acted::Failed(Failure::from(&error));
                }
                ctx.schemas
                    .note(subject.uid, |remembered| remembered.sound.remove(name));
            }
            Acted::Done
        }
    }
}

async fn write_manifest(
    ctx: &Context,
    config_maps: &ConfigMaps<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    manifest: &Manifest,
) -> Acted {
    let part = Part {
        name: names::manifest(&subject.spec.output.name_prefix),
        data: BTreeMap::from([(MANIFEST_KEY.to_owned(), manifest.to_text())]),
        ..Part::default()
    };
    match config_maps
        .write(
            Role::Manifest,
            None,
            &part,
            observed.manifest_exists,
            BTreeMap::from([(SETTINGS.to_owned(), subject.settings())]),
        )
        .await
    {
        Ok(version) => {
            let known = version.map(|version| (version, manifest.clone()));
            ctx.schemas
                .note(subject.uid, |remembered| remembered.manifest = known);
            Acted::Done
        }
        Err(failure) => Acted::Failed(failure),
    }
}

/// Reads toolkits side by side and writes each as soon as it is there, until all are done or the time is up.
async fn fetch(
    ctx: &Context,
    config_maps: &ConfigMaps<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    toolkits: &[Wanted],
    client: &Client,
) -> Acted {
    let started = Instant::now();
    let fetcher = Fetcher {
        ctx,
        config_maps,
        subject,
        observed,
        client,
    };
    let tally = Mutex::new(Tally::default());
    let (reads, writes) = (Semaphore::new(READS), Semaphore::new(WRITES));
    let (fetcher, tally, reads, writes) = (&fetcher, &tally, &reads, &writes);
    let is_over = || started.elapsed() >= TIME_SLICE || lock(tally).stopped.is_some();
    stream::iter(toolkits.to_vec())
        .for_each_concurrent(IN_HAND, |wanted| async move {
            let answer = {
                let _slot = reads.acquire().await;
                if is_over() {
                    return;
                }
                fetcher.ask(&wanted).await
            };
            let _slot = writes.acquire().await;
            let stored = fetcher.store(&wanted, answer).await;
            lock(tally).count(&wanted, stored);
        })
        .await;
    std::mem::take(&mut *lock(tally)).acted()
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of the toolkits so far.
#[derive(Default)]
struct Tally {
    done: usize,
    written: Vec<Held>,
    failed: BTreeMap<String, Failure>,
    /// Failures in a row because Composio is down.
    outages: u32,
    /// Why no further toolkit is begun.
    stopped: Option<Failure>,
}

impl Tally {
    fn count(&mut self, wanted: &Wanted, stored: Result<Vec<Held>, Failure>) {
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
        if concerns_all(&failure) || self.outages >= MAX_OUTAGES {
            self.stopped = Some(failure);
            return;
        }
        tracing::warn!(
            toolkit = wanted.slug,
            reason = failure.reason.as_str(),
            failure.message,
            "toolkit not updated"
        );
        self.failed.insert(wanted.slug.clone(), failure);
    }

    fn acted(self) -> Acted {
        Acted::Fetched {
            done: self.done,
            written: self.written,
            failed: self.failed,
            stopped: self.stopped,
        }
    }
}

/// Whether the next toolkit would fail in the same way.
fn concerns_all(failure: &Failure) -> bool {
    match failure.reason {
        Reason::RateLimited | Reason::ApiKeyRejected | Reason::ApiKeyForbidden => true,
        // A quota or a missing permission; anything else may be about one ConfigMap.
        Reason::KubernetesApi => failure.class == Class::Waiting,
        _ => false,
    }
}

struct Fetcher<'a> {
    ctx: &'a Context,
    config_maps: &'a ConfigMaps<'a>,
    subject: &'a Subject<'a>,
    observed: &'a Observed,
    client: &'a Client,
}

/// What Composio says of a toolkit.
type Answer = (ToolkitDetail, Vec<Tool>);

impl Fetcher<'_> {
    async fn ask(&self, wanted: &Wanted) -> Result<Answer, Failure> {
        let query = ToolQuery {
            toolkit: wanted.slug.clone(),
            version: wanted.version.clone(),
            include_deprecated: self.subject.spec.include_deprecated,
        };
        let (detail, tools) = futures::try_join!(
            self.client
                .toolkit(Priority::Background, &wanted.slug, wanted.version.as_deref()),
            self.client.list_tools(Priority::Background, &query),
        )
        .map_err(|error| Failure::from_composio(&error, Reason::RequestRefused))?;
        let pages = tools.pages as u64 + 1;
        self.ctx.schemas.note(self.subject.uid, |remembered| {
            if let Some(sync) = &mut remembered.sync {
                sync.api_calls += pages;
            }
        });
        let detail = detail.ok_or_else(|| unknown(self.subject, wanted))?;
        let missing = tools
            .promised
            .unwrap_or_default()
            .saturating_sub(tools.items.len());
        if missing > 0 || !tools.is_complete() {
            return Err(Failure::transient(
                Reason::IncompleteAnswer,
                format!(
                    "Composio gave {} tools and said that there are {}",
                    tools.items.len(),
                    tools.items.len() + missing.max(tools.skipped.len())
                ),
            ));
        }
        if tools.items.is_empty() && wanted.has_tools {
            return Err(Failure::transient(
                Reason::EmptyAnswer,
                "Composio listed no tools where there were some; what was cached stays",
            ));
        }
        Ok((detail, tools.items))
    }

    async fn store(&self, wanted: &Wanted, answer: Result<Answer, Failure>) -> Result<Vec<Held>, Failure> {
        let (detail, tools) = answer?;
        let packed = self.pack(wanted, detail, tools).await?;
        self.write(wanted, packed).await
    }

    /// Off the runtime's threads: a large toolkit takes a while.
    async fn pack(
        &self,
        wanted: &Wanted,
        detail: ToolkitDetail,
        tools: Vec<Tool>,
    ) -> Result<Packed, Failure> {
        let ComposioSchemaCacheSpec { output, .. } = self.subject.spec;
        let (prefix, policy): (String, EncodingPolicy) = (output.name_prefix.clone(), output.encoding);
        let facts = facts(wanted, detail);
        let packed = tokio::task::spawn_blocking(move || {
            let tools = tools.into_iter().map(|tool| CachedTool::new(&tool)).collect();
            pack(&prefix, facts, tools, policy)
        });
        packed.await.map_err(|_| {
            Failure::stalled(
                Reason::ComposioAnswerUnreadable,
                format!("the tools of {} cannot be packed", wanted.slug),
            )
        })
    }

    /// Returns the ConfigMaps that were written.
    async fn write(&self, wanted: &Wanted, packed: Packed) -> Result<Vec<Held>, Failure> {
        let known = self
            .observed
            .held
            .iter()
            .filter_map(|held| held.record.as_ref())
            .find(|record| record.toolkit == wanted.slug);
        let document = &packed.document;
        let has_changed = known.is_none_or(|known| known.sha256 != document.sha256);
        // What somebody edited or restored is put right, and is no news.
        let manifest = self.observed.manifest.as_ref();
        let told = manifest
            .and_then(|manifest| manifest.entry(&wanted.slug))
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
            toolkit: wanted.slug.clone(),
            version: wanted.version.clone(),
            updated_at: wanted.updated_at.clone(),
            settings: self.subject.settings(),
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
            (TOOLKIT.to_owned(), wanted.slug.clone()),
            (CONTENT.to_owned(), document.sha256.clone()),
        ]);
        let mut written = Vec::with_capacity(packed.parts.len());
        // The toolkit's own ConfigMap last: it names the others.
        for (index, part) in packed.parts.iter().enumerate().rev() {
            let (role, annotations) = match index {
                0 => (Role::Toolkit, record.annotations()),
                _ => (Role::Continuation, continuation.clone()),
            };
            let seen = self.observed.held.iter().any(|held| held.name == part.name);
            written.push(Held {
                name: part.name.clone(),
                record: Record::read(&annotations),
                sha256: Some(document.sha256.clone()),
                damaged: false,
                terminating: false,
            });
            let version = self
                .config_maps
                .write(role, Some(&wanted.slug), part, seen, annotations)
                .await?;
            self.ctx
                .schemas
                .note(self.subject.uid, |remembered| match version {
                    Some(version) => remembered.sound.insert(part.name.clone(), version),
                    None => remembered.sound.remove(&part.name),
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

fn unknown(subject: &Subject<'_>, wanted: &Wanted) -> Failure {
    let slug = &wanted.slug;
    let what = match (&wanted.version, subject.spec.versions.contains_key(slug)) {
        (Some(version), true) => format!("no version {version} of toolkit {slug}; correct spec.versions"),
        (Some(version), false) => {
            return Failure::transient(
                Reason::IncompleteAnswer,
                format!("Composio lists version {version} of toolkit {slug} and does not deliver it"),
            );
        }
        (None, _) => format!("no toolkit {slug}; correct spec.toolkits"),
    };
    Failure::stalled(Reason::ToolkitNotFound, format!("Composio knows {what}"))
}

fn facts(wanted: &Wanted, detail: ToolkitDetail) -> ToolkitFacts {
    let sorted = |values: Vec<String>| values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    ToolkitFacts {
        slug: wanted.slug.clone(),
        name: detail.name,
        description: detail.description,
        logo: detail.logo,
        app_url: detail.app_url,
        version: wanted.version.clone().or(detail.version),
        auth_modes: sorted(detail.auth_modes),
        categories: sorted(detail.categories),
    }
}
