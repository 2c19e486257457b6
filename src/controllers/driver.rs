//! What all controllers have in common: the frame of a pass, and the way a failed one is tried again.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::{Context, Owner};
use super::failure::spread;
use super::retry;
use crate::kube_io::apply::is_conflict;
use crate::kube_io::explain::explain;
use crate::telemetry::metrics::{Controller, Outcome};

/// Wait before an object that changed under our hands is read again.
const CONFLICT: Duration = Duration::from_millis(250);

/// Why a pass ended early. None of these is a failure of the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or did not answer.
    #[error("Kubernetes API: {}", explain(.0))]
    Kube(#[from] kube::Error),
    /// This replica does not lead any more.
    #[error("not the leader any more")]
    NotLeader,
    /// The pass took too long; it goes on where status says.
    #[error("the pass took longer than {0:?}")]
    Timeout(Duration),
    /// A bug.
    #[error("the pass panicked")]
    Panicked,
    /// A plan led to a plan led to a plan.
    #[error("no end after {0} steps")]
    Endless(usize),
}

/// One resource and what is done for it.
pub trait Reconciler: Send + Sync + 'static {
    /// The resource.
    type Object: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static;

    /// Its name in metrics.
    const CONTROLLER: Controller;

    /// Every state that an object can be in, for metrics.
    const STATES: &'static [&'static str];

    /// The state of an object.
    fn state(object: &Self::Object) -> Option<&'static str>;

    /// Observes, plans and acts until there is nothing left to do now.
    fn pass(
        ctx: &Context,
        object: Self::Object,
    ) -> impl Future<Output = Result<(Action, Outcome), Error>> + Send;

    /// An object is gone; there may have been no last pass.
    fn gone(ctx: &Context, owner: &Owner, uid: &str);

    /// These are all objects there are in one namespace, or in all: a watch began anew, and may have missed that others
    /// went.
    fn listed(ctx: &Context, namespace: Option<&str>, present: &HashSet<Owner>);

    /// Other things that make an object worth a look, in one namespace or in all.
    fn triggers(
        ctx: &Context,
        namespace: Option<&str>,
    ) -> BoxStream<'static, Result<ObjectRef<Self::Object>, watcher::Error>>;
}

/// One pass, with its time limit and its metrics.
pub async fn reconcile<R: Reconciler>(object: Arc<R::Object>, ctx: Arc<Context>) -> Result<Action, Error> {
    let timer = ctx.metrics.reconcile(R::CONTROLLER);
    let result = tokio::time::timeout(ctx.pass_timeout, R::pass(&ctx, (*object).clone())).await;
    match result {
        Ok(Ok((action, outcome))) => {
            timer.finish(outcome);
            Ok(action)
        }
        Ok(Err(Error::Kube(error))) if is_conflict(&error) => {
            timer.finish(Outcome::Waiting);
            Ok(Action::requeue(CONFLICT))
        }
        Ok(Err(error)) => {
            timer.finish(Outcome::Failed);
            Err(error)
        }
        // The timer notes an abandoned pass.
        Err(_) => Err(Error::Timeout(ctx.pass_timeout)),
    }
}

/// When to try a pass again that ended early. `uid` spreads objects that failed together.
pub fn try_again(uid: &str, error: &Error) -> Action {
    match error {
        Error::NotLeader => Action::await_change(),
        _ => Action::requeue(Duration::from_secs(5).mul_f64(1.0 + spread(retry::seed(uid)))),
    }
}

/// The object in the words of the registry.
pub fn owner_of(object: &impl ResourceExt) -> Owner {
    Owner {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}
