//! The call log: what clients asked, in order, without the secrets they sent or got.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use url::form_urlencoded;

use crate::lock;

/// One API call. It is logged after the request took effect and before the response is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Position in the log, from 1, without gaps.
    pub seq: u64,
    /// When it arrived, by the simulator's clock.
    pub time: Timestamp,
    /// The HTTP method.
    pub method: String,
    /// The path, with the version prefix.
    pub path: String,
    /// The route it was handled by, such as `/connected_accounts/{id}`; absent if there is none.
    pub route: Option<String>,
    /// The raw query string, empty if there is none.
    pub query: String,
    /// The JSON body with secrets blanked; null if there is none, a string if it is not JSON.
    pub body: Value,
    /// The status of the response; absent if the connection was closed or left hanging instead.
    pub status: Option<u16>,
    /// The kind of fault applied.
    pub fault: Option<String>,
    /// How often the request took effect: 0 if a fault, the limiter or the key check kept it out, 2 if a fault
    /// delivered it twice.
    pub executions: u8,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// Fingerprint of the key: tells keys apart without showing them.
    pub key: Option<String>,
    /// The `x-request-id` of the response.
    pub request_id: String,
}

impl Call {
    /// All values of a query parameter, with repeated keys and comma-joined lists taken apart.
    pub fn query_values(&self, name: &str) -> Vec<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// `METHOD route`, such as `POST /connected_accounts/link`.
    pub fn operation(&self) -> String {
        format!(
            "{} {}",
            self.method,
            self.route.as_deref().unwrap_or("(no route)")
        )
    }
}

/// How often a route was called, by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Calls since the start or the last clearing of the log.
    pub total: u64,
    /// Calls the log no longer holds because it was full.
    pub dropped: u64,
    /// `METHOD route` to status to count; the status is `none` where no response was sent.
    pub operations: BTreeMap<String, BTreeMap<String, u64>>,
    /// `METHOD route` to the bytes of all response bodies. Responses that break off count as nothing.
    #[serde(default)]
    pub bytes: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub(crate) struct CallLog {
    capacity: usize,
    inner: Mutex<Inner>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<Arc<Call>>,
    next: u64,
    stats: Stats,
}

impl CallLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            inner: Mutex::default(),
            latest: watch::Sender::new(0),
        }
    }

    /// Appends a call and sets its `seq`. `bytes`: the size of the response body.
    pub(crate) fn push(&self, mut call: Call, bytes: u64) {
        let mut inner = lock(&self.inner);
        inner.next += 1;
        call.seq = inner.next;
        let status = call
            .status
            .map_or_else(|| "none".to_owned(), |status| status.to_string());
        *inner
            .stats
            .operations
            .entry(call.operation())
            .or_default()
            .entry(status)
            .or_default() += 1;
        *inner.stats.bytes.entry(call.operation()).or_default() += bytes;
        inner.stats.total += 1;
        if inner.calls.len() == self.capacity {
            inner.calls.pop_front();
            inner.stats.dropped += 1;
        }
        inner.calls.push_back(Arc::new(call));
        // Sent under the lock, so that no receiver reads the number before the call is in the log.
        self.latest.send_replace(inner.next);
    }

    /// Up to `limit` calls with a `seq` above `after`.
    pub(crate) fn after(&self, after: u64, limit: usize) -> Vec<Arc<Call>> {
        let inner = lock(&self.inner);
        let first = inner.calls.front().map_or(inner.next + 1, |call| call.seq);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        inner.calls.iter().skip(skip).take(limit).cloned().collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        lock(&self.inner).stats.clone()
    }

    /// Forgets the calls and the counts; numbering goes on.
    pub(crate) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.calls.clear();
        inner.stats = Stats::default();
    }

    /// The number of the newest call, and notice of each next one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }
}

/// The body as the log shows it.
pub(crate) fn logged_body(body: &[u8]) -> Value {
    const LONGEST_TEXT: usize = 2_048;
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).map_or_else(
        |_| Value::String(String::from_utf8_lossy(&body[..body.len().min(LONGEST_TEXT)]).into_owned()),
        blanked,
    )
}

/// Blanks every value under a key that names a secret, and all of what `credentials` or `val` (an account's secret
/// state) hold.
fn blanked(value: Value) -> Value {
    fn is_secret(key: &str) -> bool {
        let key = key.to_ascii_lowercase();
        [
            "token",
            "secret",
            "password",
            "api_key",
            "apikey",
            "auth_key",
            "authorization",
            "session_uri",
        ]
        .iter()
        .any(|word| key.contains(word))
    }
    fn blank_all(value: Value) -> Value {
        match value {
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (key, blank_all(value)))
                .collect(),
            Value::Array(items) => items.into_iter().map(blank_all).collect(),
            Value::Null | Value::Bool(_) => value,
            _ => Value::String("REDACTED".to_owned()),
        }
    }
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let value = match key.as_str() {
                    "credentials" | "shared_credentials" | "val" | "custom_auth_params" => blank_all(value),
                    key if is_secret(key) => blank_all(value),
                    _ => blanked(value),
                };
                (key, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(blanked).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_logged_without_secrets() {
        let body = json!({
            "auth_config": {"id": "ac_1", "credentials": {"client_id": "id", "client_secret": "hush"}},
            "connection": {"user_id": "u", "state": {"authScheme": "API_KEY", "val": {"generic_api_key": "hush"}}},
            "session_uri": "hush",
            "list": [{"access_token": "hush"}],
        });
        let logged = logged_body(body.to_string().as_bytes());
        assert!(!logged.to_string().contains("hush"), "{logged}");
        assert_eq!(logged["connection"]["user_id"], "u");
        assert_eq!(logged["connection"]["state"]["authScheme"], "API_KEY");
        assert_eq!(logged_body(b"not json"), json!("not json"));
    }
}
