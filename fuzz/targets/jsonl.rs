//! A data set as jsonl: texts, or a sentence.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<std::path::PathBuf> = LazyLock::new(fuzz::directory);

fuzz_target!(|bytes: &[u8]| {
    let path = DIR.join("data.jsonl");
    fuzz::put(&path, Some(bytes));
    let Ok(source) = tokenize::Source::open(&path) else { return };
    let mut texts = 0_u32;
    let _ = source.each_text("text", &mut |_| {
        texts += 1;
        texts < 100_000
    });
});
