//! What a Composio project holds, as plain data: accounts with their life cycle, auth configs, and the queries over
//! them. Nothing here knows HTTP or reads a clock.

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod auth_configs;
pub(crate) mod lifecycle;
pub(crate) mod query;

use accounts::Accounts;
use auth_configs::AuthConfigs;

/// The data behind one API key or several.
#[derive(Default)]
pub(crate) struct Project {
    /// As the keys name it.
    pub(crate) name: String,
    /// Whose rate limit its keys share.
    pub(crate) org: String,
    pub(crate) accounts: Accounts,
    pub(crate) auth_configs: AuthConfigs,
}
