//! The auth configs of a project, remembered for a moment: a thousand new objects ask the same question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::context::Owner;
use crate::composio::{AuthConfig, Connection, Error, Priority};

/// Short, so that an auth config made a moment ago is found soon.
const FRESH_FOR: Duration = Duration::from_secs(15);

type Key = (String, &'static str);
type Slot = Arc<Mutex<Option<(Instant, Vec<AuthConfig>)>>>;

/// Auth configs seen lately, per API key and toolkit.
#[derive(Default)]
pub struct AuthConfigs(Mutex<HashMap<Key, Slot>>);

impl AuthConfigs {
    /// Every auth config of `toolkit`. Callers at the same time share one listing.
    pub async fn of(
        &self,
        connection: &Connection<Owner>,
        toolkit: &'static str,
    ) -> Result<Vec<AuthConfig>, Error> {
        let slot = {
            let mut slots = self.0.lock().await;
            Arc::clone(
                slots
                    .entry((connection.fingerprint().to_owned(), toolkit))
                    .or_default(),
            )
        };
        let mut slot = slot.lock().await;
        if let Some((seen_at, configs)) = slot.as_ref()
            && seen_at.elapsed() < FRESH_FOR
        {
            return Ok(configs.clone());
        }
        let configs = connection
            .client
            .list_auth_configs(Priority::Interactive, toolkit)
            .await?;
        *slot = Some((Instant::now(), configs.clone()));
        Ok(configs)
    }
}
