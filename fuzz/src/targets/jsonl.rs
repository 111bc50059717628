//! A data set as jsonl: texts, or a sentence.

use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("jsonl"));

pub(crate) fn run(bytes: &[u8]) {
    super::texts::read(&DIR.join("data.jsonl"), bytes);
}
