//! Around each reconcile: its span, its time limit, its metrics, and what happens if it ends early.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DeserializeGuard;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use tracing::Instrument;

use super::backoff::{backoff, jittered, until};
use super::events::Announcement;
use super::failure::explain;
use super::finalizer::remove_finalizer;
use super::reconcile::{Error, MIN_CLEANUP_TIME, Reconciled, abandoned_cleanup, reconcile};
use super::status::is_conflict;
use super::view::has_finalizer;
use super::wake_ups::ObjectKey;
use super::{Context, Controller};
use crate::api::Reason;
use crate::digest::seed;
use crate::telemetry::metrics::Outcome;

/// Wait before an object that changed meanwhile is read again.
const CONFLICT: Duration = Duration::from_millis(250);

/// Wait after the first reconcile of an object that ended early; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Reconciles in a row that ended early, by the uid of the object.
#[derive(Default)]
pub(super) struct EarlyEnds(Mutex<HashMap<String, i64>>);

impl EarlyEnds {
    fn count(&self, uid: &str) -> i64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// What the reconciles of one controller have in common.
pub(super) struct Supervisor<C> {
    pub controller: Arc<C>,
    pub cx: Arc<Context>,
    pub early_ends: EarlyEnds,
}

impl<C: Controller> Supervisor<C> {
    /// One reconcile, whatever becomes of it. It is a task of its own, so that a panic ends the reconcile and not the
    /// operator.
    pub(super) async fn reconcile(self: Arc<Self>, object: Arc<DeserializeGuard<C::Object>>) -> Action {
        let key = ObjectKey::new(C::NAME, &*object);
        let span = tracing::info_span!(
            "reconcile",
            controller = C::NAME,
            namespace = key.namespace,
            object = key.name,
            generation = object.meta().generation,
        );
        let timer = self.cx.metrics.reconcile(C::NAME);
        async move {
            let uid = object.uid().unwrap_or_default();
            match self.attempt(&object, &key).await {
                Ok(Reconciled { action, outcome }) => {
                    self.early_ends.forget(&uid);
                    timer.finish(outcome);
                    action
                }
                Err(end) => {
                    timer.finish(end.outcome());
                    self.ended_early(&object, &uid, &end).await
                }
            }
        }
        .instrument(span)
        .await
    }

    async fn attempt(
        &self,
        object: &DeserializeGuard<C::Object>,
        key: &ObjectKey,
    ) -> Result<Reconciled, EarlyEnd> {
        let object = match &object.0 {
            Ok(object) => object.clone(),
            Err(invalid) => {
                // Nothing is done for what cannot be understood.
                let uid = invalid.metadata.uid.as_deref().unwrap_or_default();
                self.controller.on_deleted(key, uid);
                return Err(EarlyEnd::Unreadable(invalid.error.clone()));
            }
        };
        let (controller, cx) = (Arc::clone(&self.controller), Arc::clone(&self.cx));
        let limit = cx.reconcile_timeout;
        let slots = cx.slots.clone();
        let task = async move {
            let work = tokio::time::timeout(limit, reconcile(&*controller, &cx, object));
            slots
                .work(work)
                .await
                .map_err(|_elapsed| EarlyEnd::TimedOut(limit))?
                .map_err(EarlyEnd::Error)
        };
        tokio::spawn(task.in_current_span())
            .await
            .unwrap_or(Err(EarlyEnd::Panicked))
    }

    /// Tells people, and decides when the object is reconciled again.
    async fn ended_early(&self, object: &DeserializeGuard<C::Object>, uid: &str, end: &EarlyEnd) -> Action {
        match end {
            EarlyEnd::Error(Error::NotLeader) => {
                tracing::warn!("reconcile ended early: not the leader any more");
                return Action::await_change();
            }
            EarlyEnd::Error(Error::Kube(error)) if is_conflict(error) => {
                tracing::debug!("the object changed meanwhile");
                return Action::requeue(CONFLICT);
            }
            // The object or its namespace was deleted meanwhile.
            EarlyEnd::Error(Error::Kube(kube::Error::Api(status))) if status.is_not_found() => {
                tracing::debug!(error = status.message, "the object is gone");
            }
            _ => {
                let reason = end.reason();
                self.cx.metrics.failure(C::NAME, reason.as_str());
                let event = Announcement {
                    warning: true,
                    reason: reason.as_str(),
                    note: end.to_string(),
                };
                self.cx.events.announce(&reference::<C>(object), &event).await;
            }
        }
        if let EarlyEnd::Unreadable(_) = end {
            match self.release_unreadable(object).await {
                Ok(action) => return action,
                Err(error) => tracing::warn!(error = explain(&error), "the finalizer cannot be taken off"),
            }
        }
        let count = self.early_ends.count(uid);
        Action::requeue(jittered(backoff(FIRST_WAIT, count), count, seed(uid)))
    }
}

impl<C: Controller> Supervisor<C> {
    /// What cannot be read cannot be cleaned up: it is let go some time after its deletion, or it would stay for ever.
    async fn release_unreadable(&self, object: &DeserializeGuard<C::Object>) -> kube::Result<Action> {
        let deleted_at = object.meta().deletion_timestamp.as_ref();
        let (Some(finalizer), Some(deleted_at)) = (C::FINALIZER, deleted_at) else {
            return Ok(Action::await_change());
        };
        let left = until(deleted_at.0 + MIN_CLEANUP_TIME, self.cx.clock.now());
        if !left.is_zero() {
            return Ok(Action::requeue(left));
        }
        if self.cx.leadership.is_current(tokio::time::Instant::now()) && has_finalizer(object, finalizer) {
            let namespace = object.namespace().unwrap_or_default();
            let api = Api::namespaced(self.cx.client.clone(), &namespace);
            let metadata: PartialObjectMeta<C::Object> = object.meta().clone().into_response_partial();
            remove_finalizer(&api, &metadata, finalizer).await?;
            let event = abandoned_cleanup("this version of the operator cannot read the object");
            self.cx.events.announce(&reference::<C>(object), &event).await;
        }
        Ok(Action::await_change())
    }
}

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
enum EarlyEnd {
    #[error("{0}; it is tried again")]
    Error(Error),
    #[error("the reconcile timed out after {0:?}; it goes on where the status says")]
    TimedOut(Duration),
    #[error("the reconcile panicked, which is a bug: see the operator's log")]
    Panicked,
    #[error("this version of the operator cannot read the object: {0}; correct or delete it")]
    Unreadable(String),
}

impl EarlyEnd {
    fn reason(&self) -> Reason {
        match self {
            Self::Error(Error::Kube(_) | Error::NotLeader) => Reason::KubernetesApi,
            Self::Error(Error::TooManySteps) => Reason::TooManySteps,
            Self::TimedOut(_) => Reason::ReconcileTimedOut,
            Self::Panicked => Reason::ReconcilePanicked,
            Self::Unreadable(_) => Reason::InvalidObject,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Error(Error::Kube(error)) if is_conflict(error) => Outcome::Waiting,
            Self::TimedOut(_) => Outcome::Abandoned,
            Self::Unreadable(_) => Outcome::Stalled,
            Self::Error(_) | Self::Panicked => Outcome::Failed,
        }
    }
}

/// The object in an event, whether or not it can be read.
fn reference<C: Controller>(object: &DeserializeGuard<C::Object>) -> ObjectReference {
    object.object_ref(&())
}
