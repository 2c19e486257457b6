//! What a decision may see of an object.

use std::borrow::Cow;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::object::HasSpec;

use super::failure::CurrentFailure;
use super::wake_ups::ObjectKey;
use crate::api::RetryStatus;
use crate::api::common::{Managed, StatusFields, StatusOf, request_token};
use crate::digest;

/// An object, reduced to what decisions read.
#[derive(Clone, Debug)]
pub struct View<'a, K: Managed> {
    /// `metadata.namespace`
    pub namespace: &'a str,
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.uid`
    pub uid: &'a str,
    /// `metadata.generation`
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Token of the request annotation.
    pub requested_at: Option<Cow<'a, str>>,
    /// What is asked for.
    pub spec: &'a K::Spec,
    /// What was known after the last reconcile; the default if the object has none yet.
    pub status: Cow<'a, StatusOf<K>>,
}

impl<'a, K: Managed> From<&'a K> for View<'a, K> {
    fn from(object: &'a K) -> Self {
        let metadata = object.meta();
        Self {
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            name: metadata.name.as_deref().unwrap_or_default(),
            uid: metadata.uid.as_deref().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            requested_at: request_token(object),
            spec: HasSpec::spec(object),
            status: object.status().map_or_else(Cow::default, Cow::Borrowed),
        }
    }
}

impl<K: Managed> View<'_, K> {
    /// A request token that was not acted on yet.
    pub fn pending_request(&self) -> Option<&str> {
        let handled = self.status.fields().last_handled_request_at;
        self.requested_at
            .as_deref()
            .filter(|token| handled != Some(token))
    }

    /// The failure on record, as long as spec and request are the ones it happened with. Deletion counts as a change of
    /// the spec: Kubernetes raises the generation for it.
    pub fn current_failure(&self) -> Option<CurrentFailure> {
        self.current_retry().map(CurrentFailure::from)
    }

    /// The record of [`Self::current_failure`].
    pub fn current_retry(&self) -> Option<&RetryStatus> {
        let fields = self.status.fields();
        let same_spec = fields.observed_generation == Some(self.generation);
        let request = self.pending_request();
        let same_request = |retry: &&RetryStatus| request.is_none() || request == retry.request.as_deref();
        fields.retry.filter(|_| same_spec).filter(same_request)
    }

    /// Whether the whole object waits for the next try after a failure.
    pub fn is_backing_off(&self, now: Timestamp) -> bool {
        self.current_failure()
            .is_some_and(|failure| failure.holds_back(now))
    }

    /// The object's key; `kind` is the name of its controller.
    pub fn key(&self, kind: &'static str) -> ObjectKey {
        ObjectKey {
            kind,
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
        }
    }

    /// Seed for jitter: the same for the same object.
    pub fn seed(&self) -> u64 {
        digest::seed(self.uid)
    }
}

/// Whether `finalizer` is on the object.
pub fn has_finalizer(object: &impl ResourceExt, finalizer: &str) -> bool {
    object.finalizers().iter().any(|present| present == finalizer)
}
