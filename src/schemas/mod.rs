//! Cached tool schemas: what lies in the ConfigMaps, how it got its name, and how to tell what changed. Plain data and
//! pure functions; readers of the cache find here what they may rely on.

pub mod drift;
pub mod manifest;
pub mod names;
pub mod pack;
pub mod record;
pub mod tool;
mod walk;

/// Number of the format of ConfigMaps and manifest. Another number makes every toolkit be written anew.
pub const FORMAT: u32 = 1;
