//! Keys whose value is one word of a few.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a rank computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// Ascend NPUs.
    #[default]
    Ascend,
    /// MindSpore's CPU backend: a configured slot stands for an NPU.
    Cpu,
}

/// What a path means on two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Every node has its own disk.
    #[default]
    Local,
    /// The same files everywhere.
    Shared,
}

/// Who starts training ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// The agents start scheduler and ranks themselves.
    #[default]
    Ranks,
    /// One genuine msrun on each node.
    Msrun,
}

/// How a restarted training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// Weights, optimizer and random state of the last complete checkpoint.
    Exact,
    /// Weights and iteration of the last complete checkpoint; the optimizer starts anew.
    Weights,
    /// From the beginning.
    Never,
}

/// Which program does a stage's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// This project's own.
    #[default]
    Native,
    /// The reference scripts; refused as not supported yet.
    Mindspeed,
}

/// Whose habits converted shards follow; training reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// `convert_ckpt.py`: the vocabulary is padded.
    #[default]
    V1,
    /// `convert_ckpt_v2.py`: it is not, so tp must divide it.
    V2,
}

/// How texts are made of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// Each column is a text.
    #[default]
    Pretrain,
    /// Instruction, input and output in one text: `AlpacaPretrainHandler`.
    AlpacaPretrain,
    /// A chat of one turn: `AlpacaStyleInstructionHandler --prompt-type qwen`.
    AlpacaInstruction,
}

/// Type of converted tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    Bf16,
    Fp16,
    Fp32,
}

impl From<Dtype> for model::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => Self::Bf16,
            Dtype::Fp16 => Self::Fp16,
            Dtype::Fp32 => Self::Fp32,
        }
    }
}

/// What of a layer is recomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// Whole layers.
    Full,
    /// The attention core.
    Selective,
}

/// Which layers are recomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Blocks of equal size, all of them.
    Uniform,
    /// The first layers of each pipeline stage.
    Block,
}

impl Granularity {
    /// The word that `--recompute-granularity` takes.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Selective => "selective",
        }
    }
}

impl Method {
    /// The word that `--recompute-method` takes.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Block => "block",
        }
    }
}
