//! The Composio client: typed endpoints, errors that answer their callers' questions, and for each API key one rate budget
//! and one poller that many objects share.
//!
//! Nothing here knows about Kubernetes. API keys, links and credentials appear in no log line, error or debug output.

mod accounts;
mod budget;
mod catalogue;
mod client;
mod connections;
mod error;
mod excerpt;
mod list;
mod model;
mod options;
#[cfg(test)]
mod tests;
mod transport;
mod whole_list;
mod wire;

pub(crate) use self::accounts::{AccountState, Polled, PollerOptions};
pub(crate) use self::budget::Priority;
#[cfg(test)]
pub(crate) use self::catalogue::ToolToolkit;
pub(crate) use self::catalogue::{EnabledAuthConfigs, Tool, ToolQuery, ToolkitDetail, ToolkitSummary};
#[cfg(test)]
pub(crate) use self::client::NoSurroundings;
pub(crate) use self::client::{Client, Surroundings};
pub(crate) use self::connections::{Connection, Connections};
pub(crate) use self::error::Error;
pub(crate) use self::list::Listing;
pub(crate) use self::model::{
    Account, AccountQuery, AccountStatus, AuthConfig, Deletion, ExecuteRequest, LinkRequest, ToolResult,
};
pub(crate) use self::options::ClientOptions;
