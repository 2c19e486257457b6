//! Wires watches and wake-ups to the reconcilers and runs them until shutdown.

use std::collections::HashMap;
use std::sync::Arc;
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
use super::reddit_connection::{self, Error};
use crate::api::RedditConnection;
use crate::api::reddit_connection::ConnectionState;
use crate::kube_io::explain::explain;
use crate::telemetry::metrics::Controller;
use crate::telemetry::server::Readiness;

/// How often the number of objects per state is counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

type Guarded = DeserializeGuard<RedditConnection>;

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
    wakes: mpsc::UnboundedReceiver<Owner>,
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
            Scope { namespace, wakes }
        })
        .collect();
    (Wakes(Arc::new(senders)), scopes)
}

/// Runs the controllers until `shutdown` turns true; running passes are finished first.
pub async fn run(
    ctx: Arc<Context>,
    scopes: Vec<Scope>,
    concurrency: u16,
    readiness: &Readiness,
    shutdown: watch::Receiver<bool>,
) {
    let controllers = scopes.into_iter().map(|scope| {
        let gate = readiness.gate(match &scope.namespace {
            Some(namespace) => format!("watch redditconnections in {namespace}"),
            None => "watch redditconnections".to_owned(),
        });
        let (store, queue) = watch_objects(&ctx, scope, shutdown.clone());
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
            |object: Arc<Guarded>, ctx: Arc<Context>| Box::pin(reconcile_spawned(object, ctx)),
            on_error,
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
                count(&count_ctx, &counted);
            }
        };
        async move { tokio::join!(opened, passes, counting) }
    });
    future::join_all(controllers).await;
}

fn watch_objects(
    ctx: &Arc<Context>,
    scope: Scope,
    mut shutdown: watch::Receiver<bool>,
) -> (
    Store<Guarded>,
    impl Stream<Item = Result<ReconcileRequest<Guarded>, watcher::Error>> + Send + 'static,
) {
    let api: Api<Guarded> = match &scope.namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let (store, writer) = reflector::store();
    let gone = Arc::clone(ctx);
    let objects = watcher::watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_ok(move |event| {
            // An object without finalizer vanishes without a last pass.
            if let Event::Delete(object) = event {
                let owner = Owner {
                    namespace: object.namespace().unwrap_or_default(),
                    name: object.name_any(),
                };
                gone.composio.unfollow(&owner, None);
            }
        })
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects();
    let wakes = scope.wakes.map(|owner| {
        Ok(ReconcileRequest {
            obj_ref: ObjectRef::new(&owner.name).within(&owner.namespace),
            reason: ReconcileReason::Custom {
                reason: "account changed".to_owned(),
            },
        })
    });
    let stop = async move {
        // An error means that the sender is gone, which is a shutdown as well.
        let _ = shutdown.wait_for(|down| *down).await;
    };
    let queue = stream::select(trigger_self(objects, ()), wakes).take_until(Box::pin(stop));
    (store, Box::pin(queue))
}

/// Runs a pass as a task of its own, so that a panic ends that pass and not the operator.
async fn reconcile_spawned(object: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    let object = match &object.0 {
        Ok(object) => Arc::new(object.clone()),
        Err(invalid) => {
            let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
            tracing::warn!(namespace, name, error = %invalid.error, "object cannot be read; fix or delete it");
            ctx.metrics.failure(Controller::RedditConnection, "InvalidObject");
            return Ok(Action::await_change());
        }
    };
    tokio::spawn(reddit_connection::reconcile(object, ctx))
        .await
        .unwrap_or(Err(Error::Panicked))
}

#[allow(clippy::needless_pass_by_value)] // the shape kube asks for
fn on_error(object: Arc<Guarded>, error: &Error, _ctx: Arc<Context>) -> Action {
    reddit_connection::retry(object.uid().unwrap_or_default().as_str(), error)
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

fn count(ctx: &Context, store: &Store<Guarded>) {
    let mut counts = HashMap::new();
    for object in store.state() {
        let state = object
            .0
            .as_ref()
            .ok()
            .and_then(|object| object.status.as_ref()?.state);
        *counts
            .entry(state.map_or("none", ConnectionState::as_str))
            .or_insert(0_usize) += 1;
    }
    for state in ConnectionState::ALL
        .iter()
        .map(|state| state.as_str())
        .chain(["none"])
    {
        ctx.metrics.objects(
            Controller::RedditConnection,
            state,
            counts.get(state).copied().unwrap_or(0),
        );
    }
}
