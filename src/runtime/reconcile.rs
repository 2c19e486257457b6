//! The reconcile loop: the one place with the order of things.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use kube::core::object::HasStatus;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};

use super::backoff::until;
use super::events::Announcement;
use super::failure::{Class, Failure, explain};
use super::finalizer::{ensure_finalizer, remove_finalizer};
use super::plan::{Plan, Position};
use super::status::{Guard, apply_status, is_conflict};
use super::summary::{Change, SummaryOf, failure_of, next_status, suspended_status};
use super::view::{View, has_finalizer};
use super::wake_ups::ObjectKey;
use super::{Context, Controller, Effect, PlanOf, Step, Turn, requeue};
use crate::api::GROUP;
use crate::api::common::{SpecFields, StatusFields, StatusOf};
use crate::telemetry::metrics::Outcome;

/// Steps that one reconcile may take. A whole life cycle needs fewer; more would be a loop.
const MAX_STEPS: usize = 24;

/// Pause after facts could not be gathered while only a part of the object waits for its next try.
const OBSERVE_AGAIN: Duration = Duration::from_secs(10);

/// Tries to clean up in a row before an object is released although something may be left behind. With the backoff
/// between them they take about ten minutes.
const MIN_CLEANUP_TRIES: i64 = 8;
/// What no person has to fix, such as an outage or a limit, gets this much time from the deletion on besides.
pub(super) const MIN_CLEANUP_TIME: Duration = Duration::from_hours(2);

/// Why a reconcile ended early. None of these is a failure that the controller knows of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or did not answer.
    #[error("Kubernetes API: {}", explain(.0))]
    Kube(#[from] kube::Error),
    /// This replica does not lead any more.
    #[error("not the leader any more")]
    NotLeader,
    /// A plan led to a plan led to a plan.
    #[error("exceeded {MAX_STEPS} steps")]
    TooManySteps,
}

/// How a reconcile ended.
#[derive(Debug, PartialEq)]
pub struct Reconciled {
    /// When the next one is due.
    pub action: Action,
    /// For metrics.
    pub outcome: Outcome,
}

/// What the runtime decides before it asks the controller.
enum Lifecycle {
    Gone,
    Suspended,
    BackingOff(Action),
    /// The finalizer goes; with the reason if something may be left behind.
    Release(Option<String>),
    Active,
}

/// Observes, plans and acts until there is nothing left to do now.
pub async fn reconcile<C: Controller>(
    controller: &C,
    cx: &Context,
    object: C::Object,
) -> Result<Reconciled, Error> {
    let mut it = Reconcile::new(controller, cx, object);
    let mut carried = None;
    for _ in 0..MAX_STEPS {
        let now = cx.clock.now();
        let object = it.object.clone();
        let view = View::from(&object);
        match lifecycle::<C>(&object, &view, now) {
            Lifecycle::Gone => return Ok(it.gone()),
            Lifecycle::Suspended => return it.suspend(&view, now).await,
            Lifecycle::BackingOff(action) => return Ok(it.rest(action)),
            Lifecycle::Release(abandoned) => return it.release(&view, abandoned).await,
            Lifecycle::Active => {}
        }
        let (observed, handles) = match carried.take() {
            Some(known) => known,
            None => match Box::pin(controller.observe(cx, &object, now)).await {
                Ok(facts) => facts,
                Err(failure) => return it.fail_to_observe(&view, failure).await,
            },
        };
        // Observing may have taken long.
        let now = cx.clock.now();
        if it.lacks_finalizer(&view) {
            it.add_finalizer().await?;
            continue;
        }
        let mut plan = C::plan(&view, &observed, now);
        if view.deleting && is_cleaned_up::<C>(&plan) {
            return it.release(&view, None).await;
        }
        hold_back::<C>(&view, &observed, &mut plan, now);
        let Some(step) = &plan.step else {
            return it.finish(&view, &observed, &plan).await;
        };
        if step.is_external() && !it.is_fresh {
            if !it.read_afresh().await? {
                return Ok(it.gone());
            }
            continue;
        }
        it.check_leadership()?;
        let acting = Box::pin(controller.act(cx, &object, &observed, step, &handles));
        let effect = match acting.await {
            Ok(effect) => effect,
            Err(failure) => return it.fail(&view, &observed, step, failure).await,
        };
        it.has_acted = true;
        it.record(&view, &observed, &plan, Some(&effect)).await?;
        if effect.yields() {
            return Ok(Reconciled {
                action: Action::requeue(Duration::ZERO),
                outcome: Outcome::Applied,
            });
        }
        carried = C::carry_over(observed, handles, step, &effect);
    }
    Err(Error::TooManySteps)
}

fn lifecycle<C: Controller>(object: &C::Object, view: &View<'_, C::Object>, now: Timestamp) -> Lifecycle {
    if !view.deleting {
        return if view.spec.suspend() {
            Lifecycle::Suspended
        } else {
            Lifecycle::Active
        };
    }
    if !C::FINALIZER.is_some_and(|finalizer| has_finalizer(object, finalizer)) {
        return Lifecycle::Gone;
    }
    if !C::needs_finalizer(view) {
        return Lifecycle::Release(None);
    }
    let (Some(failure), Some(retry)) = (view.current_failure(), view.status.fields().retry) else {
        return Lifecycle::Active;
    };
    if failure.holds_back(now) {
        return Lifecycle::BackingOff(requeue::after(None, Some(retry), view.seed(), now));
    }
    // An object must not hang for ever because its key is gone, or because nothing answers.
    let needs_person = failure.reason.is_some_and(|reason| reason.policy().needs_person);
    let deleted_at = object.meta().deletion_timestamp.as_ref().map(|time| time.0);
    let has_had_time = deleted_at.is_none_or(|deleted_at| until(now, deleted_at) >= MIN_CLEANUP_TIME);
    if failure.failures >= MIN_CLEANUP_TRIES && (needs_person || has_had_time) {
        Lifecycle::Release(Some(retry.reason.clone()))
    } else {
        Lifecycle::Active
    }
}

/// What people are told about an object that goes although something may be left of it.
pub(super) fn abandoned_cleanup(why: &str) -> Announcement {
    Announcement {
        warning: true,
        reason: "CleanupAbandoned",
        note: format!("{why}; what this object made outside the cluster may still exist there"),
    }
}

/// Whether nothing is left to be done for an object that is being deleted.
fn is_cleaned_up<C: Controller>(plan: &PlanOf<C>) -> bool {
    plan.step.is_none() && plan.requeue_after.is_none() && !matches!(plan.position, Position::Failed(_))
}

/// While backing off a failure stays on show until it is tried again, unless the object has moved on meanwhile.
fn hold_back<C: Controller>(
    view: &View<'_, C::Object>,
    observed: &C::Observed,
    plan: &mut PlanOf<C>,
    now: Timestamp,
) {
    let Some(failure) = view.current_failure().filter(|failure| failure.holds_back(now)) else {
        return;
    };
    let turn = Turn::<C> {
        view,
        observed,
        step: None,
        effect: None,
        position: &plan.position,
        now,
    };
    let state = C::summary(&turn, &view.status).and_then(|summary| summary.state);
    let moved_on = matches!(plan.position, Position::At(_)) && state != view.status.fields().state;
    if plan.step.is_some() || !moved_on {
        plan.step = None;
        plan.position = Position::Unchanged;
        let next = failure.next_attempt_at.map(|next| until(next, now));
        plan.requeue_after = plan.requeue_after.into_iter().chain(next).min();
    }
}

/// One reconcile under way.
struct Reconcile<'a, C: Controller> {
    controller: &'a C,
    cx: &'a Context,
    api: Api<C::Object>,
    key: ObjectKey,
    object: C::Object,
    /// The object comes from the API server, not from a cache.
    is_fresh: bool,
    /// A step was taken.
    has_acted: bool,
}

impl<'a, C: Controller> Reconcile<'a, C> {
    fn new(controller: &'a C, cx: &'a Context, object: C::Object) -> Self {
        let key = ObjectKey::new(C::NAME, &object);
        Self {
            api: Api::namespaced(cx.client.clone(), &key.namespace),
            controller,
            cx,
            key,
            object,
            is_fresh: false,
            has_acted: false,
        }
    }

    fn lacks_finalizer(&self, view: &View<'_, C::Object>) -> bool {
        C::FINALIZER.is_some_and(|finalizer| {
            !view.deleting && !has_finalizer(&self.object, finalizer) && C::needs_finalizer(view)
        })
    }

    async fn add_finalizer(&mut self) -> Result<(), Error> {
        if let Some(finalizer) = C::FINALIZER {
            self.object = ensure_finalizer(&self.api, &self.object, finalizer).await?;
            (self.is_fresh, self.has_acted) = (true, true);
        }
        Ok(())
    }

    /// Reads the object again; false if it is gone, or another one of the same name by now.
    async fn read_afresh(&mut self) -> Result<bool, Error> {
        let current = self.api.get_opt(&self.key.name).await?;
        match current.filter(|current| current.uid() == self.object.uid()) {
            Some(current) => (self.object, self.is_fresh) = (current, true),
            None => return Ok(false),
        }
        Ok(true)
    }

    fn check_leadership(&self) -> Result<(), Error> {
        let leads = self.cx.leadership.is_current(tokio::time::Instant::now());
        leads.then_some(()).ok_or(Error::NotLeader)
    }

    async fn suspend(mut self, view: &View<'_, C::Object>, now: Timestamp) -> Result<Reconciled, Error> {
        self.controller.on_suspended(&self.key);
        let (observed, position) = (C::Observed::default(), Position::Unchanged);
        let turn = Turn {
            view,
            observed: &observed,
            step: None,
            effect: None,
            position: &position,
            now,
        };
        let (status, summary) = suspended_status(&turn);
        self.write(&turn, &status, Some(&summary)).await?;
        Ok(self.rest(requeue::after(None, None, view.seed(), now)))
    }

    async fn release(
        self,
        view: &View<'_, C::Object>,
        abandoned: Option<String>,
    ) -> Result<Reconciled, Error> {
        self.check_leadership()?;
        if let Some(finalizer) = C::FINALIZER {
            remove_finalizer(&self.api, &self.object, finalizer).await?;
        }
        let events = match abandoned {
            Some(reason) => vec![abandoned_cleanup(&format!(
                "gave up cleaning up after many tries ({reason})"
            ))],
            None => C::events_of_release(view),
        };
        self.publish(&events).await;
        Ok(Reconciled {
            outcome: Outcome::Applied,
            ..self.gone()
        })
    }

    async fn fail_to_observe(
        self,
        view: &View<'_, C::Object>,
        failure: Failure,
    ) -> Result<Reconciled, Error> {
        let now = self.cx.clock.now();
        // A reconcile that nobody asked for is no further try.
        if let Some(current) = view.current_failure().filter(|current| current.is_early(now)) {
            let pause = (!current.holds_back(now)).then_some(OBSERVE_AGAIN);
            let retry = view.status.fields().retry;
            let action = requeue::after(pause, retry, view.seed(), now);
            return Ok(self.rest(action));
        }
        self.finish(view, &C::Observed::default(), &Plan::fail(failure))
            .await
    }

    async fn fail(
        self,
        view: &View<'_, C::Object>,
        observed: &C::Observed,
        step: &C::Step,
        failure: Failure,
    ) -> Result<Reconciled, Error> {
        let plan = Plan::step(step.clone(), Position::Failed(failure));
        self.finish(view, observed, &plan).await
    }

    /// Ends the reconcile where the plan says that the object stands.
    async fn finish(
        mut self,
        view: &View<'_, C::Object>,
        observed: &C::Observed,
        plan: &PlanOf<C>,
    ) -> Result<Reconciled, Error> {
        let failure = self.record(view, observed, plan, None).await?;
        if self.object.meta().deletion_timestamp.is_some() && self.object.finalizers().is_empty() {
            return Ok(self.gone());
        }
        let outcome = match failure.map(|failure| failure.class) {
            Some(Class::Stalled) => Outcome::Stalled,
            Some(Class::Waiting) => Outcome::Waiting,
            Some(Class::Transient) => Outcome::Failed,
            None if self.has_acted => Outcome::Applied,
            None => Outcome::Unchanged,
        };
        let retry = self.object.status().and_then(|status| status.fields().retry);
        let action = requeue::after(plan.requeue_after, retry, view.seed(), self.cx.clock.now());
        Ok(Reconciled { action, outcome })
    }

    /// Writes what came of a round into the status, and tells people. Returns what failed.
    async fn record(
        &mut self,
        view: &View<'_, C::Object>,
        observed: &C::Observed,
        plan: &PlanOf<C>,
        effect: Option<&C::Effect>,
    ) -> Result<Option<Failure>, Error> {
        let turn = Turn {
            view,
            observed,
            step: plan.step.as_ref(),
            effect,
            position: &plan.position,
            now: self.cx.clock.now(),
        };
        self.controller.remember(&turn);
        let (status, summary) = next_status(&turn);
        self.write(&turn, &status, summary.as_ref()).await?;
        Ok(failure_of(&turn))
    }

    /// Writes a status if it changed. What happened outside and cannot be found out again is written whatever else has
    /// changed; everything else only over the version that it was computed from.
    async fn write(
        &mut self,
        turn: &Turn<'_, C>,
        status: &StatusOf<C::Object>,
        summary: Option<&SummaryOf<C>>,
    ) -> Result<(), Error> {
        let old = &*turn.view.status;
        if status == old {
            return Ok(());
        }
        let manager = format!("{GROUP}/{}", C::NAME);
        let must_be_recorded = turn.effect.is_some() && turn.step.is_some_and(Step::must_be_recorded);
        self.object = if must_be_recorded {
            let step = turn.step;
            let still_concerns =
                |current: &C::Object| step.is_none_or(|step| C::still_concerns(step, current));
            let guard = || Guard::Object(&still_concerns);
            let write = || apply_status(&self.api, &self.object, guard(), &manager, status);
            let retry_policy = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_times(5);
            let may_pass = |error: &kube::Error| {
                !is_conflict(error) && !matches!(error, kube::Error::Api(status) if status.is_not_found())
            };
            write.retry(retry_policy).when(may_pass).await?
        } else {
            self.check_leadership()?;
            apply_status(&self.api, &self.object, Guard::Version, &manager, status).await?
        };
        self.is_fresh = true;
        if let Some(failure) = failure_of(turn) {
            self.cx.metrics.failure(C::NAME, failure.reason.as_str());
        }
        let new = self.object.status().cloned().unwrap_or_default();
        let change = Change {
            turn,
            old,
            new: &new,
            summary,
        };
        self.publish(&C::events(&change)).await;
        Ok(())
    }

    async fn publish(&self, events: &[Announcement]) {
        let regarding = self.object.object_ref(&());
        for event in events {
            self.cx.events.announce(&regarding, event).await;
        }
    }

    /// The object is gone: what is kept about it is dropped.
    fn gone(&self) -> Reconciled {
        let uid = self.object.uid().unwrap_or_default();
        self.controller.on_deleted(&self.key, &uid);
        self.cx.events.forget(&uid);
        Reconciled {
            action: Action::await_change(),
            outcome: Outcome::Unchanged,
        }
    }

    fn rest(&self, action: Action) -> Reconciled {
        let outcome = if self.has_acted {
            Outcome::Applied
        } else {
            Outcome::Unchanged
        };
        Reconciled { action, outcome }
    }
}
