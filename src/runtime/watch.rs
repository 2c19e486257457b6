//! Wires watches and wake-ups to a controller, and runs it until shutdown.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::core::object::HasStatus;
use kube::runtime::controller::{Error as ControllerError, ReconcileReason, ReconcileRequest, trigger_self};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Config, WatchStreamExt, applier};
use kube::{Api, Client, Resource, ResourceExt};
use strum::VariantArray;
use tokio::sync::watch;

use super::failure::explain;
use super::supervise::{EarlyEnds, Supervisor};
use super::wake_ups::ObjectKey;
use super::{Context, Controller};
use crate::api::common::{StateOf, StatusFields};
use crate::telemetry::server::Readiness;

/// How often the objects in each state are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// What is shown for objects without a state.
const NO_STATE: &str = "none";

type Guarded<C> = DeserializeGuard<<C as Controller>::Object>;

/// What asks for a reconcile.
type Request<C> = Result<ReconcileRequest<Guarded<C>>, watcher::Error>;

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
        // An empty variable reads as one empty name. A namespace that is named twice must not be watched twice: two watches
        // would reconcile the same object at the same time.
        let names: BTreeSet<_> = names
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty())
            .collect();
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
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

/// The objects of one kind in a namespace, or in all.
pub fn api_in<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Most reconciles of each watch that are under way at the same time, those included that wait for something remote or for
/// a slot. Each may hold a connection to the API server and one to the remote side, which is most of what it costs.
const UNDER_WAY: u16 = 128;

/// Runs a controller until `shutdown` turns true; reconciles under way are finished first.
pub async fn run<C: Controller>(
    controller: Arc<C>,
    cx: Arc<Context>,
    namespaces: &Namespaces,
    readiness: &Readiness,
    shutdown: watch::Receiver<bool>,
) {
    let supervisor = Arc::new(Supervisor {
        controller,
        cx,
        early_ends: EarlyEnds::default(),
    });
    let counts = StateCounts::default();
    let watches = namespaces.scopes().into_iter().map(|namespace| {
        let plural = C::Object::plural(&());
        let gate = readiness.gate(match &namespace {
            Some(namespace) => format!("watch {plural} in {namespace}"),
            None => format!("watch {plural}"),
        });
        let (store, requests) = watch_objects(&supervisor, namespace.as_deref(), shutdown.clone());
        let ready = store.clone();
        let opened = async move {
            // It fails only if the watch ended first.
            if ready.wait_until_ready().await.is_ok() {
                gate.open();
            }
        };
        let counting = count_states::<C>(
            Arc::clone(&supervisor.cx),
            counts.clone(),
            namespace,
            store.clone(),
            shutdown.clone(),
        );
        let reconciles = applier(
            |object, supervisor: Arc<Supervisor<C>>| {
                Box::pin(async move { Ok::<_, Infallible>(supervisor.reconcile(object).await) })
            },
            |_, error: &Infallible, _| match *error {},
            Arc::clone(&supervisor),
            store,
            requests,
            Config::default().concurrency(UNDER_WAY),
        )
        .for_each(|result| {
            report::<C>(result.map(drop));
            future::ready(())
        });
        async move { tokio::join!(opened, reconciles, counting) }
    });
    future::join_all(watches).await;
}

fn watch_objects<C: Controller>(
    supervisor: &Arc<Supervisor<C>>,
    namespace: Option<&str>,
    mut shutdown: watch::Receiver<bool>,
) -> (
    Store<Guarded<C>>,
    impl Stream<Item = Request<C>> + Send + 'static + use<C>,
) {
    let api: Api<Guarded<C>> = api_in(&supervisor.cx.client, namespace);
    let (store, writer) = reflector::store();
    let mut deletions = Deletions::new(Arc::clone(supervisor), namespace);
    let objects = watcher::watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_ok(move |event| deletions.see(event))
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects();
    let wake_ups = supervisor.cx.wake_ups.listen(C::NAME, namespace);
    let wake_ups = wake_ups.map(|key| Ok(request(&key.namespace, &key.name, "wake-up")));
    let further = supervisor.controller.watches(&supervisor.cx, namespace);
    let further = further.map_ok(|object| {
        let namespace = object.namespace.unwrap_or_default();
        request(&namespace, &object.name, "a related object changed")
    });
    let stop = async move {
        // An error means that the sender is gone, which is a shutdown as well.
        let _ = shutdown.wait_for(|down| *down).await;
    };
    let requests = stream::select(stream::select(trigger_self(objects, ()), wake_ups), further);
    (store, Box::pin(requests.take_until(Box::pin(stop))))
}

fn request<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, reason: &str) -> ReconcileRequest<K> {
    ReconcileRequest {
        obj_ref: ObjectRef::new(name).within(namespace),
        reason: ReconcileReason::Custom {
            reason: reason.to_owned(),
        },
    }
}

/// Notices which objects are gone: one without a finalizer is deleted without a last reconcile.
struct Deletions<C> {
    supervisor: Arc<Supervisor<C>>,
    namespace: Option<String>,
    /// What a list that is under way has brought so far.
    listed: HashSet<ObjectKey>,
}

impl<C: Controller> Deletions<C> {
    fn new(supervisor: Arc<Supervisor<C>>, namespace: Option<&str>) -> Self {
        Self {
            supervisor,
            namespace: namespace.map(str::to_owned),
            listed: HashSet::new(),
        }
    }

    fn see(&mut self, event: &Event<Guarded<C>>) {
        let controller = &self.supervisor.controller;
        match event {
            Event::Delete(object) => {
                let uid = object.uid().unwrap_or_default();
                controller.on_deleted(&ObjectKey::new(C::NAME, object), &uid);
                self.supervisor.cx.events.forget(&uid);
                self.supervisor.early_ends.forget(&uid);
            }
            Event::Apply(_) => {}
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(ObjectKey::new(C::NAME, object));
            }
            // What is deleted while the watch is interrupted is seen only by its absence.
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let namespace = self.namespace.as_deref();
                controller.on_relisted(&|key| {
                    let is_covered = namespace.is_none_or(|namespace| key.namespace == namespace);
                    key.kind != C::NAME || !is_covered || listed.contains(key)
                });
            }
        }
    }
}

fn report<C: Controller>(result: Result<(), ControllerError<Infallible, watcher::Error>>) {
    let controller = C::NAME;
    match result {
        Ok(()) => {}
        // Normal after a delete: a wake-up was under way.
        Err(ControllerError::ObjectNotFound(object)) => tracing::debug!(controller, %object, "not found"),
        Err(ControllerError::ReconcilerFailed(never, _)) => match never {},
        Err(ControllerError::QueueError(error)) => {
            tracing::warn!(controller, error = interruption(&error), "watch interrupted");
        }
        Err(ControllerError::RunnerError(error)) => tracing::error!(controller, %error, "runner failed"),
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

/// How many objects are in each state, by the namespace of the watch.
type StateCounts = Arc<Mutex<HashMap<Option<String>, HashMap<&'static str, usize>>>>;

/// Counts the objects of one watch again and again, and shows those of all watches together.
async fn count_states<C: Controller>(
    cx: Arc<Context>,
    counts: StateCounts,
    namespace: Option<String>,
    store: Store<Guarded<C>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let known = StateOf::<C::Object>::VARIANTS.iter().map(|state| (*state).into());
    let labels: Vec<&'static str> = known.chain([NO_STATE]).collect();
    while tokio::time::timeout(COUNT_INTERVAL, shutdown.wait_for(|down| *down))
        .await
        .is_err()
    {
        let mut found = HashMap::new();
        for object in store.state() {
            let status = object.0.as_ref().ok().and_then(HasStatus::status);
            let state = status.and_then(|status| status.fields().state);
            *found.entry(state.map_or(NO_STATE, Into::into)).or_insert(0) += 1;
        }
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert(namespace.clone(), found);
        for label in &labels {
            let number = counts.values().filter_map(|found| found.get(label)).sum();
            cx.metrics.objects(C::NAME, label, number);
        }
    }
}
