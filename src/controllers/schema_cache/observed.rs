//! The facts that a decision needs: plain data, gathered by `observe.rs` and read by `plan`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::plan::Step;
use super::status::{Cost, Effect};
use crate::api::ComposioSchemaCache;
use crate::digest::sha256_hex;
use crate::runtime;
use crate::runtime::failure::Failure;
use crate::schemas::FORMAT;
use crate::schemas::manifest::Manifest;
use crate::schemas::record::Record;

/// What a decision sees of the object.
pub type View<'a> = runtime::view::View<'a, ComposioSchemaCache>;

impl View<'_> {
    /// Hash of what shapes a toolkit's content, whichever toolkit it is.
    pub fn settings(&self) -> String {
        let spec = self.spec;
        let text = format!(
            "{FORMAT} {} {:?} {:?}",
            spec.include_deprecated, spec.output.encoding, spec.output.labels
        );
        sha256_hex([text.as_bytes()])[..16].to_owned()
    }

    /// Hash of that, and of what selects toolkits and versions.
    pub fn selection(&self) -> String {
        let spec = self.spec;
        let text = format!("{} {:?} {:?}", self.settings(), spec.toolkits, spec.versions);
        sha256_hex([text.as_bytes()])[..16].to_owned()
    }
}

/// The facts of one reconcile.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// When everything was last found or brought up to date. None: not since the operator started.
    pub checked_at: Option<Timestamp>,
    /// When a repair last began. None: not since the operator started.
    pub repaired_at: Option<Timestamp>,
    /// Every ConfigMap of this cache but the manifest.
    pub cached: Vec<CachedConfigMap>,
    /// The manifest; None if there is none, or it was damaged.
    pub manifest: Option<Manifest>,
    /// There is a ConfigMap for the manifest, damaged or not.
    pub manifest_exists: bool,
    /// The manifest was written for the selection and the settings that hold now.
    pub manifest_is_of_spec: bool,
    /// The manifest's ConfigMap has the labels that it should have.
    pub manifest_is_labelled: bool,
    /// What Composio offers. None: not asked, because no sync is due.
    pub catalogue: Option<Catalogue>,
    /// Toolkits that failed in the sync under way.
    pub failed: BTreeMap<String, Failure>,
    /// Toolkits that were read in the sync under way.
    pub read: BTreeSet<String>,
    /// The checksum that each ConfigMap of a toolkit tells, by its name.
    pub checksums: BTreeMap<String, String>,
    /// What the sync under way has cost so far.
    pub cost: Cost,
}

impl Observed {
    /// What is known after `step` without observing again: nobody but this cache writes its ConfigMaps, and the watch
    /// tells if somebody did. None: it has to be observed again. Of a toolkit that failed, some parts may be written and
    /// others not.
    pub fn after(mut self, step: &Step, effect: &Effect) -> Option<Self> {
        match (step, effect) {
            (Step::Begin, Effect::Done) => {}
            (
                Step::Fetch { .. },
                Effect::Fetched {
                    written,
                    read,
                    failed,
                    api_calls,
                    ..
                },
            ) if failed.is_empty() => {
                self.read.extend(read.iter().cloned());
                self.cost.api_calls += api_calls;
                let is_old = |cached: &CachedConfigMap| written.iter().any(|new| new.name == cached.name);
                self.cached.retain(|cached| !is_old(cached));
                self.cached.extend(written.iter().cloned());
                // As a list would be: in what order they were done is no matter.
                self.cached.sort_by(|a, b| a.name.cmp(&b.name));
            }
            (Step::WriteManifest(manifest), Effect::Done) => {
                self.manifest = Some(manifest.clone());
                self.manifest_exists = true;
                self.manifest_is_of_spec = true;
                self.manifest_is_labelled = true;
            }
            (Step::Delete { names }, Effect::Done) => {
                self.cached.retain(|cached| !names.contains(&cached.name));
            }
            _ => return None,
        }
        Some(self)
    }
}

/// A ConfigMap of this cache.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedConfigMap {
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
    pub toolkits: BTreeMap<String, CatalogueEntry>,
    /// Toolkits with an enabled auth config. None: not asked.
    pub configured: Option<BTreeSet<String>>,
    /// How many toolkits Composio counts beside these: with any of them, a toolkit's absence proves nothing.
    pub missing_toolkits: usize,
    /// How many auth configs Composio counts beside those that could be read.
    pub missing_auth_configs: usize,
}

/// A toolkit of the catalogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogueEntry {
    /// Its latest version.
    pub version: Option<String>,
    /// When it was last updated, for comparison only.
    pub updated_at: Option<String>,
    /// It needs no account.
    pub no_auth: bool,
    /// How many tools it says it has, deprecated ones included.
    pub tools: Option<u64>,
}
