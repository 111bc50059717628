//! The file pair of a slow tokenizer, as the Python library makes a fast one of it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::read_bounded;
use crate::error::Error;

/// The classes whose pair is understood.
const CLASSES: [&str; 2] = ["Qwen2Tokenizer", "Qwen2TokenizerFast"];
/// Where the class cuts a text into words.
const WORDS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The text of the `tokenizer.json` that `vocab.json` and `merges.txt` stand
/// for; `None` if they are not there.
///
/// Special tokens are those of `tokenizer_config.json`.
pub(super) fn read(directory: &Path, config: &Value) -> Result<Option<Vec<u8>>, Error> {
    let fault = |what: String| Error::Tokenizer { path: directory.to_owned(), what };
    let (vocab, merges) = (read_bounded(&directory.join("vocab.json"))?, read_bounded(&directory.join("merges.txt"))?);
    let (vocab, merges) = match (vocab, merges) {
        (Some(vocab), Some(merges)) => (vocab, merges),
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(fault("`vocab.json` is there without `merges.txt`".to_owned())),
        (None, Some(_)) => return Err(fault("`merges.txt` is there without `vocab.json`".to_owned())),
    };
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    if !CLASSES.contains(&class) {
        let what = format!("without `tokenizer.json` only {} can be read, not `{class}`", CLASSES.join(" and "));
        return Err(fault(what));
    }
    if config.get("added_tokens_decoder").and_then(Value::as_object).is_none() {
        return Err(fault("`tokenizer_config.json` lists no `added_tokens_decoder`".to_owned()));
    }
    let vocab: Map<String, Value> =
        serde_json::from_slice(&vocab).map_err(|error| fault(format!("`vocab.json` is not a JSON object: {error}")))?;
    let merges = std::str::from_utf8(&merges).map_err(|error| fault(format!("`merges.txt` is not UTF-8: {error}")))?;
    let mut pairs = Vec::new();
    for (number, line) in merges.lines().map(str::trim).enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version:")) {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() != 2 {
            return Err(fault(format!("line {} of `merges.txt` is not a pair", number + 1)));
        }
        pairs.push(json!(words));
    }
    let prefix = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let level = |prefix: bool, trim: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": false});
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false}, level(prefix, true),
        ]},
        "post_processor": level(false, false),
        "decoder": level(false, false),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": pairs},
    });
    Ok(Some(whole.to_string().into_bytes()))
}
