//! What the process says about itself: log lines, metrics, and the HTTP server that shows them.
//!
//! Nothing here knows Kubernetes or Composio, and nothing here may leak: [`scrub`](scrub::scrub) stands in front of
//! every text that was written by something other than this code.

pub mod logs;
pub mod metrics;
pub mod process;
pub mod scrub;
pub mod server;
