//! The auth configs of a project, kept for a moment: a thousand new objects ask for the same list.

use std::time::Duration;

use super::shared::Shared;
use crate::composio::{AuthConfig, Connection, Error, Priority};
use crate::runtime::wake_ups::ObjectKey;

/// Short, so that an auth config made a moment ago is found soon.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// Auth configs seen lately, per API key and toolkit.
#[derive(Default)]
pub struct AuthConfigs(Shared<(String, &'static str), Vec<AuthConfig>, Error>);

impl AuthConfigs {
    /// Every auth config of `toolkit`. Callers at the same time share one list, and its failure too.
    pub async fn of(
        &self,
        connection: &Connection<ObjectKey>,
        toolkit: &'static str,
    ) -> Result<Vec<AuthConfig>, Error> {
        let key = (connection.fingerprint().to_owned(), toolkit);
        let list = connection
            .client
            .list_auth_configs(Priority::Interactive, toolkit);
        self.0.get(key, FRESH_FOR, list).await
    }
}
