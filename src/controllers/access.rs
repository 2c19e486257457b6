//! The way from an object to Composio: its API key (its own Secret, or the key that the operator shares) and the
//! connection of that key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;

use crate::api::common::Managed;
use crate::api::reddit_connection::ApiKeyStatus;
use crate::api::{Reason, SecretKeyRef};
use crate::composio::{self, Connection, Connections};
use crate::runtime::failure::{Failure, Scope};
use crate::runtime::view::View;
use crate::runtime::wake_ups::ObjectKey;

/// How long a key read from a Secret is used before the Secret is read again. Short, so that a rotated key is picked up
/// soon; long enough that a restart with thousands of objects does not read one Secret thousands of times.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// The way of all objects to Composio.
pub struct Access {
    keys: Keys,
    connections: Arc<Connections<ObjectKey>>,
    requests: Requests,
}

impl Access {
    /// `own_key` is the operator's own key, for objects in `shared_with` that name no Secret.
    pub fn new(
        client: Client,
        connections: Arc<Connections<ObjectKey>>,
        own_key: Option<SecretString>,
        shared_with: SharedWith,
    ) -> Self {
        Self {
            keys: Keys::new(client, own_key, shared_with),
            connections,
            requests: Requests::default(),
        }
    }

    /// The connection of an object that names `reference`. A rejected key is tried again if a person asked for that.
    pub async fn connect<K: Managed>(
        &self,
        view: &View<'_, K>,
        reference: Option<&SecretKeyRef>,
    ) -> Result<Arc<Connection<ObjectKey>>, Failure> {
        let key = self.keys.find(view.namespace, reference).await?;
        let connection = self.connections.connection(&key).map_err(|error| {
            Failure::stalled(
                Reason::ApiKeyRejected,
                format!("the API key cannot be used: {error}"),
            )
        })?;
        let request = view.pending_request();
        if request.is_some_and(|token| self.requests.is_new(view.uid, token)) {
            connection.try_again();
        }
        if connection.is_unauthorized() {
            return Err(Failure::stalled(
                Reason::ApiKeyRejected,
                match reference {
                    Some(SecretKeyRef { name, key }) => format!(
                        "Composio rejects the API key in Secret {name}, key {key}; put a valid project key there. It is \
                         checked about once a minute, and at once when the object is annotated with \
                         composio-operator.dev/requested-at"
                    ),
                    None => "Composio rejects the operator's own API key (COMPOSIO_API_KEY); replace it and restart the \
                             operator, or set spec.apiKeySecretRef"
                        .to_owned(),
                },
            ));
        }
        Ok(connection)
    }

    /// The connection of the key that an account was last seen with, for an object in `namespace` that names another key by
    /// now. None if that key is not where it was.
    pub async fn former(
        &self,
        namespace: &str,
        key: &ApiKeyStatus,
    ) -> Result<Option<Arc<Connection<ObjectKey>>>, Failure> {
        let found = match self.keys.find(namespace, key.secret_ref.as_ref()).await {
            Ok(found) => found,
            Err(failure) if failure.reason.policy().scope == Scope::ApiKey => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let connection = self.connections.connection(&found).ok();
        Ok(connection.filter(|connection| {
            connection.fingerprint() == key.fingerprint && !connection.is_unauthorized()
        }))
    }

    /// Stops polling for an object with every key but that of `keep`.
    pub fn unfollow(&self, key: &ObjectKey, keep: Option<&Connection<ObjectKey>>) {
        self.connections.unfollow(key, keep);
    }

    /// Stops polling for objects that do not exist.
    pub fn retain(&self, exists: &dyn Fn(&ObjectKey) -> bool) {
        self.connections.retain_followers(exists);
    }

    /// Drops what is kept about an object that is gone.
    pub fn forget(&self, key: &ObjectKey, uid: &str) {
        self.connections.unfollow(key, None);
        self.requests.forget(uid);
    }
}

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
        let names: Vec<_> = names.iter().map(|name| name.trim().to_owned()).collect();
        if names.iter().any(|name| name == "*") {
            Self::All
        } else {
            Self::Namespaces(names)
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
struct Keys {
    client: Client,
    own_key: Option<SecretString>,
    shared_with: SharedWith,
    recent: Mutex<HashMap<Place, (Instant, SecretString)>>,
}

impl Keys {
    fn new(client: Client, own_key: Option<SecretString>, shared_with: SharedWith) -> Self {
        Self {
            client,
            own_key,
            shared_with,
            recent: Mutex::default(),
        }
    }

    /// The key for an object in `namespace` that names `reference`.
    async fn find(&self, namespace: &str, reference: Option<&SecretKeyRef>) -> Result<SecretString, Failure> {
        match reference {
            Some(reference) => self.read_secret(namespace, reference).await,
            None => match &self.own_key {
                Some(key) if self.shared_with.includes(namespace) => Ok(key.clone()),
                Some(_) => Err(Failure::stalled(
                    Reason::ApiKeyNotShared,
                    format!(
                        "this installation does not share its API key with namespace {namespace}; set spec.apiKeySecretRef, or have \
                         the installation's composio.sharedKeyNamespaces name the namespace"
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

/// The last request token of each object that asked for a rejected API key to be tried again at once. A token asks for that
/// once, however often the object is reconciled until the request is handled.
#[derive(Default)]
struct Requests(Mutex<HashMap<String, String>>);

impl Requests {
    /// Whether the object with this uid was not seen with this token before.
    fn is_new(&self, uid: &str, token: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(uid.to_owned(), token.to_owned()).as_deref() != Some(token)
    }

    /// Forgets an object that is gone.
    fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The failure that an error of Composio stands for. `refused` is its reason if Composio rejects the request itself (4xx).
pub fn composio_failure(error: &composio::Error, refused: Reason) -> Failure {
    let message = error.to_string();
    if error.is_unauthorized() {
        return Failure::stalled(
            Reason::ApiKeyRejected,
            // Without Composio's own words, which quote the beginning of the key.
            "Composio rejects the API key (401); replace it with a valid project key",
        );
    }
    if error.is_forbidden() {
        return Failure::stalled(
            Reason::ApiKeyForbidden,
            format!("the API key lacks the scope for this; use a key that has it. {message}"),
        );
    }
    // The number of seconds is left out of the messages: it would change with every reconcile.
    if error.is_rate_limited() {
        let message = "Composio refuses more requests with the API key for now";
        return Failure::waiting(Reason::RateLimited, message, error.retry_after());
    }
    if error.is_throttled() {
        let message = "waits for its turn: the API key's share of the rate limit is used up for now";
        return Failure::waiting(Reason::WaitingForTurn, message, error.retry_after());
    }
    match error {
        composio::Error::Decode { .. } => Failure::transient(Reason::InvalidResponse, message),
        _ if error.is_transient() => Failure {
            retry_after: error.retry_after(),
            ..Failure::transient(Reason::ComposioUnavailable, message)
        },
        _ => Failure::stalled(refused, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_shares_with_every_namespace() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(SharedWith::from_names(&names(&["*"])).includes("anything"));
        let some = SharedWith::from_names(&names(&["a", "b"]));
        assert!(some.includes("b") && !some.includes("c"));
        assert!(!SharedWith::from_names(&[]).includes("a"));
    }

    #[test]
    fn a_request_token_is_new_once_for_each_object() {
        let requests = Requests::default();
        let new = |uid, token| requests.is_new(uid, token);
        assert!(new("alice", "1") && !new("alice", "1"));
        assert!(new("bob", "1") && !new("alice", "1"));
        assert!(new("alice", "2") && !new("alice", "2"));
        requests.forget("alice");
        assert!(new("alice", "2") && !new("bob", "1"));
    }
}
