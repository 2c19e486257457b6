//! What every reconcile is handed.

use std::time::Duration;

use crate::composio::Registry;
use crate::controllers::auth_configs::AuthConfigs;
use crate::controllers::credentials::Credentials;
use crate::controllers::schema_cache::memory::Memory;
use crate::kube_io::events::Publisher;
use crate::kube_io::lease::Leadership;
use crate::telemetry::metrics::Metrics;

/// Names one object of one controller.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What every reconcile is handed.
pub struct Context {
    /// Kubernetes.
    pub client: kube::Client,
    /// Composio, one connection per API key.
    pub composio: Registry<Owner>,
    /// Where API keys come from.
    pub credentials: Credentials,
    /// Auth configs seen lately.
    pub auth_configs: AuthConfigs,
    /// Version of the Reddit toolkit that tools are run with.
    pub toolkit_version: String,
    /// What is remembered of schema caches.
    pub schemas: Memory,
    /// Events.
    pub events: Publisher,
    /// Metrics.
    pub metrics: Metrics,
    /// Asked before each change at Composio.
    pub leadership: Leadership,
    /// Longest time one pass may take.
    pub pass_timeout: Duration,
}
