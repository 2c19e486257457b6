//! A reference to one key of a Secret in the object's own namespace.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Names one key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key inside the Secret that holds the Composio project API key.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_key() -> String {
    "apiKey".to_owned()
}
