//! What a decision needs to know: plain data, gathered by `observe.rs`, judged by `plan.rs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::plan::Step;
use super::status::Acted;
use crate::api::composio_schema_cache::{
    ComposioSchemaCache, ComposioSchemaCacheSpec, ComposioSchemaCacheStatus,
};
use crate::api::{RetryStatus, request_token};
use crate::controllers::failure::Failure;
use crate::controllers::retry;
use crate::schemas::manifest::Manifest;
use crate::schemas::record::Record;
use crate::schemas::{FORMAT, sha256_hex};

/// The object itself, reduced to what decisions read.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Token of the request annotation.
    pub requested_at: Option<Cow<'a, str>>,
    /// What is asked for.
    pub spec: &'a ComposioSchemaCacheSpec,
    /// What was known after the last pass.
    pub status: &'a ComposioSchemaCacheStatus,
}

static NO_STATUS: std::sync::LazyLock<ComposioSchemaCacheStatus> = std::sync::LazyLock::new(Default::default);

impl<'a> From<&'a ComposioSchemaCache> for Subject<'a> {
    fn from(object: &'a ComposioSchemaCache) -> Self {
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default(),
            uid: object.metadata.uid.as_deref().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            requested_at: request_token(object),
            spec: &object.spec,
            status: object.status.as_ref().unwrap_or(&NO_STATUS),
        }
    }
}

impl Subject<'_> {
    /// A request token that was not acted on yet.
    pub fn open_request(&self) -> Option<&str> {
        self.requested_at
            .as_deref()
            .filter(|token| self.status.last_handled_request_at.as_deref() != Some(token))
    }

    /// The failure on record, as long as spec and request are the ones it happened with.
    pub fn standing_failure(&self) -> Option<&RetryStatus> {
        let unchanged =
            self.open_request().is_none() && self.status.observed_generation == Some(self.generation);
        self.status.retry.as_ref().filter(|_| unchanged)
    }

    /// Seed for jitter: the same for the same object.
    pub fn seed(&self) -> u64 {
        retry::seed(self.uid)
    }

    /// Hash of what shapes a toolkit's content, whichever toolkit it is.
    pub fn settings(&self) -> String {
        let spec = self.spec;
        let text = format!(
            "{FORMAT} {} {:?} {:?}",
            spec.include_deprecated, spec.output.encoding, spec.output.labels
        );
        sha256_hex([text.as_bytes()])[..16].to_owned()
    }
}

/// The remote and local facts of one pass.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Why the observation is incomplete.
    pub failure: Option<Failure>,
    /// When everything was last found or brought up to date. None: not since the operator started.
    pub checked_at: Option<Timestamp>,
    /// When a repair last began. None: not since the operator started.
    pub repaired_at: Option<Timestamp>,
    /// Every ConfigMap of this cache but the manifest.
    pub held: Vec<Held>,
    /// The manifest; None if there is none, or it was damaged.
    pub manifest: Option<Manifest>,
    /// There is a ConfigMap for the manifest, damaged or not.
    pub manifest_exists: bool,
    /// The manifest's ConfigMap was written with the settings that hold now; labels are among them.
    pub manifest_is_labelled: bool,
    /// What Composio offers. None: not asked, because no sync is due.
    pub catalogue: Option<Catalogue>,
    /// Toolkits that failed in the sync under way.
    pub failed: BTreeMap<String, Failure>,
}

impl Observed {
    /// What is known after `step`, which came out as `acted`, without another look: nobody but this cache writes its
    /// ConfigMaps, and the watch tells if somebody did. None: look again. Of a toolkit that
    /// failed, some parts may be written and others not.
    pub fn after(mut self, step: &Step, acted: &Acted) -> Option<Self> {
        match (step, acted) {
            (Step::Begin, Acted::Done) => {}
            (
                Step::Fetch { .. },
                Acted::Fetched {
                    written,
                    failed,
                    stopped: None,
                    ..
                },
            ) if failed.is_empty() => {
                let is_old = |held: &Held| written.iter().any(|new| new.name == held.name);
                self.held.retain(|held| !is_old(held));
                self.held.extend(written.iter().cloned());
                // As a list would be: in what order they were done is no matter.
                self.held.sort_by(|a, b| a.name.cmp(&b.name));
            }
            (Step::WriteManifest(manifest), Acted::Done) => {
                self.manifest = Some(manifest.clone());
                self.manifest_exists = true;
                self.manifest_is_labelled = true;
            }
            (Step::Delete { names }, Acted::Done) => {
                self.held.retain(|held| !names.contains(&held.name));
            }
            _ => return None,
        }
        Some(self)
    }
}

/// A ConfigMap of this cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// What its annotations tell; None for a continuation, and where they were edited beyond use.
    pub record: Option<Record>,
    /// Hash of the tools that it holds a part of, as its annotations tell.
    pub sha256: Option<String>,
    /// Its content, labels or annotations are not what was written.
    pub damaged: bool,
    /// It is about to be deleted, and something else holds it back.
    pub terminating: bool,
}

/// What Composio offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Every toolkit, by slug.
    pub toolkits: BTreeMap<String, Listed>,
    /// Toolkits with an enabled auth config. None: not asked.
    pub configured: Option<BTreeSet<String>>,
}

/// A toolkit of the catalogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Its latest version.
    pub version: Option<String>,
    /// When it was last updated, for comparison only.
    pub updated_at: Option<String>,
    /// It needs no account.
    pub no_auth: bool,
    /// How many tools it says it has.
    pub tools: Option<u64>,
}
