//! A faithful Composio for development and tests.
//!
//! The simulator serves Composio's HTTP API (`/api/v3` and `/api/v3.1`), a hosted page where a person completes a
//! link, and a control API (`/_sim`) that moves the clock, acts for people and providers, injects faults and shows
//! every call. It needs no network and keeps everything in memory.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), composio_sim::Error> {
//! use composio_sim::{Config, Fault, Rule, Simulator};
//!
//! let simulator = Simulator::start(Config::default()).await?;
//! // The next link is created, but its response gets lost.
//! simulator.inject(Rule::new(Fault::DropAfterCommit).on("POST", "/connected_accounts/link"));
//! assert!(simulator.url().starts_with("http://127.0.0.1:"));
//! simulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod auto_consent;
mod calls;
mod catalogue;
mod clock;
mod config;
mod control;
mod core;
mod faults;
mod http;
mod ids;
mod limiter;
mod provider;
mod server;
mod simulator;
mod state;

pub use calls::{Call, Stats};
pub use catalogue::{
    CatalogueError, GIANT_TOOLKIT, GeneratedCatalogue, HUGE_TOOL, HUGE_TOOL_TOOLKIT, Release, Released, Touch,
};
pub use clock::Clock;
pub use config::{
    Access, ApiKey, Area, Assumptions, Config, DEFAULT_API_KEY, DEFAULT_RATE_LIMIT, Scopes, SeedAuthConfig,
};
pub use control::{AccountSnapshot, DeedError};
pub use faults::{Fault, Rule, RuleState};
pub use provider::ProviderMode;
pub use simulator::{Error, Simulator, TimedOut};
pub use state::{
    account::{AccountType, Transition},
    lifecycle::{AccountStatus, Refusal},
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: the data behind these locks is consistent after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
