//! The Composio client: typed endpoints, errors that answer their callers' questions, one rate budget per API key, and
//! reads that many objects share.
//!
//! Nothing here knows about Kubernetes. API keys, links and credentials appear in no log line, error or debug output.

mod account;
mod budget;
mod catalogue;
mod client;
mod error;
mod options;
mod pages;
mod reader;
mod registry;
mod scrub;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use self::account::{
    Account, AccountQuery, AccountStatus, AuthConfig, Deletion, ExecuteRequest, Link, LinkRequest, ToolResult,
};
pub use self::budget::{Budget, BudgetOptions, BudgetSnapshot, Permit, Priority, RateHeaders};
pub use self::catalogue::{Tool, ToolQuery, ToolToolkit, ToolkitDetail, ToolkitSummary};
pub use self::client::{CallObserver, Client, NoObserver};
pub use self::error::Error;
pub use self::options::ClientOptions;
pub use self::pages::Listing;
pub use self::reader::{AccountReader, Look, ReaderOptions, Sight, Trouble};
pub use self::registry::{Connection, Registry, fingerprint};
pub use self::wire::Skipped;
