//! The controller of `RedditConnection`.
//!
//! One pass: observe (I/O) -> plan (pure) -> act (I/O) -> next status (pure) -> write, again and again until the plan
//! has no step left. Everything that must survive a crash is in status before the next remote call.

pub mod act;
pub mod announcements;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fixtures;
pub mod identity;
pub mod link_secret;
pub mod observe;
pub mod observed;
pub mod phase;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};

use self::observed::Subject;
use self::phase::Phase;
use self::plan::{Plan, Step};
use self::status::Acted;
use crate::api::reddit_connection::{RedditConnection, RedditConnectionStatus};
use crate::controllers::context::{Context, Owner};
use crate::controllers::driver::{Error, Reconciler, owner_of};
use crate::controllers::failure::{Class, spread, until};
use crate::kube_io::apply::{Guard, apply_status, is_conflict};
use crate::telemetry::metrics::{Controller, Outcome};

/// Field manager of every write of this controller.
pub const FIELD_MANAGER: &str = "composio-operator.dev/redditconnection";

/// Steps one pass may take. A whole life cycle needs fewer; more would be a loop.
const MAX_STEPS: usize = 24;

/// Settled objects are planned again after this time, in case a change was missed. It costs no remote call.
const RESYNC: Duration = Duration::from_hours(1);

/// The controller of `RedditConnection`.
pub struct RedditConnections;

impl Reconciler for RedditConnections {
    type Object = RedditConnection;

    const CONTROLLER: Controller = Controller::RedditConnection;

    const STATES: &'static [&'static str] = &["pending", "connected", "disconnected", "error"];

    fn state(object: &RedditConnection) -> Option<&'static str> {
        Some(object.status.as_ref()?.state?.as_str())
    }

    async fn pass(ctx: &Context, object: RedditConnection) -> Result<(Action, Outcome), Error> {
        pass(ctx, object).await
    }

    fn gone(ctx: &Context, owner: &Owner, uid: &str) {
        ctx.forget(owner, uid);
    }

    fn listed(ctx: &Context, namespace: Option<&str>, present: &HashSet<Owner>) {
        let is_elsewhere = |owner: &Owner| namespace.is_some_and(|namespace| owner.namespace != namespace);
        ctx.composio
            .retain_followers(|owner| is_elsewhere(owner) || present.contains(owner));
    }

    /// None: what happens to an account arrives as a wake-up.
    fn triggers(
        _ctx: &Context,
        _namespace: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectRef<RedditConnection>, watcher::Error>> {
        stream::empty().boxed()
    }
}

async fn pass(ctx: &Context, mut object: RedditConnection) -> Result<(Action, Outcome), Error> {
    let owner = owner_of(&object);
    let api = Api::<RedditConnection>::namespaced(ctx.client.clone(), &owner.namespace);
    let mut from_cache = true;
    let mut applied = false;
    for _ in 0..MAX_STEPS {
        let now = Timestamp::now();
        let subject = Subject::from(&object);
        let observation = observe::observe(ctx, &owner, &subject, now).await;
        let plan = plan::plan(&subject, &observation.observed, now);
        if plan.step.as_ref().is_some_and(Step::is_remote_change) {
            if from_cache {
                match read_again(&api, &object).await? {
                    Some(current) => object = current,
                    None => return Ok((forget(ctx, &owner, &object), Outcome::Unchanged)),
                }
                from_cache = false;
                continue;
            }
            if !ctx.leadership.is_current(tokio::time::Instant::now()) {
                return Err(Error::NotLeader);
            }
        }
        let effect = match &plan.step {
            Some(step) => act::act(ctx, &owner, &object, step, observation.connection.as_deref()).await?,
            None => Acted::Nothing.into(),
        };
        applied |= plan.step.is_some();
        let now = Timestamp::now();
        let status = status::next_status(&subject, &observation.observed, &plan, &effect.acted, now);
        let old = subject.status.clone();
        match effect.object {
            Some(Some(changed)) => {
                object = changed;
                from_cache = false;
            }
            Some(None) => {
                announce(ctx, &object, &old, &status, &plan, &effect.acted).await;
                return Ok((forget(ctx, &owner, &object), Outcome::Applied));
            }
            None => {}
        }
        if matches!(plan.step, Some(Step::RemoveFinalizer { .. })) {
            announce(ctx, &object, &old, &status, &plan, &effect.acted).await;
            return Ok((forget(ctx, &owner, &object), Outcome::Applied));
        }
        if status != old {
            object = write_status(&api, &object, &status, &effect.acted).await?;
            from_cache = false;
            announce(ctx, &object, &old, &status, &plan, &effect.acted).await;
        }
        if plan.step.is_none() || matches!(effect.acted, Acted::Failed(_)) {
            let phase = status::final_phase(&plan, &effect.acted);
            if object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty() {
                return Ok((forget(ctx, &owner, &object), Outcome::Unchanged));
            }
            return Ok((next_look(&object, &plan, now), outcome(&phase, applied)));
        }
    }
    Err(Error::Endless(MAX_STEPS))
}

/// The object as the API server has it now; None if it is gone or another one of the same name.
async fn read_again(
    api: &Api<RedditConnection>,
    object: &RedditConnection,
) -> Result<Option<RedditConnection>, kube::Error> {
    let current = api.get_opt(&object.name_any()).await?;
    Ok(current.filter(|current| current.uid() == object.uid()))
}

/// Writes the status. What happened at Composio and cannot be found out again is written whatever else has changed;
/// everything else only over the version it was computed from.
async fn write_status(
    api: &Api<RedditConnection>,
    object: &RedditConnection,
    status: &RedditConnectionStatus,
    acted: &Acted,
) -> Result<RedditConnection, kube::Error> {
    if !matches!(acted, Acted::LinkCreated { .. }) {
        return apply_status(api, object, Guard::Version, FIELD_MANAGER, status).await;
    }
    let write = || apply_status(api, object, Guard::Object, FIELD_MANAGER, status);
    let patiently = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_times(5);
    let may_pass = |error: &kube::Error| {
        !is_conflict(error) && !matches!(error, kube::Error::Api(status) if status.is_not_found())
    };
    write.retry(patiently).when(may_pass).await
}

fn next_look(object: &RedditConnection, plan: &Plan, now: Timestamp) -> Action {
    let subject = Subject::from(object);
    let retry = subject
        .status
        .retry
        .as_ref()
        .and_then(|retry| retry.next_attempt_at.as_ref());
    let resync = RESYNC.mul_f64(1.0 + spread(subject.seed()) / 10.0);
    // One that has passed says nothing: what is due has just been done, or waits for something else.
    let retry = retry.filter(|next| next.0 > now);
    let wake = [plan.wake, retry.map(|next| until(next.0, now))]
        .into_iter()
        .flatten()
        .min();
    // Times in status are whole seconds; a wake-up a moment early would only be repeated.
    Action::requeue(wake.map_or(resync, |wait| wait.min(resync) + Duration::from_millis(50)))
}

fn outcome(phase: &Phase, applied: bool) -> Outcome {
    match phase {
        Phase::Failed(failure) | Phase::Trouble(failure) => match failure.class {
            Class::Stalled => Outcome::Stalled,
            Class::Waiting => Outcome::Waiting,
            Class::Transient => Outcome::Failed,
        },
        _ if applied => Outcome::Applied,
        _ => Outcome::Unchanged,
    }
}

fn forget(ctx: &Context, owner: &Owner, object: &RedditConnection) -> Action {
    ctx.forget(owner, object.metadata.uid.as_deref().unwrap_or_default());
    Action::await_change()
}

async fn announce(
    ctx: &Context,
    object: &RedditConnection,
    old: &RedditConnectionStatus,
    new: &RedditConnectionStatus,
    plan: &Plan,
    acted: &Acted,
) {
    if let Phase::Failed(failure) = status::final_phase(plan, acted) {
        ctx.metrics
            .failure(Controller::RedditConnection, failure.reason.as_str());
    }
    let regarding = object.object_ref(&());
    for told in announcements::of_change(Subject::from(object).is_managed(), old, new, plan, acted) {
        ctx.announce(&regarding, "Reconcile", &told).await;
    }
}
