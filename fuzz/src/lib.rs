//! What the targets share: files for readers that want files.

use std::path::{Path, PathBuf};

/// A directory of this process below TMPDIR, which `scripts/fuzz.sh` makes in memory and removes.
pub fn directory() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("qctl-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for files");
    dir
}

/// Writes a file anew, or removes it.
pub fn put(path: &Path, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => std::fs::write(path, bytes).expect("a file"),
        None => drop(std::fs::remove_file(path)),
    }
}

/// The files that an input stands for, parted by lines of `---`.
pub fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    const MARK: &[u8] = b"\n---\n";
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        parts.push(&rest[..at]);
        rest = &rest[at + MARK.len()..];
    }
    parts.push(rest);
    parts
}
