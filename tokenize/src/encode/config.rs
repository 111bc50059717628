//! The files of a tokenizer directory, and what the Python tool reads in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use super::slow;
use crate::error::Error;

/// No published tokenizer comes near it.
const MAX_FILE: u64 = 256 << 20;
/// So many special tokens are probed one by one.
const MAX_SPECIAL: usize = 512;

/// The content of the directory.
pub(super) struct Files {
    /// `tokenizer.json`, with the tokens that `tokenizer_config.json` adds.
    pub(super) json: Value,
    /// The same as text.
    pub(super) text: Vec<u8>,
    pub(super) facts: Facts,
    pub(super) warnings: Vec<String>,
}

/// What the rest of the engine needs to know.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) eos_token: Option<String>,
    pub(super) eos_id: Option<u32>,
    pub(super) pad_token: Option<String>,
    /// Ids that `tokenizer_config.json` expects, in no particular order.
    pub(super) expected: Vec<(u32, String)>,
    /// Added tokens, for the probe.
    pub(super) special: Vec<String>,
    /// Special tokens inside a text are spelled out, not recognised.
    pub(super) split_special_tokens: bool,
    pub(super) digest: String,
}

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self, Error> {
        let fault = |what: String| Error::Tokenizer { path: directory.to_owned(), what };
        let config_text = read_bounded(&directory.join("tokenizer_config.json"))?;
        let config: Value = match &config_text {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| fault(format!("`tokenizer_config.json` is not JSON: {error}")))?,
            None => json!({}),
        };
        let found = match read_bounded(&directory.join("tokenizer.json"))? {
            Some(text) => Some(text),
            None => slow::read(directory, &config)?,
        };
        let Some(mut text) = found else {
            return Err(Error::NoTokenizer { path: directory.to_owned() });
        };
        let mut json: Value =
            serde_json::from_slice(&text).map_err(|error| fault(format!("`tokenizer.json` is not JSON: {error}")))?;
        let mut digest = blake3::Hasher::new();
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(&text);
        digest.update(config_text.as_deref().unwrap_or_default());

        let expected = configured_tokens(&config).map_err(fault)?;
        if add_missing(&mut json, &config, &expected).map_err(fault)? {
            text = json.to_string().into_bytes();
        }
        let facts = Facts {
            eos_token: token_text(config.get("eos_token")),
            eos_id: None,
            pad_token: token_text(config.get("pad_token")),
            expected,
            special: added_tokens(&json).take(MAX_SPECIAL).map(str::to_owned).collect(),
            split_special_tokens: config.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false),
            digest: format!("blake3:{}", digest.finalize().to_hex()),
        };
        let warnings = class_warning(&config).into_iter().collect();
        Ok(Self { json, text, facts, warnings })
    }
}

/// A token is a plain string or an object with `content`.
fn token_text(token: Option<&Value>) -> Option<String> {
    let token = token?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

fn added_tokens(json: &Value) -> impl Iterator<Item = &str> {
    let list = json.get("added_tokens").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|token| token.get("content")?.as_str())
}

/// The ids and texts of `added_tokens_decoder`.
fn configured_tokens(config: &Value) -> Result<Vec<(u32, String)>, String> {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut tokens = Vec::new();
    for (id, token) in listed.into_iter().flatten() {
        let number = id.parse().map_err(|_| format!("`added_tokens_decoder` has the id `{id}`"))?;
        let content =
            token_text(Some(token)).ok_or_else(|| format!("`added_tokens_decoder` has no content for {id}"))?;
        tokens.push((number, content));
    }
    tokens.sort();
    Ok(tokens)
}

/// Adds what `added_tokens_decoder` lists and `tokenizer.json` lacks, as the
/// Python loader does. Returns whether anything was added.
fn add_missing(json: &mut Value, config: &Value, expected: &[(u32, String)]) -> Result<bool, String> {
    let known: std::collections::HashSet<&str> = added_tokens(json).collect();
    let additions: Vec<Value> = expected
        .iter()
        .filter(|(_, content)| !known.contains(content.as_str()))
        .map(|(id, content)| {
            let token = &config["added_tokens_decoder"][id.to_string()];
            let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
            json!({
                "id": id, "content": content, "single_word": flag("single_word"), "lstrip": flag("lstrip"),
                "rstrip": flag("rstrip"), "normalized": flag("normalized"), "special": flag("special"),
            })
        })
        .collect();
    if additions.is_empty() {
        return Ok(false);
    }
    let object = json.as_object_mut().ok_or("`tokenizer.json` is not an object")?;
    let list = object.entry("added_tokens").or_insert_with(|| json!([]));
    list.as_array_mut().ok_or("`added_tokens` is not a list")?.extend(additions);
    Ok(true)
}

/// The Python classes below rewrite the post-processor of `tokenizer.json`.
fn class_warning(config: &Value) -> Option<String> {
    let class = config.get("tokenizer_class")?.as_str()?;
    let rewrites = ["LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"];
    let flags =
        ["add_bos_token", "add_eos_token"].iter().any(|flag| config.get(*flag).is_some_and(|value| value == true));
    (rewrites.contains(&class) || flags).then(|| {
        format!(
            "the Python class `{class}` may add begin or end tokens that `tokenizer.json` does not; \
             the ids here are those of `tokenizer.json`"
        )
    })
}

pub(super) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(None);
        }
        Err(source) => return Err(Error::io("open", path)(source)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::Tokenizer { path: path.to_owned(), what: format!("it is larger than {MAX_FILE} bytes") });
    }
    Ok(Some(bytes))
}
