//! Wires watches and wake-ups to the reconcilers and runs them until shutdown.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{
    Action, Error as ControllerError, ReconcileReason, ReconcileRequest, trigger_self,
};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Config, WatchStreamExt, applier};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use super::context::{Context, Owner};
use super::driver::{self, Error, Reconciler, owner_of};
use crate::kube_io::explain::explain;
use crate::telemetry::server::Readiness;

/// How often the number of objects per state is counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

type Guarded<R> = DeserializeGuard<<R as Reconciler>::Object>;

/// What asks for a pass.
type Request<R> = Result<ReconcileRequest<Guarded<R>>, watcher::Error>;

/// Which namespaces are watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Namespaces {
    /// Every one, through cluster-wide watches.
    All,
    /// These, each through watches of its own, so that namespaced roles are enough.
    Only(Vec<String>),
}

impl Namespaces {
    /// Reads a list of names; an empty one means all.
    pub fn from_names(names: &[String]) -> Self {
        // An empty variable reads as one empty name.
        let names: Vec<_> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
        if names.is_empty() {
            Self::All
        } else {
            Self::Only(names)
        }
    }

    fn scopes(&self) -> Vec<Option<String>> {
        match self {
            Self::All => vec![None],
            Self::Only(names) => names.iter().cloned().map(Some).collect(),
        }
    }
}

/// Delivers wake-ups to the watch that covers an object. Callable from anywhere, never blocks.
#[derive(Clone, Default)]
pub struct Wakes(Arc<HashMap<Option<String>, mpsc::UnboundedSender<Owner>>>);

impl Wakes {
    /// Plans `owner` again soon.
    pub fn wake(&self, owner: Owner) {
        let sender = self
            .0
            .get(&None)
            .or_else(|| self.0.get(&Some(owner.namespace.clone())));
        if let Some(sender) = sender {
            // Nobody listens only while shutting down.
            let _ = sender.unbounded_send(owner);
        }
    }
}

/// One watch scope and its wake-ups.
pub struct Scope {
    namespace: Option<String>,
    /// None: nobody wakes what it covers.
    wakes: Option<mpsc::UnboundedReceiver<Owner>>,
}

/// One scope per watched namespace, and the way to wake what they cover.
pub fn scopes(namespaces: &Namespaces) -> (Wakes, Vec<Scope>) {
    let mut senders = HashMap::new();
    let scopes = namespaces
        .scopes()
        .into_iter()
        .map(|namespace| {
            let (sender, wakes) = mpsc::unbounded();
            senders.insert(namespace.clone(), sender);
            let wakes = Some(wakes);
            Scope { namespace, wakes }
        })
        .collect();
    (Wakes(Arc::new(senders)), scopes)
}

/// The same for a controller whose objects are only woken by watches.
pub fn quiet_scopes(namespaces: &Namespaces) -> Vec<Scope> {
    let scopes = namespaces.scopes().into_iter();
    scopes
        .map(|namespace| Scope {
            namespace,
            wakes: None,
        })
        .collect()
}

/// Runs the controller of one resource until `shutdown` turns true; running passes are finished first.
pub async fn run<R: Reconciler>(
    ctx: Arc<Context>,
    scopes: Vec<Scope>,
    concurrency: u16,
    readiness: &Readiness,
    shutdown: watch::Receiver<bool>,
) {
    let census = Census::default();
    let controllers = scopes.into_iter().enumerate().map(|(number, scope)| {
        let census = census.clone();
        let plural = <R::Object as kube::Resource>::plural(&());
        let gate = readiness.gate(match &scope.namespace {
            Some(namespace) => format!("watch {plural} in {namespace}"),
            None => format!("watch {plural}"),
        });
        let (store, queue) = watch_objects::<R>(&ctx, scope, shutdown.clone());
        let ready = store.clone();
        let counted = store.clone();
        let count_ctx = Arc::clone(&ctx);
        let opened = async move {
            // Fails only if the watch ended first.
            if ready.wait_until_ready().await.is_ok() {
                gate.open();
            }
        };
        let passes = applier(
            |object: Arc<Guarded<R>>, ctx: Arc<Context>| Box::pin(reconcile_spawned::<R>(object, ctx)),
            on_error::<R>,
            Arc::clone(&ctx),
            store,
            queue,
            Config::default().concurrency(concurrency),
        )
        .for_each(|result| {
            report(result.map(|(object, _)| object.to_string()));
            future::ready(())
        });
        let mut ended = shutdown.clone();
        let counting = async move {
            loop {
                let stop = async { ended.wait_for(|down| *down).await.is_ok() };
                if tokio::time::timeout(COUNT_INTERVAL, stop).await.is_ok() {
                    return;
                }
                count::<R>(&count_ctx, &census, number, &counted);
            }
        };
        async move { tokio::join!(opened, passes, counting) }
    });
    future::join_all(controllers).await;
}

fn watch_objects<R: Reconciler>(
    ctx: &Arc<Context>,
    scope: Scope,
    mut shutdown: watch::Receiver<bool>,
) -> (Store<Guarded<R>>, impl Stream<Item = Request<R>> + Send + 'static) {
    let api: Api<Guarded<R>> = match &scope.namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let (store, writer) = reflector::store();
    let watched = Arc::clone(ctx);
    let scope_namespace = scope.namespace.clone();
    let mut listed = HashSet::new();
    let objects = watcher::watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_ok(move |event| match event {
            // An object without finalizer vanishes without a last pass.
            Event::Delete(object) => R::gone(&watched, &owner_of(object), &object.uid().unwrap_or_default()),
            Event::Apply(_) => {}
            // Those that vanish while the watch is interrupted are not told of at all.
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(owner_of(object));
            }
            Event::InitDone => R::listed(&watched, scope_namespace.as_deref(), &std::mem::take(&mut listed)),
        })
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects();
    let wakes = stream::iter(scope.wakes).flatten();
    let wakes = wakes.map(|owner| Ok(request(&owner, "account changed")));
    let triggers = R::triggers(ctx, scope.namespace.as_deref());
    let triggers = triggers.map_ok(|object| {
        let namespace = object.namespace.unwrap_or_default();
        request(
            &Owner {
                namespace,
                name: object.name,
            },
            "something of it changed",
        )
    });
    let stop = async move {
        // An error means that the sender is gone, which is a shutdown as well.
        let _ = shutdown.wait_for(|down| *down).await;
    };
    let queue =
        stream::select(stream::select(trigger_self(objects, ()), wakes), triggers).take_until(Box::pin(stop));
    (store, Box::pin(queue))
}

fn request<K: kube::Resource<DynamicType = ()>>(owner: &Owner, reason: &str) -> ReconcileRequest<K> {
    ReconcileRequest {
        obj_ref: ObjectRef::new(&owner.name).within(&owner.namespace),
        reason: ReconcileReason::Custom {
            reason: reason.to_owned(),
        },
    }
}

/// Runs a pass as a task of its own, so that a panic ends that pass and not the operator.
async fn reconcile_spawned<R: Reconciler>(
    object: Arc<Guarded<R>>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    let object = match &object.0 {
        Ok(object) => Arc::new(object.clone()),
        Err(invalid) => {
            let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
            tracing::warn!(namespace, name, error = %invalid.error, "object cannot be read; fix or delete it");
            ctx.metrics.failure(R::CONTROLLER, "InvalidObject");
            // Nothing is done for what cannot be understood.
            R::gone(&ctx, &owner_of(&*object), &object.uid().unwrap_or_default());
            return Ok(Action::await_change());
        }
    };
    tokio::spawn(driver::reconcile::<R>(object, ctx))
        .await
        .unwrap_or(Err(Error::Panicked))
}

#[allow(clippy::needless_pass_by_value)] // the shape kube asks for
fn on_error<R: Reconciler>(object: Arc<Guarded<R>>, error: &Error, _ctx: Arc<Context>) -> Action {
    driver::try_again(object.uid().unwrap_or_default().as_str(), error)
}

fn report(result: Result<String, ControllerError<Error, watcher::Error>>) {
    match result {
        Ok(object) => tracing::debug!(object, "reconciled"),
        // Normal after a delete: a wake-up was under way.
        Err(ControllerError::ObjectNotFound(object)) => tracing::debug!(%object, "gone"),
        Err(ControllerError::ReconcilerFailed(error, object)) => {
            tracing::warn!(%object, %error, "pass ended early");
        }
        Err(ControllerError::QueueError(error)) => {
            tracing::warn!(error = interruption(&error), "watch interrupted");
        }
        Err(ControllerError::RunnerError(error)) => tracing::error!(%error, "runner failed"),
    }
}

fn interruption(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// How many objects are in each state, by the number of the scope.
type Census = Arc<Mutex<HashMap<usize, HashMap<&'static str, usize>>>>;

/// Counts the objects of one scope, and shows those of all scopes together.
fn count<R: Reconciler>(ctx: &Context, census: &Census, scope: usize, store: &Store<Guarded<R>>) {
    let mut counts = HashMap::new();
    for object in store.state() {
        let state = object.0.as_ref().ok().and_then(R::state);
        *counts.entry(state.unwrap_or("none")).or_insert(0_usize) += 1;
    }
    let mut census = census.lock().unwrap_or_else(PoisonError::into_inner);
    census.insert(scope, counts);
    for state in R::STATES.iter().copied().chain(["none"]) {
        let number = census.values().filter_map(|counts| counts.get(state)).sum();
        ctx.metrics.objects(R::CONTROLLER, state, number);
    }
}
