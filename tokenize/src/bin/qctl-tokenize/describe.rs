//! `describe`: answers for whoever plans the work.

use serde_json::{Value, json};
use std::path::Path;

use tokenize::{
    Backend, Difference, Digest, Index, InputInfo, Pair, PairInfo, Source, Tokenizer, describe_input, describe_pair,
    describe_tokenizer,
};

use crate::flags::{DescribeFlags, DiffFlags};
use crate::report::{Failure, Report};

/// The longest line that counting accepts, in bytes.
const MAX_ROW: usize = 1 << 30;
/// Ids that a sample spells out.
const SAMPLE_IDS: usize = 64;

pub(crate) fn run(flags: &DescribeFlags, report: &mut Report) -> Result<(), Failure> {
    if let Some(prefix) = &flags.prefix {
        let pair = match describe_pair(prefix) {
            Ok(pair) => pair,
            Err(error) => {
                report.data(&json!({"consistent": false, "problem": error.to_string()}));
                return Err(error.into());
            }
        };
        let tokenizer = flags.tokenizer_name_or_path.as_deref();
        let tokenizer = tokenizer.map(|directory| Tokenizer::load(directory, Backend::Reference)).transpose()?;
        let count = if tokenizer.is_some() { u64::from(flags.samples) } else { 0 };
        report.data(&json!({
            "sequences": pair.sequences, "documents": pair.documents, "tokens": pair.tokens,
            "min_length": pair.shortest, "mean_length": pair.mean, "max_length": pair.longest, "consistent": true,
            "histogram": histogram_json(&pair.histogram), "samples": samples(prefix, &pair, count, tokenizer.as_ref())?,
        }));
        return Ok(());
    }
    let mut answer = json!({});
    if let Some(input) = &flags.input {
        answer = input_json(&describe_input(&Source::open(input)?, flags.count, MAX_ROW)?);
    }
    if let Some(directory) = &flags.tokenizer_name_or_path {
        let info = describe_tokenizer(&Tokenizer::load(directory, Backend::Auto)?);
        answer["tokenizer"] = json!({
            "vocab_size": info.vocab_size, "eos_token": info.eos_token, "eos_id": info.eos_id, "digest": info.digest,
            "encoder": info.encoder, "warnings": info.warnings,
        });
    }
    report.data(&answer);
    Ok(())
}

/// Compares two pairs. Returns whether they are equal.
pub(crate) fn diff(flags: &DiffFlags, report: &Report) -> Result<bool, Failure> {
    let open = |path: &Path| Index::open(&Pair::of_stem(path));
    let first = tokenize::diff(&open(&flags.left)?, &open(&flags.right)?)?;
    let first_json = first.map(|first| match first {
        Difference::Id { sequence, position, left, right } => {
            json!({"what": "id", "sequence": sequence, "position": position, "left": left, "right": right})
        }
        Difference::Length { sequence, left, right } => {
            json!({"what": "length", "sequence": sequence, "left": left, "right": right})
        }
        Difference::Sequences { left, right } => json!({"what": "sequences", "left": left, "right": right}),
        Difference::Document { document, left, right } => {
            json!({"what": "document", "document": document, "left": left, "right": right})
        }
        Difference::Documents { left, right } => json!({"what": "documents", "left": left, "right": right}),
    });
    report.data(&json!({"equal": first.is_none(), "first": first_json}));
    Ok(first.is_none())
}

/// Sequences from beginning to end, with the text of their first ids.
fn samples(prefix: &Path, pair: &PairInfo, count: u64, tokenizer: Option<&Tokenizer>) -> Result<Vec<Value>, Failure> {
    let index = Index::open(&Pair::of_stem(prefix))?;
    let count = count.min(pair.sequences);
    let mut samples = Vec::new();
    for number in 0..count {
        let sequence = number * pair.sequences / count;
        let ids = index.ids_of(sequence, SAMPLE_IDS)?;
        // Labels and padding have ids that no text has.
        let known: Option<Vec<u32>> = ids.iter().map(|&id| u32::try_from(id).ok()).collect();
        let text = known.zip(tokenizer).and_then(|(ids, tokenizer)| tokenizer.decode(&ids));
        samples.push(json!({"sequence": sequence, "ids": ids, "text": text}));
    }
    Ok(samples)
}

fn histogram_json(histogram: &[u64]) -> Vec<Value> {
    let bounds = |bucket: usize| if bucket == 0 { (0, 0) } else { (1_u64 << (bucket - 1), (1_u64 << bucket) - 1) };
    let filled = histogram.iter().enumerate().filter(|(_, count)| **count > 0);
    filled
        .map(|(bucket, count)| json!({"from": bounds(bucket).0, "to": bounds(bucket).1, "sequences": count}))
        .collect()
}

fn input_json(info: &InputInfo) -> Value {
    let groups: Vec<Value> =
        info.row_groups.iter().map(|group| json!({"rows": group.rows, "bytes": group.bytes})).collect();
    let columns: Vec<&str> = info.columns.iter().map(|column| column.name.as_str()).collect();
    let types: Vec<&str> = info.columns.iter().map(|column| column.kind.as_str()).collect();
    let (digest, kind) = match &info.digest {
        Digest::Full(digest) => (digest, "full"),
        Digest::Footer(digest) => (digest, "footer"),
    };
    json!({
        "format": info.format.name(), "files": info.files, "rows": info.rows, "row_groups": groups, "columns": columns, "column_types": types,
        "bytes": info.bytes, "byte_slices": info.byte_slices, "digest": digest, "digest_kind": kind,
    })
}
