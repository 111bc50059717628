//! Digests that name content.

use std::path::Path;

use crate::error::Result;
use crate::mapped::Mapped;

/// `blake3:` and 64 hexadecimal digits of these bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut hash = blake3::Hasher::new();
    for chunk in bytes.chunks(1 << 20) {
        hash.update(chunk);
    }
    render(&hash)
}

/// The digest of a file's content.
///
/// # Errors
///
/// If it cannot be read.
pub fn of_file(path: &Path) -> Result<String> {
    Ok(of_bytes(Mapped::open(path)?.bytes()))
}

/// A finished hash in the form used everywhere.
#[must_use]
pub fn render(hash: &blake3::Hasher) -> String {
    format!("blake3:{}", hash.finalize().to_hex())
}
