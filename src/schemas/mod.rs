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

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// SHA-256 in hexadecimal, over the parts one after the other.
pub fn sha256_hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
