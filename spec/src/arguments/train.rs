//! The training script's arguments, as the tutorial's shell script gives them.
//!
//! Source: MindSpeed-LLM 2.2.0, `examples/mindspore/qwen25/pretrain_qwen25_7b_32k_ms.sh`,
//! with the values that its tutorial sets; what the script hides is read from
//! the model's `config.json`.

use model::{Dtype, ModelShape, layout::padded_vocab};

use super::corrections::{self, Applied, Situation};
use super::{Arguments, join};
use crate::spec::{Derived, Handler, Recompute, Spec, Train};

/// Flags whose value another key of the file decides: flag, key, and whether
/// that holds only for derived arguments.
pub(crate) const OWNED_FLAGS: [(&str, &str, bool); 9] = [
    ("--save", "stages.train.save_dir", false),
    ("--load", "stages.train.load_dir", false),
    ("--ckpt-step", "stages.train.resume", false),
    ("--tensor-model-parallel-size", "parallel.tp", true),
    ("--pipeline-model-parallel-size", "parallel.pp", true),
    ("--num-layer-list", "parallel.num_layer_list", true),
    ("--num-layers-per-virtual-pipeline-stage", "parallel.num_layers_per_virtual_pipeline_stage", true),
    ("--noop-layers", "parallel.noop_layers", true),
    ("--data-path", "stages.train.data_path", true),
];

/// All flags that may be derived and left out.
pub(crate) const DERIVED_FLAGS: [&str; 67] = [
    "--use-mcore-models",
    "--sequence-parallel",
    "--num-layers",
    "--hidden-size",
    "--ffn-hidden-size",
    "--num-attention-heads",
    "--kv-channels",
    "--max-position-embeddings",
    "--seq-length",
    "--disable-bias-linear",
    "--add-qkv-bias",
    "--qk-layernorm",
    "--group-query-attention",
    "--num-query-groups",
    "--use-flash-attn",
    "--swiglu",
    "--use-fused-swiglu",
    "--normalization",
    "--norm-epsilon",
    "--use-fused-rmsnorm",
    "--position-embedding-type",
    "--rotary-base",
    "--use-fused-rotary-pos-emb",
    "--untie-embeddings-and-output-weights",
    "--micro-batch-size",
    "--global-batch-size",
    "--make-vocab-size-divisible-by",
    "--padded-vocab-size",
    "--tokenizer-type",
    "--tokenizer-name-or-path",
    "--attention-dropout",
    "--hidden-dropout",
    "--train-iters",
    "--recompute-granularity",
    "--recompute-method",
    "--recompute-num-layers",
    "--lr",
    "--lr-decay-style",
    "--min-lr",
    "--lr-warmup-fraction",
    "--init-method-std",
    "--weight-decay",
    "--clip-grad",
    "--adam-beta1",
    "--adam-beta2",
    "--initial-loss-scale",
    "--no-gradient-accumulation-fusion",
    "--no-masked-softmax-fusion",
    "--attention-softmax-in-fp32",
    "--bf16",
    "--fp16",
    "--split",
    "--no-load-optim",
    "--no-load-rng",
    "--no-save-optim",
    "--no-save-rng",
    "--seed",
    "--log-interval",
    "--save-interval",
    "--eval-interval",
    "--eval-iters",
    "--log-throughput",
    "--distributed-backend",
    "--ai-framework",
    "--exit-on-missing-checkpoint",
    "--no-shared-storage",
    "--data-cache-path",
];

/// The arguments of a first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What follows the script's name.
    pub arguments: Vec<String>,
    /// Corrections that changed something, in the order of their table.
    pub applied: Vec<Applied>,
}

/// The arguments as the tutorial's script gives them, without corrections,
/// `without` and `args`.
///
/// With `derive: false` these are `--load` and `--save` alone, where known.
#[must_use]
pub fn reference_arguments(spec: &Spec, train: &Train, shape: &ModelShape) -> Vec<String> {
    reference(spec, train, Some(shape)).into_words()
}

/// The arguments that a first start gets, on `hosts` distinct hosts.
///
/// `shape` is needed for derived arguments only; without it they are left out.
#[must_use]
pub fn start_arguments(spec: &Spec, train: &Train, shape: Option<&ModelShape>, hosts: u32) -> Start {
    let mut arguments = reference(spec, train, shape);
    let applied = corrections::apply(&mut arguments, &Situation { spec, train, hosts });
    for flag in &train.without {
        arguments.remove(flag);
    }
    arguments.extend(&train.args);
    Start { arguments: arguments.into_words(), applied }
}

/// Prefix of the token files that training reads.
#[must_use]
pub fn data_path(spec: &Spec, train: &Train) -> Option<String> {
    if let Some(path) = train.derived.as_ref().and_then(|derived| derived.data_path.clone()) {
        return Some(path);
    }
    let preprocess = spec.preprocess()?;
    if preprocess.handler == Handler::AlpacaInstruction {
        // The trainer itself appends `_packed` and the names of the three pairs.
        return Some(preprocess.output_prefix.clone());
    }
    Some(super::preprocess::data_path(preprocess, preprocess.json_keys.first()?))
}

/// The checkpoint directory that a first start reads, after corrections.
#[must_use]
pub fn load_dir(spec: &Spec, train: &Train) -> Option<String> {
    reference_load(spec, train).map(|dir| corrections::parent_of_iteration(&dir).unwrap_or(dir))
}

/// What the tutorial gives to `--load`: the converted iteration itself.
fn reference_load(spec: &Spec, train: &Train) -> Option<String> {
    let converted = || spec.convert().map(|convert| join(&convert.save_dir, "iter_0000001"));
    train.load_dir.clone().or_else(converted)
}

fn reference(spec: &Spec, train: &Train, shape: Option<&ModelShape>) -> Arguments {
    let mut a = Arguments::default();
    let derived = train.derived.as_ref().zip(shape);
    if let Some((derived, shape)) = derived {
        model_arguments(&mut a, spec, derived, shape);
        training_arguments(&mut a, spec, derived, shape);
        data_and_output(&mut a, spec, train, derived);
        a.value("--distributed-backend", "nccl");
    }
    if let Some(dir) = reference_load(spec, train) {
        a.value("--load", dir);
    }
    if let Some(dir) = &train.save_dir {
        a.value("--save", dir);
    }
    if derived.is_some() {
        a.value("--ai-framework", "mindspore");
    }
    a
}

fn model_arguments(a: &mut Arguments, spec: &Spec, derived: &Derived, shape: &ModelShape) {
    let grouped = shape.num_query_groups != shape.num_attention_heads;
    let usual_heads = shape.kv_channels.checked_mul(shape.num_attention_heads) == Some(shape.hidden_size);
    let divisor = u64::from(spec.convert().map_or(1, |convert| convert.vocab_divisor));
    a.flag("--use-mcore-models")
        .value("--tensor-model-parallel-size", spec.parallel.tp())
        .value("--pipeline-model-parallel-size", spec.parallel.pp())
        .flag("--sequence-parallel");
    super::deal(a, &spec.deal);
    a.value("--num-layers", spec.deal.slots(shape.num_layers))
        .value("--hidden-size", shape.hidden_size)
        .value("--ffn-hidden-size", shape.ffn_hidden_size)
        .value("--num-attention-heads", shape.num_attention_heads);
    if !usual_heads {
        a.value("--kv-channels", shape.kv_channels);
    }
    a.value("--max-position-embeddings", derived.seq_length)
        .value("--seq-length", derived.seq_length)
        .flag("--disable-bias-linear")
        .flag_if(shape.qkv_bias, "--add-qkv-bias")
        .flag_if(shape.qk_norm, "--qk-layernorm");
    if grouped {
        a.flag("--group-query-attention").value("--num-query-groups", shape.num_query_groups);
    }
    a.flag("--use-flash-attn")
        .flag("--swiglu")
        .flag("--use-fused-swiglu")
        .value("--normalization", "RMSNorm")
        .value("--norm-epsilon", decimal(shape.rms_norm_eps))
        .flag("--use-fused-rmsnorm")
        .value("--position-embedding-type", "rope")
        .value("--rotary-base", decimal(shape.rope_theta))
        .flag("--use-fused-rotary-pos-emb")
        .flag_if(!shape.tied, "--untie-embeddings-and-output-weights")
        .value("--micro-batch-size", derived.micro_batch_size)
        .value("--global-batch-size", derived.global_batch_size)
        .value("--make-vocab-size-divisible-by", divisor)
        .value("--padded-vocab-size", padded_vocab(shape.vocab_size, divisor, spec.parallel.tp()))
        .value("--tokenizer-type", "PretrainedFromHF");
    if let Some(dir) = &spec.hf_dir {
        a.value("--tokenizer-name-or-path", dir);
    }
}

fn training_arguments(a: &mut Arguments, spec: &Spec, derived: &Derived, shape: &ModelShape) {
    a.value("--attention-dropout", "0.0").value("--hidden-dropout", "0.0").value("--train-iters", derived.train_iters);
    match derived.recompute {
        None => {}
        Some(Recompute::Selective) => {
            a.value("--recompute-granularity", "selective");
        }
        Some(Recompute::Full { method, num_layers }) => {
            a.value("--recompute-granularity", "full")
                .value("--recompute-method", method.flag())
                .value("--recompute-num-layers", num_layers);
        }
    }
    a.value("--lr", &derived.lr)
        .value("--lr-decay-style", "cosine")
        .value("--min-lr", &derived.min_lr)
        .value("--lr-warmup-fraction", "0.01")
        .value("--init-method-std", "0.01")
        .value("--weight-decay", "1e-1")
        .value("--clip-grad", "1.0")
        .value("--adam-beta1", "0.9")
        .value("--adam-beta2", "0.95")
        .value("--initial-loss-scale", "4096")
        .flag("--no-gradient-accumulation-fusion")
        .flag("--no-masked-softmax-fusion")
        .flag("--attention-softmax-in-fp32");
    match spec.convert().and_then(|convert| convert.dtype).unwrap_or(shape.dtype) {
        Dtype::Bf16 => a.flag("--bf16"),
        Dtype::Fp16 => a.flag("--fp16"),
        Dtype::Fp32 => a,
    };
}

fn data_and_output(a: &mut Arguments, spec: &Spec, train: &Train, derived: &Derived) {
    if let Some(path) = data_path(spec, train) {
        a.value("--data-path", path);
    }
    a.value("--split", "100,0,0")
        .flag("--no-load-optim")
        .flag("--no-load-rng")
        .flag("--no-save-optim")
        .flag("--no-save-rng")
        .value("--seed", derived.seed)
        .value("--log-interval", derived.log_interval)
        .value("--save-interval", derived.save_interval)
        .value("--eval-interval", derived.eval_interval)
        .value("--eval-iters", 0)
        .flag("--log-throughput");
}

/// A number as the scripts write it: `1000000`, `1e-6`, `0.5`.
fn decimal(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else if value.abs() < 1e-3 {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_as_the_scripts_write_them() {
        for (value, want) in
            [(1e-6, "1e-6"), (1e6, "1000000"), (1e-5, "1e-5"), (10000.0, "10000"), (0.5, "0.5"), (1.5e-6, "1.5e-6")]
        {
            assert_eq!(decimal(value), want);
        }
    }
}
