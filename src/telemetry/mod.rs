//! What the process says about itself: log lines, metrics, and the HTTP server that shows them.
//!
//! Nothing here knows a controller, and nothing here may leak: [`redact`](crate::redact) stands in front of every log
//! line, and the values of metrics' labels are fixed texts.

pub mod logs;
pub(crate) mod metrics;
mod process;
pub(crate) mod server;
