//! One frame for all controllers: what is the same for every custom resource is here, once.
//!
//! A resource implements [`Controller`]; [`watch::run`] runs it. Nothing here knows a resource, or Composio.

pub mod backoff;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod crds;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod events;
pub mod failure;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod finalizer;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod lease;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod owned;
pub mod plan;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod reconcile;
mod requeue;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod slots;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod status;
pub mod summary;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod supervise;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests")]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests")]
mod tests;
pub mod view;
pub mod wake_ups;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod watch;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use self::events::{Announcement, Publisher};
use self::failure::Failure;
use self::lease::Leadership;
use self::plan::{Plan, Position};
use self::slots::Slots;
use self::summary::{Change, SummaryOf};
use self::view::View;
use self::wake_ups::{ObjectKey, WakeUps};
pub use self::watch::api_in;
use crate::api::common::{Managed, StatusOf};
use crate::telemetry::metrics::Metrics;

/// What every reconcile works with, whatever the controller.
#[allow(clippy::disallowed_types, reason = "it is handed to what does I/O")]
pub struct Context {
    /// Kubernetes.
    pub client: kube::Client,
    /// Events about objects.
    pub events: Publisher,
    /// Metrics.
    pub metrics: Metrics,
    /// Asked before each step.
    pub leadership: Leadership,
    /// Brings objects to a reconcile from outside the watches.
    pub wake_ups: WakeUps,
    /// How many reconciles work at the same time.
    pub slots: Slots,
    /// Longest time of one reconcile.
    pub reconcile_timeout: Duration,
    /// The time that decisions are made with.
    pub clock: Clock,
}

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The clock of the machine.
    #[allow(clippy::disallowed_methods, reason = "this is where the time comes from")]
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// One custom resource and how it is brought about. What a controller does not say here, the runtime does the same way
/// for all of them: suspension, deletion and finalizers, backoff, request tokens, leadership, status writes, conditions,
/// events, metrics, spans, requeueing.
///
/// The value holds what this controller shares among its objects; nothing of it is in the [`Context`].
pub trait Controller: Sized + Send + Sync + 'static {
    /// The resource.
    type Object: Managed;
    /// The facts that a decision needs beside the object: plain data.
    type Observed: Default + Send + Sync;
    /// What acting needs and planning must not see, such as a client.
    type Handles: Send + Sync;
    /// What can be done.
    type Step: Step;
    /// Where an object can stand.
    type Phase: Phase;
    /// What came of a step.
    type Effect: Effect;

    /// The kind in lower case: label in metrics, part of the field manager's name, address of wake-ups.
    const NAME: &'static str;
    /// The finalizer, for a resource that leaves something outside the cluster.
    const FINALIZER: Option<&'static str> = None;
    /// The resource's own condition types. They are Unknown until something is known.
    const CONDITIONS: &'static [&'static str] = &[];

    /// Gathers the facts. Called again after each step, unless [`carry_over`](Self::carry_over) brings them.
    fn observe(
        &self,
        cx: &Context,
        object: &Self::Object,
        now: Timestamp,
    ) -> impl Future<Output = Result<(Self::Observed, Self::Handles), Failure>> + Send;

    /// Decides. Of an object that is being deleted a plan without step, failure and requeue says that nothing is left to
    /// clean up; its finalizer is then removed.
    fn plan(view: &View<'_, Self::Object>, observed: &Self::Observed, now: Timestamp) -> PlanOf<Self>;

    /// Takes a step.
    fn act(
        &self,
        cx: &Context,
        object: &Self::Object,
        observed: &Self::Observed,
        step: &Self::Step,
        handles: &Self::Handles,
    ) -> impl Future<Output = Result<Self::Effect, Failure>> + Send;

    /// The status with this resource's own fields brought up to date. Conditions, state, retry and request token are the
    /// runtime's.
    fn status(turn: &Turn<'_, Self>) -> StatusOf<Self::Object>;

    /// What the object's position means for state and conditions; None if it changes nothing. `status` has its own fields
    /// brought up to date, and the state and conditions from before.
    fn summary(turn: &Turn<'_, Self>, status: &StatusOf<Self::Object>) -> Option<SummaryOf<Self>>;

    /// What is recorded only together with some other change of the status, such as when it happened.
    fn on_change(_turn: &Turn<'_, Self>, _status: &mut StatusOf<Self::Object>) {}

    /// What people are told about a change of the status: by default, each transition of Ready.
    fn events(change: &Change<'_, Self>) -> Vec<Announcement> {
        change.transition().into_iter().collect()
    }

    /// What people are told when the finalizer was removed because nothing is left to clean up.
    fn events_of_release(_view: &View<'_, Self::Object>) -> Vec<Announcement> {
        Vec::new()
    }

    /// Whether this object leaves something to clean up. Asked only if there is a [`FINALIZER`](Self::FINALIZER).
    fn needs_finalizer(_view: &View<'_, Self::Object>) -> bool {
        true
    }

    /// Whether what came of a step may be recorded although the object has changed meanwhile to `current`. Asked only for
    /// what [must be recorded](Step::must_be_recorded).
    fn still_concerns(_step: &Self::Step, _current: &Self::Object) -> bool {
        true
    }

    /// Adapts how a failure is retried.
    fn retry_policy(_view: &View<'_, Self::Object>, failure: Failure) -> Failure {
        failure
    }

    /// The facts after a successful step, where they are known without observing again.
    fn carry_over(
        _observed: Self::Observed,
        _handles: Self::Handles,
        _step: &Self::Step,
        _effect: &Self::Effect,
    ) -> Option<(Self::Observed, Self::Handles)> {
        None
    }

    /// Keeps in memory what the next reconcile should know. Nothing that is needed after a restart belongs there.
    fn remember(&self, _turn: &Turn<'_, Self>) {}

    /// Other things that make an object worth a reconcile, in one namespace or in all.
    fn watches(
        &self,
        _cx: &Context,
        _namespace: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectRef<Self::Object>, watcher::Error>> {
        stream::empty().boxed()
    }

    /// Nothing is done for this object until its spec changes: it is suspended.
    fn on_suspended(&self, _key: &ObjectKey) {}

    /// The object is deleted, or cannot be read. There may have been no last reconcile.
    fn on_deleted(&self, _key: &ObjectKey, _uid: &str) {}

    /// A watch began anew and may have missed deletions: objects for which `exists` is false are gone.
    fn on_relisted(&self, _exists: &dyn Fn(&ObjectKey) -> bool) {}
}

/// The plan of a controller.
pub type PlanOf<C> = Plan<<C as Controller>::Step, <C as Controller>::Phase>;

/// What can be done for an object.
pub trait Step: Clone + Debug + PartialEq + Send + Sync {
    /// The step without its details. Failures are counted by it.
    fn name(&self) -> &'static str;

    /// Whether it changes something outside the cluster. Such a step is never taken on the word of a cache.
    fn is_external(&self) -> bool;

    /// Whether what came of it cannot be found out again: the status is then written whatever else has changed.
    fn must_be_recorded(&self) -> bool {
        false
    }
}

/// Where an object can stand.
pub trait Phase: Clone + Debug + PartialEq + Send + Sync {
    /// What failed although this phase was reached, if anything.
    fn failure(&self) -> Option<Failure> {
        None
    }

    /// Whether the runtime records that failure and tries again with backoff; false where something else tries again.
    fn is_retried(&self) -> bool {
        true
    }
}

/// What came of a step.
pub trait Effect: Debug + Send + Sync {
    /// Whether this is what a person asked for with a request token.
    fn answers_request(&self) -> bool {
        false
    }

    /// Whether this effect of `step` shows that what failed works again, so that its failures are not counted on. `failed`
    /// is the name of the step that failed; None if deciding on one failed.
    fn clears(&self, failed: Option<&str>, step: &str) -> bool {
        failed.is_none_or(|failed| failed == step)
    }

    /// Whether the step is to go on in another reconcile, so that other objects have their turn.
    fn yields(&self) -> bool {
        false
    }
}

/// One round of a reconcile: what was seen, what was done, and what came of it.
pub struct Turn<'a, C: Controller> {
    /// The object as it was planned for.
    pub view: &'a View<'a, C::Object>,
    /// The facts; the default if they could not be gathered.
    pub observed: &'a C::Observed,
    /// What was planned.
    pub step: Option<&'a C::Step>,
    /// What came of the step; None without a step, and if it failed.
    pub effect: Option<&'a C::Effect>,
    /// Where the object stands after the step.
    pub position: &'a Position<C::Phase>,
    /// The time after the step.
    pub now: Timestamp,
}
