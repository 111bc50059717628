//! A tokenizer's directory: tokenizer.json and tokenizer_config.json, parted by a line of `---`.

use std::path::PathBuf;
use std::sync::LazyLock;

use tokenize::{Backend, Tokenizer};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("tokenizer_json"));

pub(crate) fn run(bytes: &[u8]) {
    let mut parts = crate::parts(bytes).into_iter();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        crate::put(&DIR.join(name), parts.next());
    }
    if let Ok(tokenizer) = Tokenizer::load(&DIR, Backend::Auto) {
        let _ = tokenizer.eos_id();
    }
}
