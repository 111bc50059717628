//! A tokenizer and text.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Ends a text.
const END: &str = "<|endoftext|>";

/// Writes a byte-level tokenizer of 257 tokens: every byte, and the end of a text.
pub fn tokenizer(directory: &Path) {
    let vocab: Map<String, Value> = (0..=255_u8).map(|byte| (letter(byte).to_string(), json!(byte))).collect();
    let pattern = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let all = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 256, "content": END, "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, level]},
        "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    fs::write(directory.join("tokenizer.json"), all.to_string()).unwrap();
    let config = json!({"eos_token": END, "tokenizer_class": "Qwen2Tokenizer"});
    fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Writes `count` rows of text as JSON lines.
pub fn rows(path: &Path, count: usize) {
    let mut lines = String::new();
    for row in 0..count {
        let text =
            format!("Row {row}: the ranks step together, {} times, and nobody runs ahead — 不多不少.", row * row);
        writeln!(lines, "{}", json!({"id": row, "text": text})).unwrap();
    }
    fs::write(path, lines).unwrap();
}

/// The tokens of such rows, four bytes each: the tokenizer knows bytes alone, so a byte is its own token.
#[must_use]
pub fn tokens(path: &Path) -> Vec<u8> {
    let lines = fs::read_to_string(path).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bytes = rows.flat_map(|row| row["text"].as_str().unwrap().to_owned().into_bytes());
    bytes.flat_map(|byte| u32::from(byte).to_le_bytes()).collect()
}

/// GPT-2's printable stand-in for a byte.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(*other)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap()
}
