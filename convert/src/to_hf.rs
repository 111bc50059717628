//! Megatron-core back to Hugging Face.

use std::fs;
use std::path::{Path, PathBuf};

use model::Dtype;
use serde_json::{Map, Value};

use crate::config::{Config, read_bounded};
use crate::dtype;
use crate::error::{Error, Result};
use crate::parallel::for_each;
use crate::plan::Tensor;
use crate::plan::hf::ShardTensor;
use crate::progress::{Report, Stop};
use crate::safetensors::write::{FileDraft, SHARD_BYTES, Typed, index, split};
use crate::source::{Checkpoint, Expected};
use crate::stage::{Output, StagedDir, Written};
use crate::zip::write::Sink;

/// Files of a tokenizer, as transformers names them.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Largest of the small files that are copied.
const LARGEST_COPY: u64 = 256 << 20;

/// What to convert, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory with `iter_…` directories and, for the newest, a tracker.
    pub load_dir: PathBuf,
    /// `None` for the one that the tracker names.
    pub iteration: Option<u64>,
    /// Directory of the original model: its config and tokenizer are copied.
    pub hf_dir: PathBuf,
    /// The directory to be made, or replaced as a whole.
    pub out: PathBuf,
    /// `None` keeps the type that each tensor has.
    pub dtype: Option<Dtype>,
    /// Passes all elements through half precision, as the reference's scripts do.
    pub emulate_fp16: bool,
    /// Most bytes of tensors in one file.
    pub file_bytes: u64,
}

impl Request {
    /// The newest iteration as it is, in files as large as `save_pretrained` makes them.
    #[must_use]
    pub fn new(load_dir: PathBuf, hf_dir: PathBuf, out: PathBuf) -> Self {
        let file_bytes = SHARD_BYTES;
        Self { load_dir, iteration: None, hf_dir, out, dtype: None, emulate_fp16: false, file_bytes }
    }

    /// The type that all tensors are written as, if one, and the one that they pass through.
    #[must_use]
    pub fn types(&self, config: &Config) -> (Option<Dtype>, Option<Dtype>) {
        let via = self.emulate_fp16.then_some(Dtype::Fp16);
        // The reference's result has the type that config.json states, whatever the shards have.
        (self.dtype.or(via.map(|_| config.shape.dtype)), via)
    }
}

/// Writes a Hugging Face model from a checkpoint.
///
/// # Errors
///
/// If the checkpoint is incomplete, damaged, of another model, or uses options
/// that are not supported, and whatever reading or writing meets. Then `out` is
/// as it was.
pub fn convert(request: &Request, report: &dyn Report) -> Result<Vec<Written>> {
    let config = Config::read(&request.hf_dir)?;
    refuse_foreign(&request.out)?;
    let expected = Expected::Of(&config.shape, &request.hf_dir);
    let source = Checkpoint::open(&request.load_dir, request.iteration, &expected, report)?;
    let tensors = typed(&source, request, &config)?;
    let config_text = config_for(&config, &tensors, report)?;
    let files = split(tensors, request.file_bytes);
    let mut small = vec![("config.json".to_owned(), config_text)];
    if files.len() > 1 {
        small.push(("model.safetensors.index.json".to_owned(), index(&files)));
    }
    for name in ["generation_config.json"].into_iter().chain(TOKENIZER_FILES) {
        let path = request.hf_dir.join(name);
        if path.is_file() {
            small.push((name.to_owned(), read_bounded(&path, LARGEST_COPY)?));
        }
    }
    let total: u64 =
        files.iter().map(FileDraft::size).sum::<u64>() + small.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
    report.expect(total);
    let staged = StagedDir::create(&request.out)?;
    let mut written = for_each(files.len(), &|i, stop| {
        let output = Output::create(&staged.path().join(&files[i].name), files[i].size(), report, stop)?;
        files[i].write(output, &|at| source.matrix(at))?.finish()
    })?;
    for (name, bytes) in &small {
        let stop = Stop::default();
        let mut output = Output::create(&staged.path().join(name), bytes.len() as u64, report, &stop)?;
        output.put(bytes)?;
        written.push(output.finish()?);
    }
    for file in &mut written {
        file.path = staged.goal_of(&file.path);
    }
    staged.publish()?;
    report.note(&format!("save weight to {}", request.out.display()));
    Ok(written)
}

/// Every tensor with the type that it is written as.
fn typed(source: &Checkpoint, request: &Request, config: &Config) -> Result<Vec<Typed<ShardTensor>>> {
    let (wanted, via) = request.types(config);
    let one = |tensor: &Tensor<ShardTensor>| {
        let dtype = match wanted {
            Some(dtype) => dtype,
            None => source.dtype(tensor)?,
        };
        Ok(Typed { tensor: tensor.clone(), dtype, via })
    };
    source.tensors.iter().map(one).collect()
}

/// Only a directory of an earlier conversion may be replaced.
fn refuse_foreign(out: &Path) -> Result<()> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let hint = "choose another output directory, or move the old one away";
    let entries = fs::read_dir(out).map_err(|e| Error::io("read", out, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.ends_with(".safetensors")
            || ["config.json", "generation_config.json", "model.safetensors.index.json"].contains(&&*name)
            || TOKENIZER_FILES.contains(&&*name);
        if !ours || entry.path().is_dir() {
            return Err(Error::bad(entry.path(), "would be replaced, but is no result of a conversion").with_hint(hint));
        }
    }
    Ok(())
}

/// The original `config.json`, with the tensors' type set right where it changed.
fn config_for(config: &Config, tensors: &[Typed<ShardTensor>], report: &dyn Report) -> Result<Vec<u8>> {
    let mut types = tensors.iter().map(|t| t.dtype);
    let first = types.next().unwrap_or(config.shape.dtype);
    if types.any(|d| d != first) || (config.dtype_stated && first == config.shape.dtype) {
        return Ok(config.text.clone());
    }
    let mut json: Map<String, Value> = serde_json::from_slice(&config.text)
        .map_err(|e| Error::bad(&config.path, format!("is no valid JSON object: {e}")))?;
    let key = if json.contains_key("dtype") && !json.contains_key("torch_dtype") { "dtype" } else { "torch_dtype" };
    if config.dtype_stated {
        let (old, new) = (dtype::torch_name(config.shape.dtype), dtype::torch_name(first));
        report.warn(&format!("the checkpoint holds {new}, config.json said {old}; the copy says {new}"));
    }
    json.insert(key.to_owned(), dtype::torch_name(first).into());
    Ok(format!("{:#}\n", Value::Object(json)).into_bytes())
}
