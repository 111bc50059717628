//! A data set as jsonl: texts, or a sentence.

use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("jsonl"));

pub(crate) fn run(bytes: &[u8]) {
    let path = DIR.join("data.jsonl");
    crate::put(&path, Some(bytes));
    let Ok(source) = tokenize::Source::open(&path) else { return };
    let mut texts = 0_u32;
    let _ = source.each_text("text", &mut |_| {
        texts += 1;
        texts < 100_000
    });
}
