//! The controller of `ComposioSchemaCache`.
//!
//! What a sync achieves is in the ConfigMaps at once; the manifest follows when nothing is left to fetch, and then what it
//! does not name is deleted.

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod act;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod config_maps;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod discovery;
mod events;
mod failure_run;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod observe;
mod observed;
mod plan;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod reading;
mod status;
mod sync_state;

use std::sync::Arc;

use futures::stream::BoxStream;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use self::config_maps::ConfigMaps;
pub use self::discovery::Lists;
use self::observe::Handles;
use self::observed::{Observed, View};
use self::plan::{Phase, Plan, Step};
use self::status::{Effect, Summary};
pub use self::sync_state::SyncStates;
use super::access::Access;
use crate::api::{ComposioSchemaCache, ComposioSchemaCacheStatus};
use crate::runtime;
use crate::runtime::events::Announcement;
use crate::runtime::failure::Failure;
use crate::runtime::summary::Change;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Context, Controller, Turn};
use crate::telemetry::metrics::Metrics;

/// The controller of `ComposioSchemaCache`.
pub struct SchemaCaches {
    /// The way to Composio.
    pub access: Arc<Access>,
    /// What is remembered between reconciles.
    pub states: SyncStates,
    /// What Composio listed lately.
    pub lists: Lists,
    /// Shows when each cache was last verified.
    pub metrics: Metrics,
}

impl SchemaCaches {
    fn forget_metric(&self, key: &ObjectKey) {
        self.metrics.cache_verified(&key.namespace, &key.name, None);
    }
}

impl Controller for SchemaCaches {
    type Object = ComposioSchemaCache;
    type Observed = Observed;
    type Handles = Handles;
    type Step = Step;
    type Phase = Phase;
    type Effect = Effect;

    const NAME: &'static str = "composioschemacache";

    async fn observe(
        &self,
        cx: &Context,
        object: &ComposioSchemaCache,
        now: Timestamp,
    ) -> Result<(Observed, Handles), Failure> {
        let config_maps = ConfigMaps::new(&cx.client, object);
        let view = View::from(object);
        let limit = cx.reconcile_timeout / 3;
        let observing = Box::pin(observe::observe(self, &view, &config_maps, now, limit));
        cx.slots.wait(observing).await
    }

    fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
        plan::plan(view, observed, now)
    }

    async fn act(
        &self,
        cx: &Context,
        object: &ComposioSchemaCache,
        observed: &Observed,
        step: &Step,
        connection: &Handles,
    ) -> Result<Effect, Failure> {
        let config_maps = ConfigMaps::new(&cx.client, object);
        let connection = connection.as_deref();
        let view = View::from(object);
        let acting = Box::pin(act::act(
            &self.states,
            &config_maps,
            &view,
            observed,
            step,
            connection,
            cx.reconcile_timeout / 2,
        ));
        cx.slots.wait(acting).await
    }

    fn status(turn: &Turn<'_, Self>) -> ComposioSchemaCacheStatus {
        status::status(turn)
    }

    fn summary(turn: &Turn<'_, Self>, status: &ComposioSchemaCacheStatus) -> Option<Summary> {
        status::summary(turn, status)
    }

    fn on_change(turn: &Turn<'_, Self>, status: &mut ComposioSchemaCacheStatus) {
        status::on_change(turn, status);
    }

    fn events(change: &Change<'_, Self>) -> Vec<Announcement> {
        events::of_change(change)
    }

    fn retry_policy(view: &View<'_>, failure: Failure) -> Failure {
        plan::retry_policy(view, failure)
    }

    fn carry_over(
        observed: Observed,
        handles: Handles,
        step: &Step,
        effect: &Effect,
    ) -> Option<(Observed, Handles)> {
        Some((observed.after(step, effect)?, handles))
    }

    fn remember(&self, turn: &Turn<'_, Self>) {
        self.states.record(turn);
        if let Some((key, at)) = self.states.verified(turn) {
            self.metrics.cache_verified(&key.namespace, &key.name, Some(at));
        }
    }

    /// Whatever happens to a cache's ConfigMaps.
    fn watches(
        &self,
        cx: &Context,
        namespace: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectRef<ComposioSchemaCache>, watcher::Error>> {
        config_maps::changes(&runtime::api_in(&cx.client, namespace))
    }

    fn on_deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(key) = self.states.forget(uid) {
            self.forget_metric(&key);
        }
        self.access.forget(key, uid);
    }

    fn on_relisted(&self, exists: &dyn Fn(&ObjectKey) -> bool) {
        for key in self.states.retain(exists) {
            self.forget_metric(&key);
        }
    }
}
