//! The Composio client: typed endpoints, errors that answer their callers' questions, one rate budget for each API key,
//! and polling that many objects share. It names no toolkit.
//!
//! Nothing here knows about Kubernetes. API keys, links and credentials appear in no log line, error or debug output.

mod accounts;
mod budget;
mod catalogue;
mod client;
mod connections;
mod error;
mod list;
mod model;
mod options;
mod scrub;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use self::accounts::{AccountPoller, AccountState, PollFailure, Polled, PollerOptions};
pub use self::budget::{Budget, BudgetOptions, BudgetSnapshot, Permit, Priority, RateHeaders};
pub use self::catalogue::{Tool, ToolQuery, ToolToolkit, ToolkitDetail, ToolkitSummary};
pub use self::client::{CallObserver, Client, NoObserver};
pub use self::connections::{Connection, Connections, fingerprint};
pub use self::error::Error;
pub use self::list::Listing;
pub use self::model::{
    Account, AccountQuery, AccountStatus, AuthConfig, Deletion, ExecuteRequest, Link, LinkRequest, ToolResult,
};
pub use self::options::ClientOptions;
pub use self::wire::Skipped;
