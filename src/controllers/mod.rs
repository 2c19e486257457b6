//! One folder per resource, with the same five files each, and what they share.

pub mod auth_configs;
pub mod context;
pub mod credentials;
pub mod failure;
pub mod reddit_connection;
pub mod run;
