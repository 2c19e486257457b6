//! Kubernetes operator for Composio.

pub mod kube_io;
pub mod telemetry;
