//! One reader each.

mod cli_words;
mod config_json;
mod evidence;
mod jsonl;
mod log_lines;
mod model_dir;
mod npu_smi;
mod parquet;
mod pickle;
mod pool_journal;
mod records;
mod safetensors;
mod shard;
mod slow_tokenizer;
mod spec_set;
mod spec_yaml;
mod texts;
mod token_index;
mod tokenizer_json;
mod wire;
mod zip;

/// Gives bytes to a reader; panics where its answer contradicts itself.
type Run = fn(&[u8]);

/// All of them, by name.
pub(crate) const ALL: [(&str, Run); 21] = [
    ("cli_words", cli_words::run),
    ("config_json", config_json::run),
    ("evidence", evidence::run),
    ("jsonl", jsonl::run),
    ("log_lines", log_lines::run),
    ("model_dir", model_dir::run),
    ("npu_smi", npu_smi::run),
    ("parquet", parquet::run),
    ("pickle", pickle::run),
    ("pool_journal", pool_journal::run),
    ("records", records::run),
    ("safetensors", safetensors::run),
    ("shard", shard::run),
    ("slow_tokenizer", slow_tokenizer::run),
    ("spec_set", spec_set::run),
    ("spec_yaml", spec_yaml::run),
    ("texts", texts::run),
    ("token_index", token_index::run),
    ("tokenizer_json", tokenizer_json::run),
    ("wire", wire::run),
    ("zip", zip::run),
];
