//! What every reconcile is handed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;

use crate::composio::Registry;
use crate::controllers::announcement::Announcement;
use crate::controllers::auth_configs::AuthConfigs;
use crate::controllers::credentials::Credentials;
use crate::controllers::schema_cache::memory::Memory;
use crate::kube_io::events::Publisher;
use crate::kube_io::lease::Leadership;
use crate::telemetry::metrics::Metrics;

/// Names one object of one controller.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What every reconcile is handed.
pub struct Context {
    /// Kubernetes.
    pub client: kube::Client,
    /// Composio, one connection per API key.
    pub composio: Registry<Owner>,
    /// Where API keys come from.
    pub credentials: Credentials,
    /// Auth configs seen lately.
    pub auth_configs: AuthConfigs,
    /// Version of the Reddit toolkit that tools are run with.
    pub toolkit_version: String,
    /// Requests of people that were seen.
    pub requests: Requests,
    /// What is remembered of schema caches.
    pub schemas: Memory,
    /// Events.
    pub events: Publisher,
    /// Metrics.
    pub metrics: Metrics,
    /// Asked before each change at Composio.
    pub leadership: Leadership,
    /// Longest time one pass may take.
    pub pass_timeout: Duration,
}

impl Context {
    /// Tells people through an Event on `regarding`, and through the log.
    pub async fn announce(&self, regarding: &ObjectReference, action: &'static str, told: &Announcement) {
        let (namespace, object) = (&regarding.namespace, &regarding.name);
        let (reason, note) = (told.reason, &told.note);
        if told.warning {
            tracing::warn!(namespace, object, reason, "{note}");
            self.events
                .warning(regarding, told.reason, action, &told.note)
                .await;
        } else {
            tracing::info!(namespace, object, reason, "{note}");
            self.events
                .normal(regarding, told.reason, action, &told.note)
                .await;
        }
    }

    /// Drops what is kept about an object that is gone.
    pub fn forget(&self, owner: &Owner) {
        self.composio.unfollow(owner, None);
        self.requests.forget(owner);
    }
}

/// The last request token of each object that asked for a rejected API key, or a Composio out of order, to be tried
/// again at once. A token asks for that once, however often the object is looked at until it is answered.
#[derive(Default)]
pub struct Requests(Mutex<HashMap<Owner, String>>);

impl Requests {
    /// Whether this token was not seen before.
    pub fn is_new(&self, owner: &Owner, token: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(owner.clone(), token.to_owned()).as_deref() != Some(token)
    }

    fn forget(&self, owner: &Owner) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_token_is_new_once_for_each_object() {
        let owner = |name: &str| Owner {
            namespace: "team".to_owned(),
            name: name.to_owned(),
        };
        let requests = Requests::default();
        let new = |name, token| requests.is_new(&owner(name), token);
        assert!(new("alice", "1") && !new("alice", "1"));
        assert!(new("bob", "1") && !new("alice", "1"));
        assert!(new("alice", "2") && !new("alice", "2"));
        requests.forget(&owner("alice"));
        assert!(new("alice", "2") && !new("bob", "1"));
    }
}
