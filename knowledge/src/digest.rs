//! Content hashes.

use sha2::{Digest, Sha256};

/// The SHA-256 of the bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    spelled(&Sha256::digest(bytes))
}

/// A hash in lower-case hexadecimal.
pub(crate) fn spelled(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter()
        .fold(String::with_capacity(hash.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The first half of the SHA-256: enough to tell a billion things apart.
pub(crate) fn short(bytes: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(bytes);
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// The size of a file and the SHA-256 of its bytes.
pub(crate) fn of_file(path: &std::path::Path) -> std::io::Result<(u64, String)> {
    use std::io::Read;

    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, spelled(&hash.finalize())));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}
