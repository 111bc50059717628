//! What agents see of a job's files.

use std::collections::BTreeSet;

use model::{Dtype, ModelShape};
use proto::v1;
use serde::Deserialize;
use spec::Spec;
use spec::plan::{DataFormat, DatasetSurvey, FileSurvey, ModelSurvey, RowGroup, Survey, TokenizerSurvey, Wanted};

use super::{Compiler, Ready};

/// Agents that are asked before what they saw is taken as it is.
const ASKED: usize = 3;

impl Compiler {
    /// Asks agents until one has seen everything, and keeps the best answer.
    pub(super) async fn look(&self, spec: &Spec, wanted: &Wanted, nodes: &[Ready]) -> Seen {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let hosts: BTreeSet<&str> = nodes.iter().map(|node| node.boot_id.as_str()).collect();
        let empty = Survey { hosts: count(hosts.len()), agents: count(nodes.len()), ..Survey::default() };
        if *wanted == Wanted::default() {
            return Seen { survey: empty, unseen: Vec::new(), answered: true };
        }
        let mut best: Option<Seen> = None;
        for node in nodes.iter().take(ASKED) {
            let (mut survey, mut remarks) = (empty.clone(), Vec::new());
            let mut answered = true;
            match self.surveys.ask(&node.id, question(spec, wanted)).await {
                Ok(answer) => read(wanted, answer, &mut survey, &mut remarks),
                Err(error) => {
                    remarks.push(error.to_string());
                    answered = false;
                }
            }
            let unseen: Vec<String> =
                remarks.into_iter().map(|remark| format!("node `{}`: {remark}", node.id)).collect();
            let whole = unseen.is_empty();
            let seen = Seen { survey, unseen, answered };
            if best.as_ref().is_none_or(|best| seen.is_better_than(best)) {
                best = Some(seen);
            }
            if whole {
                break;
            }
        }
        best.unwrap_or(Seen { survey: empty, unseen: Vec::new(), answered: false })
    }
}

/// What one agent saw.
pub(super) struct Seen {
    pub(super) survey: Survey,
    /// What could not be seen and why, a sentence each.
    pub(super) unseen: Vec<String>,
    /// Whether an agent answered at all: one that went while it was asked says nothing about files.
    pub(super) answered: bool,
}

impl Seen {
    fn is_better_than(&self, other: &Self) -> bool {
        (!self.answered, self.unseen.len()) < (!other.answered, other.unseen.len())
    }
}

fn question(spec: &Spec, wanted: &Wanted) -> v1::SurveyRequest {
    v1::SurveyRequest {
        id: 0,
        workdir: spec.workdir.clone().unwrap_or_default(),
        hf_dir: wanted.model.clone().unwrap_or_default(),
        dataset_files: wanted.dataset.clone(),
        tokenizer_dir: wanted.tokenizer.clone().unwrap_or_default(),
        digest_files: wanted.script.iter().cloned().collect(),
    }
}

fn read(wanted: &Wanted, answer: v1::SurveyAnswer, survey: &mut Survey, remarks: &mut Vec<String>) {
    for error in answer.errors {
        let hint = if error.hint.is_empty() { String::new() } else { format!(" (hint: {})", error.hint) };
        let text = format!("`{}`: {}{hint}", error.subject, error.message);
        remarks.push(text.chars().take(500).collect());
    }
    if wanted.model.is_some() && !answer.model_json.is_empty() {
        match model(&answer.model_json) {
            Ok(seen) => survey.model = Some(seen),
            Err(why) => remarks.push(format!("its description of the model was not understood: {why}")),
        }
    }
    for (path, json) in wanted.dataset.iter().zip(&answer.dataset_json) {
        if json.is_empty() {
            continue;
        }
        match serde_json::from_str::<Input>(json) {
            Ok(input) => match input.into_survey(path) {
                Ok(seen) => survey.dataset.push(seen),
                Err(why) => remarks.push(format!("`{path}`: {why}")),
            },
            Err(error) => remarks.push(format!("its description of `{path}` was not understood: {error}")),
        }
    }
    if let Some(json) = answer.dataset_json.get(wanted.dataset.len()).filter(|json| !json.is_empty()) {
        match serde_json::from_str::<Described>(json) {
            Ok(described) => survey.tokenizer = Some((&described.tokenizer).into()),
            Err(error) => remarks.push(format!("its description of the tokenizer was not understood: {error}")),
        }
    }
    let script = wanted.script.as_ref().and_then(|script| {
        let found = answer.digests.iter().find(|file| file.path == *script || file.path.ends_with(&tail(script)))?;
        Some(FileSurvey { path: script.clone(), digest: found.digest.clone() })
    });
    survey.script = script.filter(|script| !script.digest.is_empty());
}

/// What an absolute path of a relative one ends with.
fn tail(path: &str) -> String {
    format!("/{}", path.trim_start_matches("./"))
}

/// `qctl-convert describe --hf-dir`.
#[derive(Deserialize)]
struct Model {
    shape: Shape,
    bytes: u64,
    config_digest: String,
    weights_digest: String,
}

#[derive(Deserialize)]
struct Shape {
    model_type: String,
    hidden_size: u64,
    ffn_hidden_size: u64,
    num_layers: u64,
    num_attention_heads: u64,
    num_query_groups: u64,
    kv_channels: u64,
    vocab_size: u64,
    max_position_embeddings: u64,
    rope_theta: f64,
    rms_norm_eps: f64,
    tied: bool,
    qkv_bias: bool,
    qk_norm: bool,
    dtype: String,
}

fn model(json: &str) -> Result<ModelSurvey, String> {
    let model: Model = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let shape = model.shape;
    let counts = [
        ("hidden_size", shape.hidden_size),
        ("ffn_hidden_size", shape.ffn_hidden_size),
        ("num_layers", shape.num_layers),
        ("num_attention_heads", shape.num_attention_heads),
        ("num_query_groups", shape.num_query_groups),
        ("kv_channels", shape.kv_channels),
        ("vocab_size", shape.vocab_size),
    ];
    for (name, value) in counts {
        if value == 0 || value > 1 << 40 {
            return Err(format!("`{name}` is {value}"));
        }
    }
    if !shape.num_attention_heads.is_multiple_of(shape.num_query_groups) {
        return Err("the heads are no multiple of the query groups".to_owned());
    }
    let dtypes = [Dtype::Bf16, Dtype::Fp16, Dtype::Fp32];
    let Some(dtype) = dtypes.into_iter().find(|dtype| dtype.flag() == shape.dtype) else {
        return Err(format!("`dtype` is `{}`", shape.dtype.escape_debug()));
    };
    Ok(ModelSurvey {
        shape: ModelShape {
            model_type: shape.model_type,
            hidden_size: shape.hidden_size,
            ffn_hidden_size: shape.ffn_hidden_size,
            num_layers: shape.num_layers,
            num_attention_heads: shape.num_attention_heads,
            num_query_groups: shape.num_query_groups,
            kv_channels: shape.kv_channels,
            vocab_size: shape.vocab_size,
            max_position_embeddings: shape.max_position_embeddings,
            rope_theta: shape.rope_theta,
            rms_norm_eps: shape.rms_norm_eps,
            tied: shape.tied,
            qkv_bias: shape.qkv_bias,
            qk_norm: shape.qk_norm,
            dtype,
        },
        bytes: model.bytes,
        digest: format!("{} {}", model.config_digest, model.weights_digest),
    })
}

/// `qctl-tokenize describe --tokenizer-name-or-path`.
#[derive(Deserialize)]
struct Described {
    tokenizer: Tokenizer,
}

/// `qctl-tokenize describe --input`.
#[derive(Deserialize)]
struct Input {
    format: String,
    rows: Option<u64>,
    #[serde(default)]
    row_groups: Vec<Group>,
    #[serde(default)]
    columns: Vec<String>,
    bytes: u64,
    #[serde(default)]
    byte_slices: bool,
    digest: String,
}

#[derive(Deserialize)]
struct Group {
    rows: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Tokenizer {
    digest: String,
    eos_id: Option<u32>,
    vocab_size: Option<u64>,
}

impl Input {
    fn into_survey(self, path: &str) -> Result<DatasetSurvey, String> {
        let format = match self.format.as_str() {
            "parquet" => DataFormat::Parquet,
            "jsonl" => DataFormat::Jsonl,
            "csv" => DataFormat::Csv,
            "txt" => DataFormat::Text,
            "arrow" => DataFormat::Arrow,
            other => return Err(format!("format `{}` is not supported", other.escape_debug())),
        };
        Ok(DatasetSurvey {
            path: path.to_owned(),
            format,
            rows: self.rows,
            bytes: self.bytes,
            byte_slices: self.byte_slices,
            row_groups: self.row_groups.iter().map(|g| RowGroup { rows: g.rows, bytes: g.bytes }).collect(),
            columns: self.columns,
            digest: self.digest,
        })
    }
}

impl From<&Tokenizer> for TokenizerSurvey {
    fn from(tokenizer: &Tokenizer) -> Self {
        Self { digest: tokenizer.digest.clone(), eos: tokenizer.eos_id, vocab_size: tokenizer.vocab_size }
    }
}
