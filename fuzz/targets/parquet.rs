//! A data set as parquet: texts, or a sentence.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<std::path::PathBuf> = LazyLock::new(fuzz::directory);

// A panic that the reader guards against becomes its refusal; the default hook would end the process before that.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let path = DIR.join("data.parquet");
    fuzz::put(&path, Some(bytes));
    let Ok(source) = tokenize::Source::open(&path) else { return };
    let mut texts = 0_u32;
    let _ = source.each_text("text", &mut |_| {
        texts += 1;
        texts < 100_000
    });
});
