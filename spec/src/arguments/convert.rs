//! The converter's arguments, under the reference tool's names.

use model::{ModelShape, Parallel};

use super::{Arguments, join};
use crate::spec::{Convert, Spec};
use crate::words::Convention;

/// The tutorial's command line, in its order.
///
/// `--params-dtype` is always given, since the reference casts to fp16 without.
#[must_use]
pub fn arguments(spec: &Spec, convert: &Convert, shape: &ModelShape) -> Vec<String> {
    let mut a = Arguments::default();
    a.flag("--use-mcore-models")
        .value("--model-type", "GPT")
        .value("--load-model-type", "hf")
        .value("--save-model-type", "mg");
    layout(&mut a, spec.parallel);
    super::deal(&mut a, &spec.deal);
    a.flag_if(shape.qkv_bias, "--add-qkv-bias");
    if let Some(dir) = &spec.hf_dir {
        a.value("--load-dir", dir);
    }
    a.value("--save-dir", &convert.save_dir);
    if let Some(dir) = &spec.hf_dir {
        a.value("--tokenizer-model", join(dir, "tokenizer.json"));
    }
    a.value("--model-type-hf", "llama2").value("--params-dtype", convert.dtype.unwrap_or(shape.dtype).flag());
    if convert.vocab_divisor != 1 {
        a.value("--make-vocab-size-divisible-by", convert.vocab_divisor);
    }
    match convert.convention {
        Convention::V1 => {}
        Convention::V2 => {
            a.value("--convention", "v2");
        }
    }
    a.into_words()
}

/// One shard's task: the tutorial's arguments and which shard.
///
/// The agent appends `--out FILE`, a name of its attempt.
#[must_use]
pub fn shard_arguments(spec: &Spec, convert: &Convert, shape: &ModelShape, tp: u32, pp: u32) -> Vec<String> {
    let mut words = arguments(spec, convert, shape);
    words.extend(["--only-shard".to_owned(), format!("{tp},{pp}"), "--progress".to_owned(), "json".to_owned()]);
    words
}

/// The closing task: names the shards and writes the tracker last.
///
/// The agent appends `--manifest FILE`.
#[must_use]
pub fn publish_arguments(spec: &Spec, convert: &Convert) -> Vec<String> {
    let mut a = Arguments::default();
    a.value("--save-dir", &convert.save_dir);
    layout(&mut a, spec.parallel);
    a.value("--progress", "json");
    let mut words = vec!["publish".to_owned()];
    words.extend(a.into_words());
    words
}

fn layout(a: &mut Arguments, parallel: Parallel) {
    a.value("--target-tensor-parallel-size", parallel.tp()).value("--target-pipeline-parallel-size", parallel.pp());
}
