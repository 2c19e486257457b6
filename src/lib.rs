//! Kubernetes operator for Composio.
//!
//! Arrows run one way: `api` (types) <- `runtime` (the frame of all controllers) <- `controllers`. `composio` knows none
//! of them. In each controller data flows one way, too: observe (I/O) -> plan (pure) -> act (I/O) -> status (pure).

pub mod api;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub(crate) mod composio;
pub(crate) mod controllers;
pub mod digest;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod operator;
pub mod redact;
pub(crate) mod runtime;
pub mod schemas;
pub mod settings;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
pub mod telemetry;
