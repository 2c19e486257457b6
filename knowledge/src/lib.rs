//! Turns the messages of a channel into facts, a graph and a wiki, and keeps them in an object store.
//!
//! The crate knows neither Kubernetes nor Composio, and reads no clock: what it writes depends on the messages alone.

pub mod build;
pub(crate) mod digest;
pub mod extract;
pub mod fact;
pub mod graph;
pub mod message;
pub mod store;
pub mod wiki;
