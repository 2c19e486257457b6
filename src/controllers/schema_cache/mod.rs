//! The controller of `ComposioSchemaCache`.
//!
//! One pass: observe (I/O) -> plan (pure) -> act (I/O) -> next status (pure) -> write. What a sync achieves is in the
//! ConfigMaps at once; the manifest follows when nothing is left to fetch, and then what it does not name is deleted.

pub mod act;
pub mod announcements;
pub mod config_maps;
pub mod memory;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod status;

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};

use self::config_maps::ConfigMaps;
use self::observe::Observation;
use self::observed::{Observed, Subject};
use self::plan::{Phase, Plan, Step};
use self::status::{Acted, Cost};
use super::context::{Context, Owner};
use super::driver::{Error, Reconciler, owner_of};
use super::failure::{Class, until};
use crate::api::ComposioSchemaCache;
use crate::kube_io::apply::{Guard, apply_status};
use crate::schemas::record::CACHE_LABEL;
use crate::telemetry::metrics::{Controller, Outcome};

/// Field manager of the status.
pub const FIELD_MANAGER: &str = "composio-operator.dev/composioschemacache";

/// Steps one pass may take: begin, a time slice of fetching, the manifest, what it does not name, the end; and some again
/// after a failure.
const MAX_STEPS: usize = 8;

/// A cache is planned again after this time, in case a change was missed. It costs no remote call.
const RESYNC: Duration = Duration::from_hours(1);

/// The controller of `ComposioSchemaCache`.
pub struct SchemaCaches;

impl Reconciler for SchemaCaches {
    type Object = ComposioSchemaCache;

    const CONTROLLER: Controller = Controller::ComposioSchemaCache;

    const STATES: &'static [&'static str] = &["syncing", "synced", "degraded", "failed"];

    fn state(object: &ComposioSchemaCache) -> Option<&'static str> {
        Some(object.status.as_ref()?.state?.as_str())
    }

    async fn pass(ctx: &Context, object: ComposioSchemaCache) -> Result<(Action, Outcome), Error> {
        pass(ctx, object).await
    }

    fn gone(ctx: &Context, _owner: &Owner, uid: &str) {
        ctx.schemas.forget(uid);
        ctx.requests.forget(uid);
        ctx.events.forget(uid);
    }

    fn listed(ctx: &Context, namespace: Option<&str>, present: &HashSet<Owner>) {
        let is_elsewhere = |owner: &Owner| namespace.is_some_and(|namespace| owner.namespace != namespace);
        ctx.schemas
            .retain(|owner| is_elsewhere(owner) || present.contains(owner));
    }

    /// Whatever happens to a cache's ConfigMaps.
    fn triggers(
        ctx: &Context,
        namespace: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectRef<ComposioSchemaCache>, watcher::Error>> {
        let api: Api<PartialObjectMeta<ConfigMap>> = match namespace {
            Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
            None => Api::all(ctx.client.clone()),
        };
        watcher::watcher(api, watcher::Config::default().labels(CACHE_LABEL))
            .default_backoff()
            .touched_objects()
            .try_filter_map(|map| {
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                let mut owners = map.metadata.owner_references.iter().flatten();
                let owner = owners.find_map(|owner| ObjectRef::from_owner_ref(Some(&namespace), owner, ()));
                // Somebody may have taken the owner away.
                let label = || Some(ObjectRef::new(map.labels().get(CACHE_LABEL)?).within(&namespace));
                future::ready(Ok(owner.or_else(label)))
            })
            .boxed()
    }
}

async fn pass(ctx: &Context, mut object: ComposioSchemaCache) -> Result<(Action, Outcome), Error> {
    let owner = owner_of(&object);
    let api = Api::<ComposioSchemaCache>::namespaced(ctx.client.clone(), &owner.namespace);
    let uid = object.uid().unwrap_or_default();
    ctx.schemas.open(&uid, &owner);
    let mut applied = false;
    let mut known: Option<Observation> = None;
    for _ in 0..MAX_STEPS {
        let now = Timestamp::now();
        let subject = Subject::from(&object);
        let config_maps = ConfigMaps {
            api: Api::namespaced(ctx.client.clone(), &owner.namespace),
            owner: &object,
        };
        let has_looked = known.is_none();
        let observation = match known.take() {
            Some(known) => known,
            None => observe::observe(ctx, &owner, &subject, &config_maps, now).await,
        };
        let observed = &observation.observed;
        let plan = plan::plan(&subject, observed, now);
        // Later looks of a sync find what it has changed itself.
        let is_first_look = has_looked && observed.catalogue.is_some() && subject.status.progress.is_none();
        if is_first_look && plan::needs_repair(&subject, observed) {
            ctx.schemas
                .note(&uid, |remembered| remembered.repaired_at = Some(now));
        }
        let acted = match &plan.step {
            Some(_) if !ctx.leadership.is_current(tokio::time::Instant::now()) => {
                return Err(Error::NotLeader);
            }
            Some(step) => {
                let connection = observation.connection.as_deref();
                act::act(ctx, &config_maps, &subject, observed, step, connection).await
            }
            None => Acted::Nothing,
        };
        applied |= plan.step.is_some();
        let now = Timestamp::now();
        let cost = remember(ctx, &uid, observed, &plan, &acted, now);
        let old = subject.status.clone();
        let status = status::next_status(&subject, observed, &plan, &acted, cost, now);
        let phase = status::final_phase(&plan, &acted);
        if status != old {
            object = apply_status(&api, &object, Guard::Version, FIELD_MANAGER, &status).await?;
            announce(ctx, &object, &old, &phase).await;
        }
        if let (Some(Step::Fetch { .. }), Acted::Fetched { stopped: None, .. }) = (&plan.step, &acted)
            && subject_is_slow(&acted, &plan)
        {
            return Ok((Action::requeue(Duration::ZERO), Outcome::Applied));
        }
        if plan.step.is_none() || matches!(phase, Phase::Failed(_)) {
            return Ok((next_look(&object, &plan, &phase, now), outcome(&phase, applied)));
        }
        known = plan
            .step
            .and_then(|step| observation.observed.after(&step, &acted))
            .map(|observed| Observation {
                observed,
                connection: observation.connection,
            });
    }
    Err(Error::Endless(MAX_STEPS))
}

/// The time slice was used up before everything was fetched.
fn subject_is_slow(acted: &Acted, plan: &Plan) -> bool {
    match (acted, &plan.step) {
        (Acted::Fetched { done, failed, .. }, Some(Step::Fetch { toolkits })) => {
            done + failed.len() < toolkits.len()
        }
        _ => false,
    }
}

/// Keeps what the next pass of this sync has to know, and tells what the sync has cost so far.
fn remember(
    ctx: &Context,
    uid: &str,
    observed: &Observed,
    plan: &Plan,
    acted: &Acted,
    now: Timestamp,
) -> Cost {
    ctx.schemas.note(uid, |remembered| {
        let cost = remembered.sync.as_ref().map_or_else(Cost::default, |sync| Cost {
            started_at: Some(sync.started_at),
            api_calls: sync.api_calls,
        });
        if let (Acted::Fetched { failed, .. }, Some(sync)) = (acted, &mut remembered.sync) {
            sync.failed.extend(failed.clone());
        }
        match plan.phase {
            Phase::Finished { .. } => {
                remembered.sync = None;
                remembered.checked_at = Some(now);
            }
            // What Composio answered is in doubt: the next try asks again.
            Phase::Failed(_) if observed.catalogue.is_some() => remembered.sync = None,
            _ => {}
        }
        cost
    })
}

/// When to look again after a pass that left the object with this status.
fn next_look(object: &ComposioSchemaCache, plan: &Plan, phase: &Phase, now: Timestamp) -> Action {
    let retry = || {
        let retry = object.status.as_ref()?.retry.as_ref()?;
        Some(until(retry.next_attempt_at.as_ref()?.0, now))
    };
    let wait = match phase {
        Phase::Keep => plan.wake,
        Phase::Suspended => None,
        Phase::Failed(_) => retry(),
        Phase::Syncing { .. } | Phase::Finished { .. } => {
            retry().or_else(|| Some(plan::refresh_interval(&Subject::from(object))))
        }
    };
    // Times in status are whole seconds; a wake-up a moment early would only be repeated.
    Action::requeue(wait.map_or(RESYNC, |wait| wait.min(RESYNC)) + Duration::from_millis(50))
}

fn outcome(phase: &Phase, applied: bool) -> Outcome {
    match phase {
        Phase::Failed(failure) => match failure.class {
            Class::Stalled => Outcome::Stalled,
            Class::Waiting => Outcome::Waiting,
            Class::Transient => Outcome::Failed,
        },
        _ if applied => Outcome::Applied,
        _ => Outcome::Unchanged,
    }
}

async fn announce(
    ctx: &Context,
    object: &ComposioSchemaCache,
    old: &crate::api::ComposioSchemaCacheStatus,
    phase: &Phase,
) {
    let new = object.status.clone().unwrap_or_default();
    if let Phase::Failed(failure) = phase {
        ctx.metrics
            .failure(Controller::ComposioSchemaCache, failure.reason.as_str());
    }
    let regarding = object.object_ref(&());
    for told in announcements::of_change(old, &new, phase) {
        ctx.announce(&regarding, "Sync", &told).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::composio_schema_cache::CacheState;

    #[test]
    fn metrics_know_every_state() {
        let all: Vec<_> = CacheState::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(SchemaCaches::STATES, all);
    }

    /// Found as a suspended cache that was looked at every 50 ms, because it had failed before.
    #[test]
    fn a_time_to_try_again_that_has_passed_does_not_wake_a_suspended_cache() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let object: ComposioSchemaCache = serde_json::from_value(serde_json::json!({
            "apiVersion": "composio-operator.dev/v1alpha1", "kind": "ComposioSchemaCache",
            "metadata": {"name": "tools", "namespace": "agents", "uid": "u-1"},
            "spec": {"suspend": true},
            "status": {"retry": {"failures": 3, "lastFailureAt": "2025-12-31T00:00:00Z", "reason": "RateLimited",
                "nextAttemptAt": "2025-12-31T00:01:00Z"}},
        }))
        .unwrap();
        let plan = Plan {
            step: None,
            phase: Phase::Suspended,
            wake: None,
        };
        let resync = Action::requeue(RESYNC + Duration::from_millis(50));
        assert_eq!(next_look(&object, &plan, &Phase::Suspended, now), resync);
    }
}
