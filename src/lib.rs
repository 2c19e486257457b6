//! Kubernetes operator for Composio.
