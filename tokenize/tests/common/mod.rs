//! Small data of the tests' own, and the plainest way to the same files.

// Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

pub(crate) const EOS: &str = "<|end|>";

/// Where recorded results of the reference tools are, if they are.
pub(crate) fn reference_data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("QCTL_REFERENCE_DATA").map_or(default, PathBuf::from);
    root.join("golden").is_dir().then_some(root)
}

/// Writes a byte-level BPE tokenizer: all bytes, some merges, three special
/// tokens, NFC and the pre-tokenizer of Qwen2.
pub(crate) fn tiny_tokenizer(directory: &Path) -> PathBuf {
    write_tokenizer(directory, &tiny_tokenizer_json());
    directory.to_owned()
}

pub(crate) fn write_tokenizer(directory: &Path, json: &Value) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("tokenizer.json"), json.to_string()).unwrap();
    let config = json!({"eos_token": {"content": EOS, "special": true}, "tokenizer_class": "Qwen2Tokenizer"});
    fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

pub(crate) fn tiny_tokenizer_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        vocab.insert(byte_letter(byte).to_string(), json!(vocab.len()));
    }
    let mut merges = Vec::new();
    for pair in
        ["t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "e r", "o n", "Ġ a", "l l", "Ã ©", "1 2", "Ċ Ċ", "Ġ Ġ"]
    {
        let (left, right) = pair.split_once(' ').unwrap();
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
        merges.push(json!([left, right]));
    }
    let first = vocab.len();
    let special = ["<|pad|>", EOS, "<|sep|>"];
    let added: Vec<Value> = (first..)
        .zip(special)
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let pattern = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    })
}

/// GPT-2's printable stand-in for a byte.
pub(crate) fn byte_letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap()
}

/// Rows of `(text, output)`.
pub(crate) type Rows = Vec<(String, String)>;

pub(crate) fn write_jsonl(path: &Path, rows: &Rows) {
    let lines: Vec<String> = rows
        .iter()
        .map(|(text, output)| json!({"id": 1, "text": text, "x": [null, {}], "output": output}).to_string())
        .collect();
    // No newline at the end: the last line counts all the same.
    fs::write(path, lines.join("\n")).unwrap();
}

pub(crate) fn write_parquet(path: &Path, rows: &Rows, group_rows: usize) {
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)));
    let output: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)));
    // In another order than the keys are asked for.
    write_columns(path, vec![("output", output), ("text", text)], group_rows);
}

pub(crate) fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>, group_rows: usize) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The pair as the format's description says, one list at a time.
pub(crate) fn plain_pair(sequences: &[Vec<u32>], ends: &[u64]) -> (Vec<u8>, Vec<u8>) {
    let bin: Vec<u8> = sequences.iter().flatten().flat_map(|id| id.to_le_bytes()).collect();
    let mut idx = b"MMIDIDX\x00\x00".to_vec();
    idx.extend(1_u64.to_le_bytes());
    idx.push(4);
    idx.extend((sequences.len() as u64).to_le_bytes());
    idx.extend((ends.len() as u64).to_le_bytes());
    for sequence in sequences {
        idx.extend(i32::try_from(sequence.len()).unwrap().to_le_bytes());
    }
    let mut offset = 0_i64;
    for sequence in sequences {
        idx.extend(offset.to_le_bytes());
        offset += 4 * i64::try_from(sequence.len()).unwrap();
    }
    for end in ends {
        idx.extend(end.to_le_bytes());
    }
    (bin, idx)
}

/// What the reference would write for each column of texts.
pub(crate) fn plain_run(
    columns: &[Vec<String>],
    tokenizer: &Path,
    eod: bool,
    limit: Option<usize>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tokenizer = tokenizers::Tokenizer::from_file(tokenizer.join("tokenizer.json")).unwrap();
    let mut sequences = vec![Vec::new(); columns.len()];
    let mut ends = vec![vec![0_u64]; columns.len()];
    let rows = columns[0].len();
    for begin in (0..rows).step_by(50) {
        let group: Vec<Vec<Vec<u32>>> = columns
            .iter()
            .map(|texts| {
                let some = texts[begin..rows.min(begin + 50)].iter().filter(|text| !text.is_empty());
                some.map(|text| {
                    let mut ids = tokenizer.encode(text.as_str(), true).unwrap().get_ids().to_vec();
                    ids.extend(eod.then(|| tokenizer.token_to_id(EOS).unwrap()));
                    ids
                })
                .collect()
            })
            .collect();
        let long = |position: usize| {
            group
                .iter()
                .any(|texts| texts.get(position).is_some_and(|ids| limit.is_some_and(|limit| ids.len() >= limit)))
        };
        for (column, texts) in group.iter().enumerate() {
            for (position, ids) in texts.iter().enumerate() {
                if !long(position) {
                    sequences[column].push(ids.clone());
                }
                ends[column].push(sequences[column].len() as u64);
            }
        }
    }
    sequences.iter().zip(&ends).map(|(sequences, ends)| plain_pair(sequences, ends)).collect()
}

/// Both files of a pair.
pub(crate) fn read_pair(prefix: &Path, key: &str) -> (Vec<u8>, Vec<u8>) {
    let pair = tokenize::Pair::of_key(prefix, key);
    (fs::read(pair.bin).unwrap(), fs::read(pair.idx).unwrap())
}

/// Names in a directory, hidden ones too.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
