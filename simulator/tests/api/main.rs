//! The simulator over HTTP, rule by rule.

mod accounts;
mod auth_configs;
mod client;
mod control;
mod execute;
mod faults;
mod hosted_page;
mod keys_and_limits;
mod toolkits_and_tools;
