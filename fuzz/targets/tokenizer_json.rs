//! A tokenizer's directory: tokenizer.json and tokenizer_config.json, parted by a line of `---`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenize::{Backend, Tokenizer};

static DIR: LazyLock<std::path::PathBuf> = LazyLock::new(fuzz::directory);

// A panic that the reader guards against becomes its refusal; the default hook would end the process before that.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let mut parts = fuzz::parts(bytes).into_iter();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fuzz::put(&DIR.join(name), parts.next());
    }
    if let Ok(tokenizer) = Tokenizer::load(&DIR, Backend::Auto) {
        let _ = tokenizer.eos_id();
    }
});
