//! A data set in any other format: texts, or a sentence.
//!
//! The first byte says which format it is.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tokenize::{Slice, Source};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("texts"));

const NAMES: [&str; 6] = ["data.arrow", "data.csv", "data.txt", "data.json", "data.jsonl.gz", "data.csv.zst"];
/// The longest text, in bytes.
const MAX_ROW: usize = 64 << 10;

pub(crate) fn run(bytes: &[u8]) {
    let Some((format, content)) = bytes.split_first() else { return };
    read(&DIR.join(NAMES[usize::from(*format) % NAMES.len()]), content);
}

/// Reads `content` as the file `path`.
pub(super) fn read(path: &Path, content: &[u8]) {
    crate::put(path, Some(content));
    let Ok(source) = Source::open(path) else { return };
    let mut texts = 0_u32;
    let _ = source.each_value("text", &Slice::All, MAX_ROW, &mut |text| {
        assert!(text.is_none_or(|text| text.len() <= MAX_ROW), "a text is longer than the limit");
        texts += 1;
        texts < 100_000
    });
}
