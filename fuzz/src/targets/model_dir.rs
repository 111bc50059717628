//! A model directory: config.json, an index and a weight file that may contradict each other.
//!
//! The three are parted by lines of `---`.

use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<PathBuf> = LazyLock::new(|| crate::home("model_dir"));

pub(crate) fn run(bytes: &[u8]) {
    let mut parts = crate::parts(bytes).into_iter();
    for name in ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"] {
        crate::put(&DIR.join(name), parts.next());
    }
    if let Ok(model) = convert::safetensors::HfModel::open(&DIR) {
        assert!(model.bytes() <= bytes.len() as u64);
    }
}
