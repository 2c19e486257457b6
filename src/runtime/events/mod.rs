//! Publishes Kubernetes events (`events.k8s.io/v1`), the story of an object that `kubectl describe` tells.
//!
//! kube's own `Recorder` folds events into one by reason and action alone and keeps the first note, so that under one
//! reason a second, different failure would show as a repetition of the first. Here the note belongs to the identity:
//! a note that changed is news and becomes an event of its own; one that did not raises the count of the event that is
//! already there. Writing happens at the caller's side and costs at most one request, whose failure is counted and
//! logged and never fails the caller.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::{EventType, Reporter};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::failure::explain;
use crate::redact::redact;
use crate::telemetry::metrics::{EventOutcome, Metrics};

/// Longest note, in bytes, that the API server accepts (`NoteLengthLimit` of its event validation).
const MAX_NOTE: usize = 1024;
/// Longest reporting instance, in bytes, by the same validation.
const MAX_INSTANCE: usize = 128;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// How long an event is remembered after it was last seen: client-go's time after which a series ends.
const REMEMBER: Duration = Duration::from_mins(6);
/// Shortest time between two writes of one event's count; repetitions in between are added to the next.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// Most events remembered, some 3 MB. Beyond it the one seen longest ago is forgotten, which costs a duplicate at worst.
const MAX_REMEMBERED: usize = 16_384;
/// Longest time for one write: the caller waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the operator was doing: the action of every event.
const ACTION: &str = "Reconcile";

/// Something to tell people about an object: an event, and a line in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// A Warning rather than Normal.
    pub warning: bool,
    /// Why, from a closed set: `PascalCase`, at most 128 bytes.
    pub reason: &'static str,
    /// One sentence for a person, cut at 1024 bytes. It must hold no secret; what looks like one is taken out.
    pub note: String,
}

/// Publishes the events of one controller. Cheap to clone; clones share what they remember.
///
/// Needs the verbs create and patch on `events.k8s.io/events`.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    client: Client,
    controller: String,
    instance: String,
    metrics: Metrics,
    ledger: Mutex<Ledger>,
}

impl Publisher {
    /// `reporter.controller` is a qualified name, such as `composio-operator.dev/redditconnection`; without an instance it
    /// stands for that as well.
    pub fn new(client: Client, reporter: Reporter, metrics: Metrics) -> Self {
        let instance = reporter.instance.unwrap_or_else(|| reporter.controller.clone());
        Self(Arc::new(Inner {
            client,
            instance: cut(&instance, MAX_INSTANCE, "").to_owned(),
            controller: reporter.controller,
            metrics,
            ledger: Mutex::default(),
        }))
    }

    /// Publishes an announcement about an object, and logs it.
    pub async fn announce(&self, regarding: &ObjectReference, announcement: &Announcement) {
        let Announcement {
            warning,
            reason,
            note,
        } = announcement;
        let type_ = if *warning {
            tracing::warn!(reason, "{note}");
            EventType::Warning
        } else {
            tracing::info!(reason, "{note}");
            EventType::Normal
        };
        self.publish(type_, regarding, reason, note).await;
    }

    /// Forgets what was published about the object with this uid: its problem is solved, or it is gone. Should the
    /// same thing happen again, it is news.
    pub fn forget(&self, uid: &str) {
        self.with_ledger(|ledger| ledger.forget(uid));
    }

    async fn publish(&self, type_: EventType, regarding: &ObjectReference, reason: &'static str, note: &str) {
        let note = cut_note(&redact(note));
        let key = Key {
            uid: regarding.uid.clone().unwrap_or_default(),
            // A reference may lack the uid; its name then has to do.
            object: [&regarding.kind, &regarding.namespace, &regarding.name]
                .map(|part| part.clone().unwrap_or_default()),
            type_,
            reason,
        };
        let step = self
            .with_ledger(|ledger| ledger.next(key.clone(), hash(&note), Instant::now(), Timestamp::now()));
        let written = match &step {
            Step::Create { suffix } => self.create(regarding, type_, reason, &note, *suffix).await,
            Step::Update { suffix, count } => self.update(regarding, *suffix, *count).await,
            Step::Suppress => Ok(()),
        };
        match written {
            Ok(()) => self.0.metrics.event(step.outcome()),
            Err(failure) => {
                // Whatever became of it, the next occurrence is written as a new event.
                self.with_ledger(|ledger| ledger.remove(&key));
                self.0.metrics.event(EventOutcome::Failed);
                failure.log(reason);
            }
        }
    }

    async fn create(
        &self,
        regarding: &ObjectReference,
        type_: EventType,
        reason: &str,
        note: &str,
        suffix: u64,
    ) -> Result<(), Failure> {
        let type_ = match type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(regarding, suffix)),
                namespace: Some(namespace(regarding).to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(regarding.clone()),
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(ACTION.to_owned()),
            note: Some(note.to_owned()),
            reporting_controller: Some(self.0.controller.clone()),
            reporting_instance: Some(self.0.instance.clone()),
            ..Event::default()
        };
        in_time(self.api(regarding).create(&PostParams::default(), &event)).await
    }

    async fn update(&self, regarding: &ObjectReference, suffix: u64, count: i32) -> Result<(), Failure> {
        let series = json!({ "series": { "count": count, "lastObservedTime": MicroTime(Timestamp::now()) } });
        let name = event_name(regarding, suffix);
        in_time(
            self.api(regarding)
                .patch(&name, &PatchParams::default(), &Patch::Merge(series)),
        )
        .await
    }

    fn api(&self, regarding: &ObjectReference) -> Api<Event> {
        Api::namespaced(self.0.client.clone(), namespace(regarding))
    }

    fn with_ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        // The ledger is consistent after each of its methods, so a panic elsewhere does not spoil it.
        act(&mut self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Failure {
    Refused(kube::Error),
    TimedOut,
}

impl Failure {
    /// The span around the caller names the object.
    fn log(&self, event: &str) {
        match self {
            // The event expired, or its namespace is being deleted: nobody misses anything.
            Self::Refused(kube::Error::Api(status)) if status.is_not_found() || is_terminating(status) => {
                tracing::debug!(event, error = %status.message, "event not published");
            }
            Self::Refused(error) => {
                tracing::warn!(event, error = explain(error), "event not published");
            }
            Self::TimedOut => tracing::warn!(event, "event not published: no answer in time"),
        }
    }
}

/// The API server's cause for refusing new objects in a namespace that is being deleted.
fn is_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

async fn in_time<T>(write: impl Future<Output = kube::Result<T>>) -> Result<(), Failure> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::Refused(error)),
        Err(_elapsed) => Err(Failure::TimedOut),
    }
}

/// Events of cluster-scoped objects live in `default`, by convention of all Kubernetes components.
fn namespace(regarding: &ObjectReference) -> &str {
    regarding.namespace.as_deref().unwrap_or("default")
}

/// `<object>.<suffix>` as every event is called; a long object name is cut, and so that the rest is a valid name.
fn event_name(regarding: &ObjectReference, suffix: u64) -> String {
    let suffix = format!(".{suffix:x}");
    let object = cut(
        regarding.name.as_deref().unwrap_or_default(),
        MAX_NAME - suffix.len(),
        "",
    );
    format!("{}{suffix}", object.trim_end_matches(['.', '-']))
}

fn cut_note(note: &str) -> String {
    if note.len() <= MAX_NOTE {
        note.to_owned()
    } else {
        format!("{}…", cut(note, MAX_NOTE, "…"))
    }
}

/// The longest prefix of `text` that, with `end` behind it, has at most `max` bytes and does not split a character.
fn cut<'a>(text: &'a str, max: usize, end: &str) -> &'a str {
    let mut length = text.len().min(max.saturating_sub(end.len()));
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    &text[..length]
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What an event is about; the note is compared besides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    object: [String; 3],
    type_: EventType,
    reason: &'static str,
}

/// The newest event of a key.
#[derive(Debug)]
struct Entry {
    note: u64,
    suffix: u64,
    count: i32,
    seen: Instant,
    written: Instant,
}

/// How one occurrence is published.
#[derive(Debug, PartialEq)]
enum Step {
    /// A new event, whose name ends with `suffix`.
    Create { suffix: u64 },
    /// The event whose name ends with `suffix` has now happened `count` times.
    Update { suffix: u64, count: i32 },
    /// Only remembered.
    Suppress,
}

impl Step {
    fn outcome(&self) -> EventOutcome {
        match self {
            Self::Create { .. } => EventOutcome::Created,
            Self::Update { .. } => EventOutcome::Updated,
            Self::Suppress => EventOutcome::Suppressed,
        }
    }
}

/// What was published lately.
#[derive(Debug, Default)]
struct Ledger {
    entries: HashMap<Key, Entry>,
    swept: Option<Instant>,
    last_suffix: u64,
}

impl Ledger {
    /// Decides how an occurrence of `key` with this note is published, and remembers that it was.
    fn next(&mut self, key: Key, note: u64, now: Instant, clock: Timestamp) -> Step {
        self.sweep(now);
        if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.note == note) {
            entry.count = entry.count.saturating_add(1);
            entry.seen = now;
            if now.saturating_duration_since(entry.written) < COUNT_EVERY {
                return Step::Suppress;
            }
            entry.written = now;
            return Step::Update {
                suffix: entry.suffix,
                count: entry.count,
            };
        }
        if self.entries.len() >= MAX_REMEMBERED && !self.entries.contains_key(&key) {
            self.forget_oldest();
        }
        let suffix = self.unique_suffix(clock);
        self.entries.insert(
            key,
            Entry {
                note,
                suffix,
                count: 1,
                seen: now,
                written: now,
            },
        );
        Step::Create { suffix }
    }

    fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    fn forget(&mut self, uid: &str) {
        self.entries.retain(|key, _| key.uid != uid);
    }

    /// Drops what is too old. At most twice in that age, so that its cost does not depend on the rate of events.
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) >= REMEMBER / 2 {
            self.swept = Some(now);
            self.entries
                .retain(|_, entry| now.saturating_duration_since(entry.seen) < REMEMBER);
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.seen)
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }

    /// The time in nanoseconds, as other reporters use it, but never the same twice.
    fn unique_suffix(&mut self, clock: Timestamp) -> u64 {
        let nanos = u64::try_from(clock.as_nanosecond()).unwrap_or_default();
        self.last_suffix = nanos.max(self.last_suffix + 1);
        self.last_suffix
    }
}

#[cfg(test)]
mod tests;
