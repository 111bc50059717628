//! A model directory: config.json, an index and a weight file that may contradict each other.
//!
//! The three are parted by lines of `---`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<std::path::PathBuf> = LazyLock::new(fuzz::directory);

fuzz_target!(|bytes: &[u8]| {
    let mut parts = fuzz::parts(bytes).into_iter();
    for name in ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"] {
        fuzz::put(&DIR.join(name), parts.next());
    }
    if let Ok(model) = convert::safetensors::HfModel::open(&DIR) {
        assert!(model.bytes() <= bytes.len() as u64);
    }
});
