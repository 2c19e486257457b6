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
    pub fn forget(&self, owner: &Owner, uid: &str) {
        self.composio.unfollow(owner, None);
        self.requests.forget(uid);
        self.events.forget(uid);
    }
}

/// The last request token of each object that asked for a rejected API key, or a Composio out of order, to be tried
/// again at once. A token asks for that once, however often the object is looked at until it is answered.
#[derive(Default)]
pub struct Requests(Mutex<HashMap<String, String>>);

impl Requests {
    /// Whether the object with this uid was not seen with this token before.
    pub fn is_new(&self, uid: &str, token: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(uid.to_owned(), token.to_owned()).as_deref() != Some(token)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
