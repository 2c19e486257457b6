//! Kubernetes operator for Composio.

pub mod composio;
