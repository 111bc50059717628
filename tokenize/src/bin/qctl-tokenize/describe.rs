//! `describe`: answers for whoever plans the work.

use serde_json::{Value, json};
use tokenize::{Backend, Digest, InputInfo, Source, Tokenizer, describe_input, describe_pair, describe_tokenizer};

use crate::flags::DescribeFlags;
use crate::report::{Failure, Report};

/// The longest line that counting accepts, in bytes.
const MAX_ROW: usize = 1 << 30;

pub(crate) fn run(flags: &DescribeFlags, report: &mut Report) -> Result<(), Failure> {
    if let Some(prefix) = &flags.prefix {
        let pair = match describe_pair(prefix) {
            Ok(pair) => pair,
            Err(error) => {
                report.data(&json!({"consistent": false, "problem": error.to_string()}));
                return Err(error.into());
            }
        };
        report.data(&json!({
            "sequences": pair.sequences, "documents": pair.documents, "tokens": pair.tokens,
            "min_length": pair.shortest, "mean_length": pair.mean, "max_length": pair.longest, "consistent": true,
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
        "bytes": info.bytes, "digest": digest, "digest_kind": kind,
    })
}
