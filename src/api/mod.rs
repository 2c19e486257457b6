//! The custom resources: types, validation rules and conditions. Plain data, no client, no async.

pub mod common;
pub mod composio_schema_cache;
pub mod conditions;
pub mod reason;
pub mod reddit_connection;

pub use common::{REQUESTED_AT_ANNOTATION, RetryStatus, SecretKeyRef, request_token};
pub use composio_schema_cache::{ComposioSchemaCache, ComposioSchemaCacheSpec, ComposioSchemaCacheStatus};
pub use reason::Reason;
pub use reddit_connection::{RedditConnection, RedditConnectionSpec, RedditConnectionStatus};

use kube::CustomResourceExt;

/// API group of every resource of this operator.
pub const GROUP: &str = "composio-operator.dev";

/// Version served and stored.
pub const VERSION: &str = "v1alpha1";

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
