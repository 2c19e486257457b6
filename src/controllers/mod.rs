//! One folder per resource, with the same five files each, and what they share.

pub mod announcement;
pub mod auth_configs;
pub mod connect;
pub mod context;
pub mod credentials;
pub mod driver;
pub mod failure;
pub mod reddit_connection;
pub mod retry;
pub mod run;
pub mod schema_cache;
