//! The file as it is written: every key, its type and its meaning.
//!
//! The doc comments here are the descriptions of the JSON Schema and of the
//! reference: a sentence that begins with `Default` or `Required` says what holds
//! where the key is absent, `Default X.` an exact value. Ranges are those of the
//! checks. All keys are optional to the reader; what must be there is decided by
//! the checks, which can name everything that is missing at once.

mod retries;
mod scalar;
mod stages;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use retries::{RetriesFile, RetriesKeys, Time};
pub(crate) use scalar::{Decimal, IterationFile, RecomputeFile, RecomputeKeys, Written};
pub(crate) use stages::{
    ConvertFile, ExportFile, KNOWN_STAGES, PreflightFile, PreprocessFile, RunStageFile, StageFile, StagesFile,
    TrainFile,
};

use crate::words::{Device, Storage};

/// A pipeline: one file from Hugging Face weights and text to a trained model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Pipeline", extend("required" = ["name", "stages"]))]
pub(crate) struct SpecFile {
    /// Name of the job: lower-case letters, digits and hyphens; in use until the job ends.
    #[schemars(length(min = 1, max = 63), extend("pattern" = "^[a-z0-9][a-z0-9-]*$"))]
    pub(crate) name: Option<String>,
    /// Absolute directory from which relative paths are seen, on every node. Required with any stage but `preflight` and those of your own.
    pub(crate) workdir: Option<String>,
    /// How the model is cut, for conversion and training alike.
    pub(crate) parallel: Option<ParallelFile>,
    /// The model to start from.
    pub(crate) model: Option<ModelFile>,
    /// The text to train on.
    pub(crate) dataset: Option<DatasetFile>,
    /// What a login shell would have given to every process.
    pub(crate) runtime: Option<RuntimeFile>,
    /// `local`: every node has its own disk; `shared`: paths mean the same files everywhere. Default `local`.
    pub(crate) storage: Option<Storage>,
    /// Place in the queue: higher goes first. Default 0.
    #[schemars(range(min = -1000, max = 1000))]
    pub(crate) priority: Option<i32>,
    /// Which nodes may run it.
    pub(crate) placement: Option<PlacementFile>,
    /// What is done: `preflight`, `convert`, `preprocess`, `train`, `export`, and under any other name a stage of your own with `run`.
    pub(crate) stages: Option<StagesFile>,
}

/// Which nodes may run a job.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Placement")]
pub(crate) struct PlacementFile {
    /// Labels that a node must have with these values, as its `agent.toml` gives them; none: any node. Default `{}`.
    #[schemars(extend("maxProperties" = 32))]
    pub(crate) labels: BTreeMap<String, Written>,
}

/// Sizes of the model's parallel cuts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Parallel")]
pub(crate) struct ParallelFile {
    /// Tensor-parallel size: divides heads, key/value heads and FFN width. Default 1.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) tp: Option<u32>,
    /// Pipeline-parallel size: divides the number of layers, unless `num_layer_list` is given. Default 1.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) pp: Option<u32>,
    /// Layers of each pipeline stage, for training and conversion alike. Default: equally many.
    #[schemars(length(min = 1, max = 1024))]
    pub(crate) num_layer_list: Option<Vec<u64>>,
    /// Layers of each virtual pipeline stage: divides those of a stage. Default: no virtual stages.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) num_layers_per_virtual_pipeline_stage: Option<u64>,
    /// Slots that hold no layer, counted from 0 over the whole model; `--num-layers` counts them too. Default `[]`.
    #[schemars(length(max = 1024))]
    pub(crate) noop_layers: Vec<u64>,
}

/// Where the model is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Model")]
pub(crate) struct ModelFile {
    /// Directory in Hugging Face format: `config.json`, `*.safetensors`, tokenizer files. Required with `convert`, `preprocess`, `export`, and `train` unless it says `derive: false`.
    pub(crate) hf_dir: Option<String>,
    /// Refused as not supported yet: fetch the model beforehand.
    pub(crate) download: Option<DownloadFile>,
}

/// Where a model would be fetched from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Download")]
pub(crate) struct DownloadFile {
    /// Repository on ModelScope; shown in the hint.
    pub(crate) modelscope: Option<String>,
    /// Repository on Hugging Face.
    pub(crate) huggingface: Option<String>,
}

/// The input text.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Dataset")]
pub(crate) struct DatasetFile {
    /// Parquet or JSON-lines files, read in this order. Required with `preprocess`.
    #[schemars(length(max = 10_000))]
    pub(crate) files: Vec<String>,
}

/// The environment of every process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Runtime")]
pub(crate) struct RuntimeFile {
    /// Python interpreter: a path, or a name found in PATH. Default `python3`.
    pub(crate) python: Option<String>,
    /// Shell files that are sourced once per node, such as CANN's `set_env.sh`. Default `[]`.
    pub(crate) source: Vec<String>,
    /// Directory that holds MindSpeed-LLM, MindSpeed, Megatron-LM and MSAdapter; put on PYTHONPATH.
    pub(crate) mindspeed_root: Option<String>,
    /// Variables set last; never put secrets here, since they are stored and shown. Default `{}`.
    #[schemars(extend("maxProperties" = 256))]
    pub(crate) env: BTreeMap<String, Written>,
    /// `ascend`, or `cpu`: then a configured slot stands for an NPU. Default `ascend`.
    pub(crate) device: Option<Device>,
}
