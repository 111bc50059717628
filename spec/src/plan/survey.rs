//! What an agent saw of the input, and what it should look at.

use model::ModelShape;

use crate::arguments::join;
use crate::spec::{Spec, StageBody};

/// What agents saw. Absent parts were not looked at, or not found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The model's directory.
    pub model: Option<ModelSurvey>,
    /// Input files, in the spec's order.
    pub dataset: Vec<DatasetSurvey>,
    /// The tokenizer in the model's directory.
    pub tokenizer: Option<TokenizerSurvey>,
    /// The training script.
    pub script: Option<FileSurvey>,
    /// Distinct hosts that agents run on: agents with one boot id share a host.
    pub hosts: u32,
    /// Agents that take work.
    pub agents: u32,
}

/// A model in Hugging Face format.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSurvey {
    /// What `config.json` says.
    pub shape: ModelShape,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Hex digest of `config.json` and the tensors.
    pub digest: String,
}

/// Format of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFormat {
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line, or an array of them.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Plain lines.
    Text,
    /// Arrow's stream or file format.
    Arrow,
}

/// One input file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSurvey {
    /// Path as the spec has it.
    pub path: String,
    /// Its format.
    pub format: DataFormat,
    /// Rows, where counting them is cheap.
    pub rows: Option<u64>,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether it can be cut at any byte: plain lines.
    pub byte_slices: bool,
    /// Row groups in order; empty where the format has none.
    pub row_groups: Vec<RowGroup>,
    /// Names of columns; empty where the format does not list them.
    pub columns: Vec<String>,
    /// Hex digest of the content.
    pub digest: String,
}

/// One row group of a parquet file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// Rows in it.
    pub rows: u64,
    /// Bytes of it, as stored.
    pub bytes: u64,
}

/// A tokenizer in Hugging Face format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerSurvey {
    /// Hex digest of its files.
    pub digest: String,
    /// Id of the end-of-text token, if it has one.
    pub eos: Option<u32>,
    /// Number of ids, added tokens included.
    pub vocab_size: Option<u64>,
}

/// A file that is known by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSurvey {
    /// Path as the spec has it.
    pub path: String,
    /// Hex digest of the content.
    pub digest: String,
}

/// What an agent should look at, as paths the way the spec has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Model directory.
    pub model: Option<String>,
    /// Input files.
    pub dataset: Vec<String>,
    /// Directory of the tokenizer.
    pub tokenizer: Option<String>,
    /// Training script; a bare name is seen from MindSpeed-LLM where a root is given.
    pub script: Option<String>,
}

/// What has to be seen before [`super::compile`] can work.
#[must_use]
pub fn wanted(spec: &Spec) -> Wanted {
    let mut wanted = Wanted::default();
    for stage in &spec.stages {
        match &stage.body {
            StageBody::Preflight(_) | StageBody::Run(_) => {}
            StageBody::Convert(_) | StageBody::Export(_) => wanted.model.clone_from(&spec.hf_dir),
            StageBody::Preprocess(_) => {
                wanted.model.clone_from(&spec.hf_dir);
                wanted.tokenizer.clone_from(&spec.hf_dir);
                wanted.dataset.clone_from(&spec.dataset);
            }
            StageBody::Train(train) => {
                if train.derived.is_some() {
                    wanted.model.clone_from(&spec.hf_dir);
                }
                wanted.script = Some(script_path(spec, &train.script));
            }
        }
    }
    wanted
}

/// Where the training script is: seen from MindSpeed-LLM if a root is given and
/// the script is a bare name, else as the spec has it.
pub(super) fn script_path(spec: &Spec, script: &str) -> String {
    match &spec.runtime.mindspeed_root {
        Some(root) if !script.contains('/') => join(&join(root, "MindSpeed-LLM"), script),
        Some(_) | None => script.to_owned(),
    }
}
