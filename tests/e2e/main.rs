//! End to end: the built operator with the chart's roles, a real Kubernetes API server, and a faithful Composio.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read files and clocks"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

mod admission;
mod cache_races;
mod chart;
mod crashes;
mod doubts;
mod examples;
mod harness;
mod lifecycle;
mod process;
mod races;
mod restarts;
mod schema_updates;
mod schemas;
mod trouble;
