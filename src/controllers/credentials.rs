//! Finds the API key of an object: its own Secret, or the key the operator shares.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;

use super::failure::{Failure, Reason};
use crate::api::SecretKeyRef;

/// How long a key read from a Secret is used before the Secret is read again. Short, so that a rotated key is picked up
/// soon; long enough that a restart with thousands of objects does not read one Secret thousands of times.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// Namespaces that may use the operator's own key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SharedWith {
    /// Every namespace.
    All,
    /// These.
    Namespaces(Vec<String>),
}

impl SharedWith {
    /// Reads `*` or a list of names.
    pub fn from_names(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") {
            Self::All
        } else {
            Self::Namespaces(names.to_vec())
        }
    }

    fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.iter().any(|name| name == namespace),
        }
    }
}

type Place = (String, String, String);

/// Finds API keys.
pub struct Credentials {
    client: Client,
    own_key: Option<SecretString>,
    shared_with: SharedWith,
    recent: Mutex<HashMap<Place, (Instant, SecretString)>>,
}

impl Credentials {
    /// `own_key` is the operator's own key, used for objects in `shared_with` that name no Secret.
    pub fn new(client: Client, own_key: Option<SecretString>, shared_with: SharedWith) -> Self {
        Self {
            client,
            own_key,
            shared_with,
            recent: Mutex::default(),
        }
    }

    /// The key for an object in `namespace` that names `reference`.
    pub async fn key(
        &self,
        namespace: &str,
        reference: Option<&SecretKeyRef>,
    ) -> Result<SecretString, Failure> {
        match reference {
            Some(reference) => self.read_secret(namespace, reference).await,
            None => match &self.own_key {
                Some(key) if self.shared_with.includes(namespace) => Ok(key.clone()),
                Some(_) => Err(Failure::stalled(
                    Reason::ApiKeyNotShared,
                    format!(
                        "this installation does not share its API key with namespace {namespace}; set spec.apiKeySecretRef"
                    ),
                )),
                None => Err(Failure::stalled(
                    Reason::ApiKeyNotShared,
                    "the operator has no API key of its own (COMPOSIO_API_KEY); set spec.apiKeySecretRef",
                )),
            },
        }
    }

    async fn read_secret(&self, namespace: &str, reference: &SecretKeyRef) -> Result<SecretString, Failure> {
        let place = (
            namespace.to_owned(),
            reference.name.clone(),
            reference.key.clone(),
        );
        if let Some(key) = self.recent(&place) {
            return Ok(key);
        }
        let missing = |what: String| Err(Failure::waiting(Reason::ApiKeyNotFound, what, None));
        if !reference.is_valid() {
            return Err(Failure::stalled(
                Reason::ApiKeyNotFound,
                format!(
                    "{:?} is no name of a Secret; correct spec.apiKeySecretRef.name",
                    reference.name
                ),
            ));
        }
        let (name, field) = (&reference.name, &reference.key);
        let secret = match Api::<Secret>::namespaced(self.client.clone(), namespace)
            .get_opt(name)
            .await
        {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                return missing(format!(
                    "Secret {name} does not exist in namespace {namespace}; create it, with the API key in {field}"
                ));
            }
            Err(error) => return Err(Failure::from(&error)),
        };
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(field)) else {
            return missing(format!("Secret {name} has no key {field}; put the API key there"));
        };
        // Keys are often stored with the newline of the file they came from.
        match std::str::from_utf8(&bytes.0).map(str::trim) {
            Ok("") => missing(format!("key {field} of Secret {name} is empty")),
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                let key = SecretString::from(text.to_owned());
                self.remember(place, key.clone());
                Ok(key)
            }
            _ => missing(format!(
                "key {field} of Secret {name} is not an API key: it holds unprintable characters"
            )),
        }
    }

    fn recent(&self, place: &Place) -> Option<SecretString> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent
            .get(place)
            .filter(|(read_at, _)| read_at.elapsed() < FRESH_FOR)
            .map(|(_, key)| key.clone())
    }

    fn remember(&self, place: Place, key: SecretString) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, (read_at, _)| read_at.elapsed() < FRESH_FOR);
        recent.insert(place, (Instant::now(), key));
    }
}

#[cfg(test)]
mod tests {
    use super::SharedWith;

    #[test]
    fn a_star_shares_with_every_namespace() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(SharedWith::from_names(&names(&["*"])).includes("anything"));
        let some = SharedWith::from_names(&names(&["a", "b"]));
        assert!(some.includes("b") && !some.includes("c"));
        assert!(!SharedWith::from_names(&[]).includes("a"));
    }
}
