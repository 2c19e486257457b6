//! A reference to one key of a Secret in the object's own namespace.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
