//! The stages as they are written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::retries::{RetriesFile, Time};
use super::scalar::{Decimal, IterationFile, RecomputeFile, Written};
use crate::words::{Convention, Dtype, Engine, Handler, Launcher, Resume};

/// Stages whose name decides what they do.
pub(crate) const KNOWN_STAGES: [&str; 5] = ["preflight", "convert", "preprocess", "train", "export"];

/// All stages, in the file's order.
#[derive(Debug, Default)]
pub(crate) struct StagesFile(pub(crate) Vec<(String, StageFile)>);

/// One stage, by what it does.
#[derive(Debug)]
pub(crate) enum StageFile {
    Preflight(PreflightFile),
    Convert(ConvertFile),
    Preprocess(PreprocessFile),
    Train(Box<TrainFile>),
    Export(ExportFile),
    Run(RunStageFile),
}

/// Checks every node before anything starts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Preflight")]
pub(crate) struct PreflightFile {
    /// Versions that every node must have.
    pub(crate) require: RequireFile,
    /// Stages that must have succeeded before, beside the usual ones. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// Versions: a node fits if its version starts with the same numbers (`3.10` fits `3.10.12`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Require")]
pub(crate) struct RequireFile {
    /// CANN toolkit.
    pub(crate) cann: Option<Written>,
    /// NPU driver.
    pub(crate) driver: Option<Written>,
    /// MindSpore.
    pub(crate) mindspore: Option<Written>,
    /// Python.
    pub(crate) python: Option<Written>,
}

/// Hugging Face weights to Megatron-core shards, one task for each (pp, tp).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Convert", extend("required" = ["save_dir"]))]
pub(crate) struct ConvertFile {
    /// `native`: this project's own; `mindspeed`, the reference scripts, is refused as not supported yet. Default `native`.
    pub(crate) engine: Option<Engine>,
    /// Directory of the converted checkpoint: the parent of `iter_0000001`.
    pub(crate) save_dir: Option<String>,
    /// Type of the written tensors. Default: the model's own.
    pub(crate) dtype: Option<Dtype>,
    /// The padded vocabulary is a multiple of this times tp. Default 1.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) make_vocab_size_divisible_by: Option<u32>,
    /// Whose habits the shards follow: `convert_ckpt.py` (`v1`) or `convert_ckpt_v2.py` (`v2`), which does not pad the vocabulary. Default `v1`.
    pub(crate) convention: Option<Convention>,
    /// How often a failed task is tried again: within 24 hours, unless a window is given; refused input is not. Default 2.
    pub(crate) retries: Option<RetriesFile>,
    /// Stages that must have succeeded before, beside the usual ones. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// Text to token files, one task for each slice of the input.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Preprocess", extend("required" = ["output_prefix"]))]
pub(crate) struct PreprocessFile {
    /// `native`: this project's own; `mindspeed`, the reference scripts, is refused as not supported yet. Default `native`.
    pub(crate) engine: Option<Engine>,
    /// Beginning of the output's path: `./dataset/alpaca` gives `./dataset/alpaca_text_document.bin` and `.idx`.
    pub(crate) output_prefix: Option<String>,
    /// Threads of each task. Default 4.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<u32>,
    /// `pretrain`: each column is a text; `alpaca_pretrain`: instruction, input and output in one text;
    /// `alpaca_instruction`: a chat of one turn in Qwen's form. Default `pretrain`.
    pub(crate) handler: Option<Handler>,
    /// Columns to read, one pair of files each; of `handler: pretrain` only. Default `[text]`.
    #[schemars(length(min = 1, max = 16))]
    pub(crate) json_keys: Option<Vec<String>>,
    /// Ends each document with the tokenizer's end-of-text token; the reference does so only when asked, too. Default false.
    pub(crate) append_eod: Option<bool>,
    /// Documents of this many tokens and more are left out. Default: no limit.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) seq_length: Option<u64>,
    /// Fills each document up to a multiple of so many tokens; of `handler: pretrain` only. Default 1.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) pad_to_multiple_of: Option<u64>,
    /// Packs the chats of `handler: alpaca_instruction` into rows of `seq_length`. Default false.
    pub(crate) pack: Option<bool>,
    /// Tasks that the input is split into; the result does not depend on it. Default: one for each agent.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) shards: Option<u32>,
    /// How often a failed task is tried again: within 24 hours, unless a window is given; refused input is not. Default 2.
    pub(crate) retries: Option<RetriesFile>,
    /// Stages that must have succeeded before, beside the usual ones. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// Trains: one task of ranks over one or more nodes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Train")]
pub(crate) struct TrainFile {
    /// `ranks`: the agents start scheduler and ranks; `msrun`: one msrun on each node. Default `ranks`.
    pub(crate) launcher: Option<Launcher>,
    /// Training script; a bare name is seen from `MindSpeed-LLM` in `runtime.mindspeed_root` where that is given. Default `pretrain_gpt.py`.
    pub(crate) script: Option<String>,
    /// Nodes that train together. Default 1.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) nodes: Option<u32>,
    /// Ranks, thus devices, on each node: a multiple of tp. Default: tp x pp / `nodes`, where that is whole.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) ranks_per_node: Option<u32>,
    /// Tokens of a sample: `--seq-length` and `--max-position-embeddings`. Required unless `derive: false`.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) seq_length: Option<u64>,
    /// Samples of a micro batch. Default 1.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) micro_batch_size: Option<u64>,
    /// Samples of an iteration: a multiple of `micro_batch_size` x dp. Required unless `derive: false`.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) global_batch_size: Option<u64>,
    /// Last iteration; a converted checkpoint is iteration 1, so `20` runs 2 to 20. Required unless `derive: false`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) train_iters: Option<u64>,
    /// Activations that are computed again instead of kept. Default `none`.
    pub(crate) recompute: Option<RecomputeFile>,
    /// Directory of checkpoints; not the convert stage's. Required unless `derive: false`.
    pub(crate) save_dir: Option<String>,
    /// Checkpoint to start from. Default: the convert stage's; without one, random weights.
    pub(crate) load_dir: Option<String>,
    /// Prefix of the token files. Default: the preprocess stage's first pair; required without one, unless `derive: false`.
    pub(crate) data_path: Option<String>,
    /// Learning rate at its peak. Default 1.25e-6.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1000))]
    pub(crate) lr: Option<Decimal>,
    /// Learning rate at the end, at most `lr`. Default 1.25e-7.
    #[schemars(extend("minimum" = 0, "maximum" = 1000))]
    pub(crate) min_lr: Option<Decimal>,
    /// Iterations between checkpoints. Default 2000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) save_interval: Option<u64>,
    /// Iterations between log lines. Default 1.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) log_interval: Option<u64>,
    /// Iterations between evaluations. Default 2000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) eval_interval: Option<u64>,
    /// Seed of all random numbers: `--seed`. Default 1234.
    #[schemars(range(max = 4_294_967_295_u32))]
    pub(crate) seed: Option<u64>,
    /// Saves optimizer and random state too, so that a run can be resumed exactly; the tutorial does not. Default false.
    pub(crate) checkpoint_optimizer: Option<bool>,
    /// How a restart goes on: `exact` with optimizer and random state, `weights` with a fresh optimizer, `never` from the beginning. Default: `exact` with `checkpoint_optimizer`, else `weights`; `never` where nothing is saved.
    pub(crate) resume: Option<Resume>,
    /// Warns when the first loss is that of random weights. Default: true where a checkpoint is loaded.
    pub(crate) expect_pretrained: Option<bool>,
    /// Ends a run whose checkpoint is missing instead of starting from random weights. Default true.
    pub(crate) exit_on_missing_checkpoint: Option<bool>,
    /// Derives the model's and the training's arguments; false passes `args`, `--load` and `--save` alone. Default true.
    pub(crate) derive: Option<bool>,
    /// Derived flags to leave out, with their values. Default `[]`.
    pub(crate) without: Vec<String>,
    /// Arguments appended as they are; the last of two equal flags counts. Default `[]`.
    #[schemars(length(max = 4096))]
    pub(crate) args: Vec<Written>,
    /// Command of the scheduler process, not with `msrun`; an empty list: none. Default: `runtime.python` runs MindSpore's `init()`.
    #[schemars(length(max = 4096))]
    pub(crate) scheduler: Option<Vec<Written>>,
    /// Longest time of one attempt, as in `30m` or `12h`; then it is stopped with its grace, and not tried again. What is surely over in time may go before larger jobs that wait. Default: no limit.
    pub(crate) time_limit: Option<Time>,
    /// How often a failed run is started again: within 24 hours, unless a window is given; the same exit in the same words twice, with no checkpoint between, is not. Default 3.
    pub(crate) retries: Option<RetriesFile>,
    /// Stages that must have succeeded before, beside the usual ones. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// A Megatron-core checkpoint back to Hugging Face format.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Export")]
pub(crate) struct ExportFile {
    /// `native`: this project's own; `mindspeed`, the reference scripts, is refused as not supported yet. Default `native`.
    pub(crate) engine: Option<Engine>,
    /// Stage whose checkpoint is taken: `train` or `convert`. Default: `train` where there is one, else `convert`.
    pub(crate) from: Option<String>,
    /// Iteration whose checkpoint is taken. Default `latest`.
    pub(crate) iteration: Option<IterationFile>,
    /// The result goes to `mg2hf` in here. Default: the model's directory, as the reference does.
    pub(crate) save_dir: Option<String>,
    /// How often a failed task is tried again: within 24 hours, unless a window is given; refused input is not. Default 2.
    pub(crate) retries: Option<RetriesFile>,
    /// Stages that must have succeeded before, beside the usual ones. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// A stage of your own: any command, under any other name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RunStage", extend("required" = ["run"]))]
pub(crate) struct RunStageFile {
    /// The command, and how often it is run.
    pub(crate) run: Option<RunFile>,
    /// Longest time of one attempt, as in `30m` or `12h`; then it is stopped with its grace, and not tried again. What is surely over in time may go before larger jobs that wait. Default: no limit.
    pub(crate) time_limit: Option<Time>,
    /// How often a failed task is tried again: within 24 hours, unless a window is given. Default 0.
    pub(crate) retries: Option<RetriesFile>,
    /// Stages that must have succeeded before. Default `[]`.
    pub(crate) after: Vec<String>,
    /// Variables for this stage's processes alone. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
}

/// A command and how often it is run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Run", extend("required" = ["argv"]))]
pub(crate) struct RunFile {
    /// Program and arguments; no shell looks at them.
    #[schemars(length(min = 1, max = 4096))]
    pub(crate) argv: Vec<Written>,
    /// Tasks that run it. Default 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) count: Option<u32>,
    /// Processes of each task, started together. Default 1.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) ranks: Option<u32>,
    /// Devices of each process. Default 0.
    #[schemars(range(max = 64))]
    pub(crate) slots: Option<u32>,
}

impl<'de> Deserialize<'de> for StagesFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StagesVisitor)
    }
}

struct StagesVisitor;

impl<'de> Visitor<'de> for StagesVisitor {
    type Value = StagesFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of stages")
    }

    fn visit_unit<E>(self) -> Result<StagesFile, E> {
        Ok(StagesFile::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StagesFile, A::Error> {
        let mut stages = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let stage = match name.as_str() {
                "preflight" => StageFile::Preflight(map.next_value()?),
                "convert" => StageFile::Convert(map.next_value()?),
                "preprocess" => StageFile::Preprocess(map.next_value()?),
                "train" => StageFile::Train(map.next_value()?),
                "export" => StageFile::Export(map.next_value()?),
                _ => StageFile::Run(map.next_value()?),
            };
            stages.push((name, stage));
        }
        Ok(StagesFile(stages))
    }
}

impl JsonSchema for StagesFile {
    fn schema_name() -> Cow<'static, str> {
        "Stages".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let preflight = generator.subschema_for::<PreflightFile>();
        let convert = generator.subschema_for::<ConvertFile>();
        let preprocess = generator.subschema_for::<PreprocessFile>();
        let train = generator.subschema_for::<TrainFile>();
        let export = generator.subschema_for::<ExportFile>();
        let run = generator.subschema_for::<RunStageFile>();
        schemars::json_schema!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": 64,
            "properties": {
                "preflight": preflight,
                "convert": convert,
                "preprocess": preprocess,
                "train": train,
                "export": export,
            },
            "propertyNames": { "pattern": "^[a-z0-9][a-z0-9-]{0,30}$" },
            "additionalProperties": run,
        })
    }
}
