//! Identifiers in the shapes that Composio uses.

use std::fmt::Write as _;

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// The nanoid alphabet. An id may therefore begin or end with `-` or `_`, as real ones do.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

const ADJECTIVES: [&str; 16] = [
    "amber", "bold", "calm", "dusty", "early", "fresh", "gentle", "happy", "icy", "jolly", "kind", "lucky",
    "mild", "noble", "proud", "red",
];
const NOUNS: [&str; 16] = [
    "anchor", "birch", "castle", "delta", "ember", "falcon", "garden", "harbor", "island", "jungle", "kite",
    "lantern", "meadow", "nest", "orchid", "pine",
];

fn nanoid(prefix: &str, length: usize) -> String {
    let mut rng = rand::rng();
    let suffix = (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    prefix.chars().chain(suffix).collect()
}

/// `ca_` and twelve characters.
pub(crate) fn connected_account() -> String {
    nanoid("ca_", 12)
}

/// `ac_` and twelve characters.
pub(crate) fn auth_config() -> String {
    nanoid("ac_", 12)
}

/// `lk_` and enough characters that a link cannot be guessed.
pub(crate) fn link_token() -> String {
    nanoid("lk_", 21)
}

/// `log_` and twelve characters: names one tool execution.
pub(crate) fn execution_log() -> String {
    nanoid("log_", 12)
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The short handle of an account, such as `reddit_red-castle`.
pub(crate) fn word_id(toolkit: &str) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES[rng.random_range(0..ADJECTIVES.len())];
    let noun = NOUNS[rng.random_range(0..NOUNS.len())];
    format!("{toolkit}_{adjective}-{noun}")
}

/// Eight hexadecimal digits that tell API keys apart without showing them.
pub(crate) fn fingerprint(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes())[..4])
}

/// How Composio shows a secret: the first four characters, or nothing of a short one.
pub(crate) fn masked(secret: &str) -> String {
    if secret.chars().count() > 4 {
        format!("{}...", secret.chars().take(4).collect::<String>())
    } else {
        "REDACTED".to_owned()
    }
}

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn account_ids_have_the_documented_shape() {
        let ids: HashSet<_> = (0..2_000).map(|_| connected_account()).collect();
        assert_eq!(ids.len(), 2_000, "ids are unique");
        for id in &ids {
            let suffix = id.strip_prefix("ca_").unwrap();
            assert_eq!(suffix.len(), 12);
            assert!(suffix.bytes().all(|byte| ALPHABET.contains(&byte)), "{id}");
        }
        let unfit_for_dns = |id: &String| id.starts_with("ca_-") || id.starts_with("ca__");
        assert!(ids.iter().any(unfit_for_dns), "as some real ids are");
    }
}
