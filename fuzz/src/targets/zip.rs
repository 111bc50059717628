//! A checkpoint's archive: every entry lies in the file, and none in another.

use std::path::Path;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(archive) = convert::zip::Archive::parse(Path::new("model_optim_rng.pt"), bytes) else { return };
    let mut end = 0;
    // One without content lies nowhere.
    for entry in archive.entries().iter().filter(|entry| !entry.range.is_empty()) {
        assert!(entry.range.start >= end && entry.range.end <= bytes.len(), "{entry:?}");
        end = entry.range.end;
        let _ = archive.check(bytes, entry);
    }
}
