//! End to end: the built operator with the chart's roles, a real Kubernetes API server, and a faithful Composio.

mod admission;
mod crashes;
mod harness;
mod lifecycle;
mod process;
mod trouble;
