//! The converter's arguments for the way back.

use super::{Arguments, join};
use crate::spec::{Export, Spec};

/// Megatron-core to Hugging Face. The tensors keep the checkpoint's type.
///
/// The result goes to `mg2hf` in the save directory, as the reference's does.
#[must_use]
pub fn arguments(spec: &Spec, export: &Export) -> Vec<String> {
    let mut a = Arguments::default();
    a.value("--load-model-type", "mg").value("--save-model-type", "hf").value("--load-dir", &export.load_dir);
    match export.iteration {
        Some(iteration) => a.value("--iteration", iteration),
        None => a.value("--iteration", "latest"),
    };
    if let Some(dir) = &spec.hf_dir {
        a.value("--hf-dir", dir);
    }
    a.value("--out", output_dir(export)).value("--progress", "json");
    a.into_words()
}

/// The directory that an export writes.
#[must_use]
pub fn output_dir(export: &Export) -> String {
    join(&export.save_dir, "mg2hf")
}
