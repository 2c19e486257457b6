//! One folder for each resource, and what their controllers share: the way from an object to Composio.

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod access;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod auth_configs;
pub mod reddit_connection;
pub mod schema_cache;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod shared;
