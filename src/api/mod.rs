//! The custom resources: types, validation rules and conditions. Plain data, no client, no async.

pub mod composio_schema_cache;
pub mod conditions;
pub mod reddit_connection;
mod retry;
mod secret_ref;

pub use composio_schema_cache::{ComposioSchemaCache, ComposioSchemaCacheSpec, ComposioSchemaCacheStatus};
pub use reddit_connection::{RedditConnection, RedditConnectionSpec, RedditConnectionStatus};
pub use retry::RetryStatus;
pub use secret_ref::SecretKeyRef;

use kube::CustomResourceExt;

/// API group of every resource of this operator.
pub const GROUP: &str = "composio-operator.dev";

/// Version served and stored.
pub const VERSION: &str = "v1alpha1";

/// Annotation that asks for work now. Any token that differs from `status.lastHandledRequestAt` is a request.
pub const REQUESTED_AT_ANNOTATION: &str = "composio-operator.dev/requested-at";

/// Longest request token that is kept as it is, in bytes.
const MAX_REQUEST_TOKEN: usize = 256;

/// The request token of an object. One that is too long for a status stands there as its hash.
pub fn request_token(object: &impl kube::ResourceExt) -> Option<std::borrow::Cow<'_, str>> {
    let token = object.annotations().get(REQUESTED_AT_ANNOTATION)?;
    if token.len() <= MAX_REQUEST_TOKEN {
        return Some(token.into());
    }
    Some(crate::schemas::sha256_hex([token.as_bytes()]).into())
}

/// Label on everything the operator creates, as recommended by Kubernetes.
/// See <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "composio-operator";

/// Every `CustomResourceDefinition`, with the file name it is committed under in `crds/`.
pub fn custom_resource_definitions() -> Vec<(
    &'static str,
    k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
)> {
    vec![
        ("composioschemacaches.yaml", ComposioSchemaCache::crd()),
        ("redditconnections.yaml", RedditConnection::crd()),
    ]
}
