//! Hashes: SHA-256 for content and keys, and a short one that seeds jitter.

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

/// Seed for the jitter of one object, from its uid: the same after a restart, different for objects that failed
/// together. FNV-1a, because the hasher of the standard library may change between releases.
pub(crate) fn seed(uid: &str) -> u64 {
    uid.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_published_ones() {
        // printf abc | sha256sum
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex([&b"a"[..], b"bc"]), abc);
        // http://www.isthe.com/chongo/src/fnv/test_fnv.c
        assert_eq!(seed("foobar"), 0x8594_4171_F739_67E8);
    }
}
