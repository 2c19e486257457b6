//! Kubernetes operator for Composio.

pub mod composio;
pub mod kube_io;
pub mod telemetry;
