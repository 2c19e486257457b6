//! Kubernetes operator for Composio.
//!
//! Data flows one way through each controller: observe (I/O) -> plan (pure) -> act (I/O) -> status (pure).

pub mod api;
pub mod composio;
pub mod controllers;
pub mod kube_io;
pub mod operator;
pub mod schemas;
pub mod settings;
pub mod telemetry;
