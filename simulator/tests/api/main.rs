//! The simulator over HTTP, rule by rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accounts;
mod auth_configs;
mod catalogue;
mod catalogue_faults;
mod client;
mod control;
mod execute;
mod faults;
mod hosted_page;
mod keys_and_limits;
mod lists;
mod toolkits_and_tools;
