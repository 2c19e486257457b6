//! The auth configs of a project, kept for a moment: a thousand new objects ask for the same list.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::composio::{AuthConfig, Connection, Error, Priority};
use crate::runtime::wake_ups::ObjectKey;

/// Short, so that an auth config made a moment ago is found soon.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// Answers that nobody asked for this long are forgotten.
const KEPT_FOR: Duration = Duration::from_mins(5);

type Key = (String, &'static str);
type Slot = Arc<Mutex<Option<Answer>>>;

/// How a list ended, and when.
struct Answer {
    at: Instant,
    outcome: Result<Vec<AuthConfig>, Error>,
}

/// Auth configs seen lately, per API key and toolkit.
#[derive(Default)]
pub struct AuthConfigs(Mutex<HashMap<Key, (Instant, Slot)>>);

impl AuthConfigs {
    /// Every auth config of `toolkit`. Callers at the same time share one list, and its failure too.
    pub async fn of(
        &self,
        connection: &Connection<ObjectKey>,
        toolkit: &'static str,
    ) -> Result<Vec<AuthConfig>, Error> {
        let asked_at = Instant::now();
        let slot = {
            let mut slots = self.0.lock().await;
            slots.retain(|_, (used_at, _)| asked_at.duration_since(*used_at) < KEPT_FOR);
            let key = (connection.fingerprint().to_owned(), toolkit);
            let (used_at, slot) = slots.entry(key).or_insert_with(|| (asked_at, Slot::default()));
            *used_at = asked_at;
            Arc::clone(slot)
        };
        let mut slot = slot.lock().await;
        if let Some(answer) = slot.as_ref() {
            let is_fresh = answer.outcome.is_ok() && answer.at.elapsed() < FRESH_FOR;
            // It came while this caller waited for it.
            if is_fresh || answer.at > asked_at {
                return answer.outcome.clone();
            }
        }
        let outcome = connection
            .client
            .list_auth_configs(Priority::Interactive, toolkit)
            .await;
        *slot = Some(Answer {
            at: Instant::now(),
            outcome: outcome.clone(),
        });
        outcome
    }
}
