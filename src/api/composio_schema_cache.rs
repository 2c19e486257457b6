//! `ComposioSchemaCache`: the schemas of all Composio tools in use, in ConfigMaps.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::common::{RetryStatus, SecretKeyRef, UNOBSERVED, managed_fields};

/// Condition: every tool of every wanted toolkit is cached, at the version that is wanted.
pub const COMPLETE: &str = "Complete";

/// Which schemas to keep, and where.
#[allow(clippy::duplicated_attributes, reason = "printer columns are alike")]
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "composio-operator.dev",
    version = "v1alpha1",
    kind = "ComposioSchemaCache",
    namespaced,
    status = "ComposioSchemaCacheStatus",
    derive = "PartialEq",
    shortname = "csc",
    category = "composio",
    doc = "A ComposioSchemaCache keeps the schemas of Composio tools in ConfigMaps: one ConfigMap per toolkit, with a name \
           that a pod can mount, and a manifest that lists them. Unchanged toolkits are not written again; a toolkit that \
           cannot be read keeps its last good ConfigMap.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Toolkits", type_ = "integer", json_path = ".status.toolkits"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.tools"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Changed", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Manifest",
        type_ = "string",
        json_path = ".status.manifest",
        priority = 1
    ),
    printcolumn(
        name = "Complete",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Breaking",
        type_ = "integer",
        json_path = ".status.drift.breaking",
        priority = 1
    )
)]
#[kube(
    validation = Rule::new("self.metadata.name.size() <= 63").message(
        "metadata.name must be no more than 63 characters: it is the value of a label on every ConfigMap"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ComposioSchemaCacheSpec {
    /// Which toolkits are cached.
    #[serde(default)]
    pub toolkits: ToolkitSelection,

    /// Versions to keep to, by toolkit slug, such as `reddit: "20260424_00"`. Every other toolkit is cached at its latest
    /// version. An entry for a toolkit that is not selected has no effect, nor has the value `latest`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, VersionSchema>", extend("maxProperties" = 200))]
    #[x_kube(validation = Rule::new("self.all(slug, slug.matches('^[a-z0-9_-]{1,128}$'))").message("versions: keys are toolkit slugs in lower case, such as github or text_to_pdf"))]
    pub versions: BTreeMap<String, String>,

    /// true caches deprecated tools too.
    #[serde(default)]
    pub include_deprecated: bool,

    /// How often Composio is asked for changes, from 1m to 720h. Up to a tenth is added, differently for each object, so
    /// that many caches do not ask at once.
    #[serde(default = "default_refresh_interval")]
    #[schemars(with = "String", length(max = 32), extend("default" = "6h"))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('720h')").message("refreshInterval must be a duration such as 6h or 1m30s, between 1m and 720h"))]
    pub refresh_interval: Duration,

    /// The ConfigMaps that are written.
    #[serde(default)]
    pub output: OutputSpec,

    /// Secret with the Composio project API key, in this namespace. Absent: the operator's own key, if the installation
    /// shares it with this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,

    /// true stops all work on this object. The ConfigMaps stay as they are.
    #[serde(default)]
    pub suspend: bool,
}

/// Which toolkits are cached: what is discovered and what is included, without what is excluded.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.discover != 'None' || size(self.include) > 0").message(
        "toolkits.include must name a toolkit when toolkits.discover is None: nothing would be cached"
    ),
    validation = Rule::new("!self.include.exists(slug, slug in self.exclude)").message(
        "a toolkit must not be both in toolkits.include and in toolkits.exclude"
    )
)]
pub struct ToolkitSelection {
    /// `AuthConfigs`: toolkits for which the project has an enabled auth config. `All`: the whole catalogue, about a
    /// thousand toolkits. `None`: only those in include.
    #[serde(default)]
    pub discover: Discovery,

    /// Slugs of further toolkits, such as `github`.
    #[serde(default)]
    #[schemars(with = "Vec<SlugSchema>", length(max = 200))]
    pub include: Vec<String>,

    /// Slugs of toolkits that are left out although they are discovered.
    #[serde(default)]
    #[schemars(with = "Vec<SlugSchema>", length(max = 200))]
    pub exclude: Vec<String>,

    /// Whether toolkits that need no account, and so never have an auth config, are discovered too. Without effect when
    /// discover is None.
    #[serde(default = "default_true")]
    pub no_auth: bool,
}

impl Default for ToolkitSelection {
    fn default() -> Self {
        Self {
            discover: Discovery::default(),
            include: Vec::new(),
            exclude: Vec::new(),
            no_auth: true,
        }
    }
}

/// Where toolkits are looked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Discovery {
    /// The enabled auth configs of the project.
    #[default]
    AuthConfigs,
    /// The whole catalogue.
    All,
    /// Nowhere.
    None,
}

/// The ConfigMaps that are written.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSpec {
    /// A toolkit's ConfigMap is called `<namePrefix>-<toolkit>`, with `-` for each `_` of the slug; the manifest is
    /// `<namePrefix>-manifest`. Immutable, because pods mount these names. Two caches in one namespace need different
    /// prefixes.
    #[serde(default = "default_name_prefix")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("output.namePrefix is immutable, because pods mount these names: create another ComposioSchemaCache"))]
    pub name_prefix: String,

    /// Json: key tools.json in data. Gzip: key tools.json.gz in binaryData. Auto: Gzip only for a toolkit whose plain JSON
    /// would not fit into one ConfigMap.
    #[serde(default)]
    pub encoding: EncodingPolicy,

    /// Labels on every ConfigMap, beside those of the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValueSchema>", extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new("self.all(key, size(key) <= 317 && key.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))").message("output.labels: a key is not a valid label key"),
        validation = Rule::new("!self.exists(key, key == 'app.kubernetes.io/managed-by' || key.startsWith('composio-operator.dev/'))").message("output.labels: app.kubernetes.io/managed-by and composio-operator.dev/ belong to the operator")
    )]
    pub labels: BTreeMap<String, String>,
}

impl Default for OutputSpec {
    fn default() -> Self {
        Self {
            name_prefix: default_name_prefix(),
            encoding: EncodingPolicy::default(),
            labels: BTreeMap::new(),
        }
    }
}

/// How schemas are stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum EncodingPolicy {
    /// Plain, and compressed where plain does not fit.
    #[default]
    Auto,
    /// Plain.
    Json,
    /// Compressed.
    Gzip,
}

/// A toolkit's slug, for validation.
#[derive(JsonSchema)]
struct SlugSchema(
    #[allow(dead_code, reason = "read by the derived schema")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-z0-9_-]+$"))]
    String,
);

/// A toolkit's version, for validation.
#[derive(JsonSchema)]
struct VersionSchema(
    #[allow(dead_code, reason = "read by the derived schema")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    String,
);

/// The value of a label, for validation.
#[derive(JsonSchema)]
struct LabelValueSchema(
    #[allow(dead_code, reason = "read by the derived schema")]
    #[schemars(
        length(max = 63),
        regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")
    )]
    String,
);

fn default_true() -> bool {
    true
}

fn default_refresh_interval() -> Duration {
    std::time::Duration::from_hours(6).into()
}

fn default_name_prefix() -> String {
    "schemas".to_owned()
}

/// What is cached. A refresh that finds everything unchanged does not write it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": UNOBSERVED}))]
pub struct ComposioSchemaCacheStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// syncing: schemas are being read for the first time, or for a spec that changed. synced: everything wanted is cached. degraded: something is missing or out of
    /// date, and what could be had is cached. failed: nothing could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CacheState>,

    /// How far a sync under way has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<SyncProgress>,

    /// How many toolkits the manifest lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolkits: Option<i64>,

    /// How many tools the manifest's toolkits have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<i64>,

    /// How long the last sync that changed something took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,

    /// How many calls of the Composio API that sync made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_calls: Option<i64>,

    /// When the last sync that changed something, in the ConfigMaps or in this status, ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,

    /// When the sync after that one is due. Those that find nothing new are not recorded here; they go on every
    /// spec.refreshInterval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_time: Option<Time>,

    /// Name of the ConfigMap with the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,

    /// SHA-256 over all that is cached, in hexadecimal. Changes exactly when a toolkit's content changes, comes or goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,

    /// The toolkits that need attention, at most 20: first those that failed, then those that changed in the last sync.
    /// All toolkits are in the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub toolkit_statuses: Vec<ToolkitStatus>,

    /// How many toolkits could not be brought up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_toolkits: Option<i64>,

    /// Lists of auth configs in a row that were empty although toolkits are cached because of some. Nothing is deleted
    /// before there were six.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_auth_config_lists: Option<i64>,

    /// What the last sync with changes changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,

    /// Last token of the annotation composio-operator.dev/requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_request_at: Option<String>,

    /// Failures in a row. Kept here so that a restart does not forget how long to back off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryStatus>,

    /// Ready, Reconciling and Stalled after kstatus; Complete for this resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Where the cache stands.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, IntoStaticStr, JsonSchema, PartialEq, Serialize, VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum CacheState {
    /// Schemas are being read.
    Syncing,
    /// Everything wanted is cached.
    Synced,
    /// Something is missing or out of date.
    Degraded,
    /// Nothing could be read.
    Failed,
}

managed_fields!(ComposioSchemaCacheSpec, ComposioSchemaCacheStatus, CacheState);

/// How far a sync has come.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncProgress {
    /// When it started.
    pub started_at: Time,

    /// Toolkits that are up to date, or that failed for this time.
    pub done: i64,

    /// Toolkits that are wanted.
    pub total: i64,
}

/// One toolkit that needs attention.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolkitStatus {
    /// Its slug.
    #[schemars(length(max = 128))]
    pub toolkit: String,

    /// Version that is cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,

    /// Changed, Incomplete (a tool is left out), or why it could not be brought up to date.
    pub reason: String,

    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

/// How schemas changed.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Tools that are new.
    pub added: i64,

    /// Tools that are gone.
    pub removed: i64,

    /// Deprecated tools that are not cached any more because spec.includeDeprecated was switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<i64>,

    /// Tools that are there as before, with another description or schema.
    pub changed: i64,

    /// Tools that may break their callers: gone, alone or with their toolkit, or something that was accepted is not any
    /// more, or something that was promised is not any more.
    pub breaking: i64,

    /// The breaking changes in words, at most 10. More of them, and the names of the tools that were added, removed and
    /// changed, are in the annotation composio-operator.dev/drift of each toolkit's first ConfigMap, at most 50 of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub breaking_changes: Vec<String>,
}
