//! A slow tokenizer's directory: vocab.json, merges.txt and tokenizer_config.json, parted by lines of `---`.

use std::path::PathBuf;
use std::sync::LazyLock;

use tokenize::{Backend, Tokenizer};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("slow_tokenizer"));

pub(crate) fn run(bytes: &[u8]) {
    let mut parts = crate::parts(bytes).into_iter();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        crate::put(&DIR.join(name), parts.next());
    }
    if let Ok(tokenizer) = Tokenizer::load(&DIR, Backend::Auto) {
        let _ = tokenizer.eos_id();
    }
}
