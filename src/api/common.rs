//! What all resources have in common: fields of their specs and statuses, and the annotation that asks for work.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::object::{HasSpec, HasStatus};
use kube::{KubeSchema, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Annotation that asks for work now. Any token that differs from `status.lastHandledRequestAt` is a request.
pub const REQUESTED_AT_ANNOTATION: &str = "composio-operator.dev/requested-at";

/// Longest request token that is kept as it is, in bytes.
const MAX_REQUEST_TOKEN: usize = 256;

/// The request token of an object. One that is too long for a status stands there as its hash.
pub fn request_token(object: &impl ResourceExt) -> Option<Cow<'_, str>> {
    let token = object.annotations().get(REQUESTED_AT_ANNOTATION)?;
    if token.len() <= MAX_REQUEST_TOKEN {
        return Some(token.into());
    }
    Some(crate::digest::sha256_hex([token.as_bytes()]).into())
}

/// A custom resource of this operator: its spec and status have the fields that the runtime works with.
pub trait Managed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasSpec<Spec: SpecFields>
    + HasStatus<Status: StatusFields>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Managed for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasSpec<Spec: SpecFields>
        + HasStatus<Status: StatusFields>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// The status of a resource.
pub type StatusOf<K> = <K as HasStatus>::Status;
/// The state in a resource's status.
pub type StateOf<K> = <StatusOf<K> as StatusFields>::State;

/// What every spec has.
pub trait SpecFields: Send + Sync {
    /// `spec.suspend`: no work but deletion.
    fn suspend(&self) -> bool;
}

/// What every status has.
pub trait StatusFields: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {
    /// Where the object stands, in one word.
    type State: Copy + Debug + PartialEq + Into<&'static str> + strum::VariantArray + Send + Sync;

    /// The fields that all statuses share.
    fn fields(&self) -> Fields<'_, Self::State>;

    /// The same, to be changed.
    fn fields_mut(&mut self) -> FieldsMut<'_, Self::State>;
}

/// The fields that all statuses share.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a, S> {
    /// `status.observedGeneration`
    pub observed_generation: Option<i64>,
    /// `status.state`
    pub state: Option<S>,
    /// `status.lastHandledRequestAt`
    pub last_handled_request_at: Option<&'a str>,
    /// `status.retry`
    pub retry: Option<&'a RetryStatus>,
    /// `status.conditions`
    pub conditions: &'a [Condition],
}

/// The fields that all statuses share, to be changed.
#[derive(Debug)]
pub struct FieldsMut<'a, S> {
    /// `status.observedGeneration`
    pub observed_generation: &'a mut Option<i64>,
    /// `status.state`
    pub state: &'a mut Option<S>,
    /// `status.lastHandledRequestAt`
    pub last_handled_request_at: &'a mut Option<String>,
    /// `status.retry`
    pub retry: &'a mut Option<RetryStatus>,
    /// `status.conditions`
    pub conditions: &'a mut Vec<Condition>,
}

/// Implements [`SpecFields`] and [`StatusFields`] for types that have these fields under these names. They are not one
/// flattened struct, because their descriptions differ from resource to resource.
macro_rules! managed_fields {
    ($spec:ty, $status:ty, $state:ty) => {
        impl $crate::api::common::SpecFields for $spec {
            fn suspend(&self) -> bool {
                self.suspend
            }
        }

        impl $crate::api::common::StatusFields for $status {
            type State = $state;

            fn fields(&self) -> $crate::api::common::Fields<'_, $state> {
                $crate::api::common::Fields {
                    observed_generation: self.observed_generation,
                    state: self.state,
                    last_handled_request_at: self.last_handled_request_at.as_deref(),
                    retry: self.retry.as_ref(),
                    conditions: &self.conditions,
                }
            }

            fn fields_mut(&mut self) -> $crate::api::common::FieldsMut<'_, $state> {
                $crate::api::common::FieldsMut {
                    observed_generation: &mut self.observed_generation,
                    state: &mut self.state,
                    last_handled_request_at: &mut self.last_handled_request_at,
                    retry: &mut self.retry,
                    conditions: &mut self.conditions,
                }
            }
        }
    };
}
pub(crate) use managed_fields;

/// `status.observedGeneration` of an object that was never reconciled: the API server puts it there, so that kstatus, and
/// with it Helm, Flux and Argo CD, do not take the object for ready before the operator has seen it.
pub const UNOBSERVED: i64 = -1;

/// Failures in a row.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryStatus {
    /// How many.
    pub failures: i64,

    /// When the last one happened.
    pub last_failure_at: Time,

    /// Not tried again before this time. Absent: not before the spec changes or somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,

    /// Why, as in the conditions.
    pub reason: String,

    /// The step that failed. Only its success ends the row. Absent: what is needed to decide on a step could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,

    /// The request (annotation composio-operator.dev/requested-at) that was tried and is still open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Names one key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,

    /// Key inside the Secret that holds the Composio project API key.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

impl SecretKeyRef {
    /// Whether the name can be that of a Secret: a DNS subdomain. Objects that were stored before the schema asked for
    /// it are not trusted, because the name becomes a part of an address.
    pub fn is_valid(&self) -> bool {
        let is_label = |label: &str| {
            label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && label.starts_with(|c: char| c.is_ascii_alphanumeric())
                && label.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        self.name.split('.').all(is_label)
    }
}

fn default_key() -> String {
    "apiKey".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_more_than_a_name_is_refused() {
        let valid = |name: &str| {
            let reference = SecretKeyRef {
                name: name.to_owned(),
                key: default_key(),
            };
            reference.is_valid()
        };
        assert!(["composio", "a.b-c.d0"].into_iter().all(valid));
        assert!(
            ![
                "composio?x=y",
                "../../other/secrets/x",
                "a/status",
                "?labelSelector=x",
                "",
                "a..b",
                "A",
                "-a"
            ]
            .into_iter()
            .any(valid)
        );
    }
}
