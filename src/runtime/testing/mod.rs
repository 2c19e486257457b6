//! API servers for tests: one whose answers are a function, and one that holds objects.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body as StreamBody;
use axum::extract::Query;
use futures::{Stream, stream};
use jiff::Timestamp;
use kube::client::Body;
use kube::runtime::events::Reporter;
use kube::{Client, Resource};
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::events::Publisher;
use super::lease::Leadership;
use super::slots::Slots;
use super::wake_ups::WakeUps;
use super::{Clock, Context};
use crate::telemetry::metrics::Metrics;

/// A clock that stands still until it is set.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    pub fn at(time: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    pub fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    pub fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap() = to;
    }

    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock(Arc::new(move || clock.now()))
    }
}

/// A context on this API server, and the metrics that are counted in it.
pub fn context(client: Client, clock: Clock) -> (Context, Arc<Registry>) {
    let (metrics, registry) = Metrics::new();
    let reporter = Reporter {
        controller: "composio-operator.dev/test".to_owned(),
        instance: None,
    };
    let context = Context {
        events: Publisher::new(client.clone(), reporter, metrics.clone()),
        client,
        metrics,
        leadership: Leadership::without_election(),
        slots: Slots::new(64),
        wake_ups: WakeUps::default(),
        reconcile_timeout: Duration::from_mins(1),
        clock,
    };
    (context, registry)
}

/// The metrics in the text format.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// One request as the API server would see it; `body` is null if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: String,
    pub content_type: String,
    pub body: Value,
}

impl Call {
    async fn read(request: http::Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            content_type: head
                .headers
                .get("content-type")
                .map_or(String::new(), |v| v.to_str().unwrap().to_owned()),
            body: if bytes.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&bytes).unwrap()
            },
        }
    }
}

/// Status code and JSON body, or a broken connection.
pub type Answer = io::Result<(u16, Value)>;

/// A client whose requests are answered by a function, for tests of single calls.
pub fn client<F, Fut>(answer: F) -> Client
where
    F: Fn(Call) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send,
{
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = answer.clone();
        async move {
            let call = Call::read(request).await;
            answer(call).await.map(response)
        }
    });
    Client::new(service, "default")
}

/// A failure in the words of the API server.
pub fn failure(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("test: {reason}");
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

fn response((code, body): (u16, Value)) -> http::Response<StreamBody> {
    let body = StreamBody::from(body.to_string());
    http::Response::builder().status(code).body(body).unwrap()
}

/// What becomes of a request.
pub enum Intercept {
    /// This is answered, and nothing else happens.
    Answer(Answer),
    /// The request takes effect, and the answer never comes.
    Hang,
    /// Nothing happens and no answer comes.
    HangBefore,
    /// It takes effect, then this is answered.
    EffectThen(Answer),
}

/// What an [`ApiServer`] can hold.
pub trait Kind: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone {}
impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone> Kind for K {}

/// A Kubernetes API server in memory, for any kind. Clones share their state.
///
/// Two answers are not those of the real one. An apply with another uid than the object's is a conflict here, there 422
/// with the cause `metadata.uid`. An apply with a `resourceVersion` creates nothing here; there only a uid prevents that.
#[derive(Clone)]
pub struct ApiServer(Arc<Mutex<State>>);

impl Default for ApiServer {
    fn default() -> Self {
        let server = Self(Arc::default());
        server.state().version = 1;
        server
    }
}

impl ApiServer {
    /// A server without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that this server answers.
    pub fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request| server.clone().serve(request)),
            "default",
        )
    }

    /// Stores an object as `kubectl create` would, and its status, too. Uid, generation, version and time of creation are
    /// filled in where absent. Returns it as stored.
    pub fn create<K: Kind>(&self, object: &K) -> K {
        let key = key_of(object);
        let mut state = self.state();
        assert!(!state.objects.contains_key(&key), "{key:?} exists already");
        typed(state.add(&key, json!(object)))
    }

    /// Stores exactly this object in place of the one of its name, with a new version, and a new generation if its spec is
    /// another one. What only the server sets is kept where absent.
    pub fn replace<K: Kind>(&self, object: &K) -> K {
        let (key, mut object) = (key_of(object), json!(object));
        let mut state = self.state();
        let held = state.found(&key).expect("there is such an object")["metadata"].clone();
        let metadata = &mut object["metadata"];
        let generation = metadata["generation"].as_u64().max(held["generation"].as_u64());
        for field in SET_BY_SERVER {
            if metadata[field].is_null() {
                set(metadata, field, held[field].clone());
            }
        }
        metadata["generation"] = json!(generation);
        typed(state.store(&key, object, true))
    }

    /// The object, if there is one.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        self.state()
            .objects
            .get(&key::<K>(namespace, name))
            .cloned()
            .map(typed)
    }

    /// A person edits an object.
    pub fn edit<K: Kind>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = key::<K>(namespace, name);
        let mut object = self.state().found(&key).expect("there is such an object").clone();
        change(&mut object);
        self.state().store(&key, object, false);
    }

    /// Deletes an object as `kubectl delete` would: one with finalizers stays, marked as being deleted.
    pub fn delete<K: Kind>(&self, namespace: &str, name: &str) {
        let deleted = self.state().delete(&key::<K>(namespace, name), &Value::Null);
        deleted.expect("there is such an object");
    }

    /// The object is gone at once, whatever its finalizers.
    pub fn remove<K: Kind>(&self, namespace: &str, name: &str) {
        self.state().remove(&key::<K>(namespace, name));
    }

    /// Every request so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Forgets the requests so far.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// Is asked before each request takes effect; None lets it through. It may use this server.
    pub fn intercept(&self, intercept: impl Fn(&Call) -> Option<Intercept> + Send + Sync + 'static) {
        self.state().intercept = Some(Arc::new(intercept));
    }

    /// Lets all requests through.
    pub fn clear_intercept(&self) {
        self.state().intercept = None;
    }

    /// Ends every open watch with 410, so that clients list anew. They hear of nothing that happens until they do.
    pub fn break_watches(&self) {
        self.state().tell(&Key::default(), None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn serve(self, request: http::Request<Body>) -> io::Result<http::Response<StreamBody>> {
        let accept = request
            .headers()
            .get("accept")
            .map_or("", |accept| accept.to_str().unwrap());
        let is_partial = accept.contains("as=PartialObjectMetadata");
        let shape: Shape = if is_partial { partial } else { |whole| whole };
        let call = Call::read(request).await;
        self.state().calls.push(call.clone());
        let intercept = self.state().intercept.clone();
        let decision = intercept.and_then(|intercept| intercept(&call));
        match decision {
            Some(Intercept::Answer(answer)) => return answer.map(response),
            Some(Intercept::HangBefore) => return std::future::pending().await,
            _ => {}
        }
        let answer = self.answer(&call, shape).unwrap_or_else(response);
        match decision {
            Some(Intercept::Hang) => std::future::pending().await,
            Some(Intercept::EffectThen(answer)) => answer.map(response),
            _ => Ok(answer),
        }
    }

    fn answer(&self, call: &Call, shape: Shape) -> Result<http::Response<StreamBody>, (u16, Value)> {
        let uri = format!("/?{}", call.query).parse().unwrap();
        let Query(query) = Query::<HashMap<String, String>>::try_from_uri(&uri).unwrap();
        let parameter = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (key, is_status) = target(&call.path).ok_or_else(|| failure(404, "NotFound"))?;
        let is_collection = key.2.is_empty();
        let mut selection = Selection(key.clone(), parameter("labelSelector"));
        let fields = parameter("fieldSelector");
        fields
            .trim_start_matches("metadata.name=")
            .clone_into(&mut selection.0.2);
        let is_unknown = |part: &str| call.query.contains(part);
        if selection.0.2.contains('=') || selection.1.contains('(') || UNKNOWN.into_iter().any(is_unknown) {
            return Err(failure(400, "BadRequest"));
        }
        if call.method == "GET" && is_collection && matches!(parameter("watch").as_str(), "true" | "1") {
            let events = self.watch(selection, &parameter("resourceVersion"), shape);
            return Ok(http::Response::new(StreamBody::from_stream(events)));
        }
        let mut state = self.state();
        let (code, body) = match (call.method.as_str(), is_collection) {
            ("GET", true) => (200, state.list(&selection)),
            ("GET", false) => (200, state.found(&key)?.clone()),
            ("POST", true) => state.post(&key, call.body.clone())?,
            ("PUT", false) => state.write(&key, is_status, call.body.clone())?,
            ("PATCH", false) => state.patch(&key, is_status, call, parameter("fieldManager"))?,
            ("DELETE", false) if !is_status => state.delete(&key, &call.body["preconditions"])?,
            _ => return Err(failure(405, "MethodNotAllowed")),
        };
        Ok(response((code, shape(body))))
    }

    /// What happens after a version.
    fn watch(
        &self,
        selection: Selection,
        since: &str,
        shape: Shape,
    ) -> impl Stream<Item = io::Result<String>> + use<> {
        let state = self.state();
        let (since, server, news) = (since.parse().unwrap_or(0), self.clone(), state.news.subscribe());
        let start = state.log.partition_point(|change| change.version <= since);
        let broken = state.log[start..].iter().position(Change::is_break).unwrap_or(0);
        let watch = (server, selection, news, start + broken);
        stream::unfold(Some(watch), move |watch| async move {
            let (server, selection, mut news, mut position) = watch?;
            loop {
                let change = server.state().log.get(position).cloned();
                let Some(change) = change else {
                    news.changed().await.ok()?;
                    continue;
                };
                position += 1;
                if change.is_break() {
                    let event = json!({ "type": "ERROR", "object": failure(410, "Expired").1 });
                    return Some((Ok(format!("{event}\n")), None));
                }
                if let Some((what, object)) = change.seen_by(&selection) {
                    let event = json!({ "type": what, "object": shape(object) });
                    return Some((
                        Ok(format!("{event}\n")),
                        Some((server, selection, news, position)),
                    ));
                }
            }
        })
    }
}

/// Parameters that this server does not know, and had better not ignore.
const UNKNOWN: [&str; 2] = ["dryRun=", "sendInitialEvents="];

/// Metadata that no request changes.
const SET_BY_SERVER: [&str; 6] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// API version and plural of a kind, namespace and name. Namespace and name may be empty where several objects are meant.
type Key = (String, String, String);

/// Status code and body of a success or of a failure.
type Reply = Result<(u16, Value), (u16, Value)>;

type Interceptor = dyn Fn(&Call) -> Option<Intercept> + Send + Sync;

/// How much of an object is told.
type Shape = fn(Value) -> Value;

fn key<K: Kind>(namespace: &str, name: &str) -> Key {
    let kind = format!("{} {}", K::api_version(&()), K::plural(&()));
    (kind, namespace.to_owned(), name.to_owned())
}

fn key_of<K: Kind>(object: &K) -> Key {
    let metadata = object.meta();
    let name = metadata.name.as_deref().expect("the object has a name");
    key::<K>(metadata.namespace.as_deref().unwrap_or_default(), name)
}

fn typed<K: Kind>(object: Value) -> K {
    serde_json::from_value(object).expect("the stored object is of its kind")
}

/// What a path leads to, and whether to its status.
fn target(path: &str) -> Option<(Key, bool)> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status"]) => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name) = match rest {
        [plural] => (plural, ""),
        [plural, name] | [plural, name, "status"] => (plural, *name),
        _ => return None,
    };
    let kind = format!("{version} {plural}");
    let key = (kind, namespace.to_owned(), name.to_owned());
    Some((key, rest.len() == 3))
}

/// The objects of a kind, namespace and name, where given, that have some labels.
struct Selection(Key, String);

impl Selection {
    fn has(&self, (kind, namespace, name): &Key, object: &Value) -> bool {
        let Self((of_kind, within, called), labels) = self;
        let is_there = (within.is_empty() || within == namespace) && (called.is_empty() || called == name);
        let label = |name: &str| object["metadata"]["labels"][name].as_str();
        let mut terms = labels.split(',').map(str::trim).filter(|term| !term.is_empty());
        let all_hold = terms.all(|term| match term.split_once('=') {
            Some((name, value)) if name.ends_with('!') => label(name.trim_end_matches('!')) != Some(value),
            Some((name, value)) => label(name) == Some(value.trim_start_matches('=')),
            None => term
                .strip_prefix('!')
                .map_or_else(|| label(term).is_some(), |name| label(name).is_none()),
        });
        kind == of_kind && is_there && all_hold
    }
}

/// An object before and after a write. Without either, all watches end.
#[derive(Clone)]
struct Change {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    fn is_break(&self) -> bool {
        self.before.is_none() && self.after.is_none()
    }

    fn seen_by(self, selection: &Selection) -> Option<(&'static str, Value)> {
        let is_seen = |object: &Value| selection.has(&self.key, object);
        match (self.before.filter(is_seen), self.after.filter(is_seen)) {
            (None, None) => None,
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(mut last), None) => {
                last["metadata"]["resourceVersion"] = json!(self.version.to_string());
                Some(("DELETED", last))
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// Of the last write.
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// What was applied last, by object, whether it was the status, and manager.
    applied: BTreeMap<(Key, bool, String), Value>,
    log: Vec<Change>,
    news: watch::Sender<()>,
    calls: Vec<Call>,
    intercept: Option<Arc<Interceptor>>,
}

impl State {
    /// Tells watches what has become of an object.
    fn tell(&mut self, key: &Key, before: Option<Value>) {
        let (version, key, after) = (self.version, key.clone(), self.objects.get(key).cloned());
        let change = Change {
            version,
            key,
            before,
            after,
        };
        self.log.push(change);
        self.news.send_replace(());
    }

    fn found(&self, key: &Key) -> Result<&Value, (u16, Value)> {
        self.objects.get(key).ok_or_else(|| failure(404, "NotFound"))
    }

    fn select(&self, selection: &Selection) -> Vec<Value> {
        let selected = self
            .objects
            .iter()
            .filter(|(key, object)| selection.has(key, object));
        selected.map(|(_, object)| object.clone()).collect()
    }

    fn list(&self, selection: &Selection) -> Value {
        let items = self.select(selection);
        let kind = items
            .first()
            .and_then(|item| item["kind"].as_str())
            .unwrap_or_default();
        let (api, _) = selection.0.0.split_once(' ').unwrap();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        json!({ "kind": format!("{kind}List"), "apiVersion": api, "metadata": metadata, "items": items })
    }

    /// Stores a new object with all that it lacks.
    fn add(&mut self, key: &Key, mut object: Value) -> Value {
        let uid = format!("00000000-0000-4000-8000-{:012}", self.version);
        let defaults = json!({
            "name": key.2, "namespace": key.1, "uid": uid, "generation": 1, "creationTimestamp": now(),
        });
        for (field, value) in defaults.as_object().unwrap() {
            if object["metadata"][field].is_null() && *value != "" {
                object["metadata"][field] = value.clone();
            }
        }
        self.store(key, object, true)
    }

    /// Stores an object, and returns it as stored. One that is being deleted is removed with its last finalizer. One that
    /// is as before is only stored if that is `forced`.
    fn store(&mut self, key: &Key, mut object: Value, forced: bool) -> Value {
        let is_empty = |value: &Value| value.is_null() || *value == json!([]) || *value == json!({});
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.retain(|field, value| !is_empty(value) && field != "managedFields");
        let before = self.objects.get(key).cloned();
        if let Some(before) = &before {
            let generation = before["metadata"]["generation"].as_u64();
            if before["spec"] != object["spec"] && object["metadata"]["generation"].as_u64() <= generation {
                object["metadata"]["generation"] = json!(generation.unwrap_or_default() + 1);
            }
            if !forced && *before == object {
                return object;
            }
        }
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        let is_released = metadata.get("deletionTimestamp").is_some() && metadata.get("finalizers").is_none();
        if before.is_some() && is_released {
            self.forget(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        self.tell(key, before);
        object
    }

    fn forget(&mut self, key: &Key) -> Option<Value> {
        self.applied.retain(|(of, ..), _| of != key);
        self.objects.remove(key)
    }

    fn remove(&mut self, key: &Key) {
        let before = self.forget(key);
        assert!(before.is_some(), "{key:?} does not exist");
        self.version += 1;
        self.tell(key, before);
    }

    fn post(&mut self, (kind, namespace, _): &Key, mut object: Value) -> Reply {
        let metadata = &object["metadata"];
        let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(prefix)) => format!("{prefix}{:05}", self.version),
            (None, None) => return Err(failure(422, "Invalid")),
        };
        if metadata["namespace"]
            .as_str()
            .is_some_and(|given| given != namespace)
        {
            return Err(failure(400, "BadRequest"));
        }
        let key = (kind.clone(), namespace.clone(), name);
        if self.objects.contains_key(&key) {
            return Err(failure(409, "AlreadyExists"));
        }
        for field in SET_BY_SERVER {
            set(&mut object["metadata"], field, Value::Null);
        }
        set(&mut object, "status", Value::Null);
        Ok((201, self.add(&key, object)))
    }

    /// Puts `new` in place of an object, or its status in place of the object's.
    fn write(&mut self, key: &Key, is_status: bool, mut new: Value) -> Reply {
        let old = self.found(key)?.clone();
        let (held, given) = (&old["metadata"], &new["metadata"]);
        let differs = |field: &str| !given[field].is_null() && given[field] != held[field];
        if differs("name") || differs("namespace") {
            return Err(failure(400, "BadRequest"));
        }
        // The uid that comes with a status is ignored.
        if differs("resourceVersion") || (!is_status && differs("uid")) {
            return Err(failure(409, "Conflict"));
        }
        if is_status {
            let status = std::mem::replace(&mut new, old)["status"].take();
            set(&mut new, "status", status);
        } else {
            for field in SET_BY_SERVER.into_iter().chain(["name", "namespace"]) {
                set(&mut new["metadata"], field, held[field].clone());
            }
            for field in ["apiVersion", "kind", "status"] {
                set(&mut new, field, old[field].clone());
            }
        }
        Ok((200, self.store(key, new, false)))
    }

    fn patch(&mut self, key: &Key, is_status: bool, call: &Call, manager: String) -> Reply {
        if call.content_type == "application/apply-patch+yaml" {
            return self.apply(key, is_status, &call.body, manager);
        }
        let mut object = self.found(key)?.clone();
        match call.content_type.as_str() {
            "application/merge-patch+json" => json_patch::merge(&mut object, &call.body),
            "application/json-patch+json" => {
                let mut operations = call.body.clone();
                // An absent value tests as null.
                let is_absent = |operation: &Value| {
                    let path = operation["path"].as_str().unwrap_or_default();
                    operation["op"] == "test"
                        && operation["value"].is_null()
                        && object.pointer(path).is_none()
                };
                if let Some(operations) = operations.as_array_mut() {
                    operations.retain(|operation| !is_absent(operation));
                }
                let patch = serde_json::from_value::<json_patch::Patch>(operations);
                let patch = patch.map_err(|_| failure(400, "BadRequest"))?;
                json_patch::patch(&mut object, &patch).map_err(|_| failure(422, "Invalid"))?;
            }
            _ => return Err(failure(415, "UnsupportedMediaType")),
        }
        self.write(key, is_status, object)
    }

    /// Server-side apply, as if a field had no other manager. Lists are replaced.
    fn apply(&mut self, key: &Key, is_status: bool, body: &Value, manager: String) -> Reply {
        let (guards, mut fields) = (&body["metadata"], body.clone());
        let is_guarded = !guards["uid"].is_null() || !guards["resourceVersion"].is_null();
        if is_status {
            fields = json!({});
            set(&mut fields, "status", body["status"].clone());
        } else {
            set(&mut fields, "status", Value::Null);
            for field in SET_BY_SERVER {
                set(&mut fields["metadata"], field, Value::Null);
            }
        }
        let id = (key.clone(), is_status, manager);
        let reply = match self.objects.get(key).cloned() {
            _ if id.2.is_empty() => return Err(failure(400, "BadRequest")),
            Some(mut object) => {
                if let Some(last) = self.applied.get(&id) {
                    drop_vanished(&mut object, last, Some(&fields));
                }
                merge(&mut object, &fields);
                set(&mut object["metadata"], "uid", guards["uid"].clone());
                set(
                    &mut object["metadata"],
                    "resourceVersion",
                    guards["resourceVersion"].clone(),
                );
                self.write(key, is_status, object)?
            }
            None if is_status => return Err(failure(404, "NotFound")),
            None if is_guarded => return Err(failure(409, "Conflict")),
            None => {
                let mut object = fields.clone();
                object["metadata"]["name"] = json!(key.2);
                self.post(key, object)?
            }
        };
        if self.objects.contains_key(key) {
            self.applied.insert(id, fields);
        }
        Ok(reply)
    }

    fn delete(&mut self, key: &Key, preconditions: &Value) -> Reply {
        let mut object = self.found(key)?.clone();
        let metadata = &mut object["metadata"];
        let differs =
            |field: &str| !preconditions[field].is_null() && preconditions[field] != metadata[field];
        if differs("uid") || differs("resourceVersion") {
            return Err(failure(409, "Conflict"));
        }
        if metadata.get("finalizers").is_none() {
            self.remove(key);
            let details = json!({ "name": key.2, "uid": metadata["uid"] });
            let status =
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "details": details });
            return Ok((200, status));
        }
        if metadata.get("deletionTimestamp").is_none() {
            metadata["deletionTimestamp"] = now();
            metadata["deletionGracePeriodSeconds"] = json!(0);
            metadata["generation"] = json!(metadata["generation"].as_u64().unwrap_or_default() + 1);
        }
        Ok((200, self.store(key, object, false)))
    }
}

fn now() -> Value {
    json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Sets a field, or removes it if the value is null.
fn set(object: &mut Value, field: &str, value: Value) {
    object[field] = value;
    if object[field].is_null() {
        object.as_object_mut().unwrap().remove(field);
    }
}

/// An object, or each of a list, without all but its metadata. A `Status` is left as it is.
fn partial(mut object: Value) -> Value {
    let metadata = object["metadata"].take();
    if object["kind"] == "Status" {
        return object;
    }
    if let Value::Array(items) = object["items"].take() {
        let items: Vec<Value> = items.into_iter().map(partial).collect();
        let kind = "PartialObjectMetadataList";
        return json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items });
    }
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Removes from `object` what was applied last and is not applied now, and what is empty then.
fn drop_vanished(object: &mut Value, last: &Value, now: Option<&Value>) {
    let (Some(object), Some(last)) = (object.as_object_mut(), last.as_object()) else {
        return;
    };
    for (field, last) in last {
        let now = now.and_then(|now| now.get(field));
        let Some(value) = object.get_mut(field) else {
            continue;
        };
        drop_vanished(value, last, now);
        let has_more = last.as_object().is_some_and(|last| !last.is_empty()) && *value != json!({});
        if now.is_none() && !has_more {
            object.remove(field);
        }
    }
}

#[cfg(test)]
mod tests;
