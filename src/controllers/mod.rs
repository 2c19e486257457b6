//! One folder for each resource, and what their controllers share: the way from an object to Composio.

pub mod access;
pub mod auth_configs;
pub mod reddit_connection;
pub mod schema_cache;
