//! The preprocessor's arguments, under the reference tool's names.

use super::Arguments;
use crate::spec::{Preprocess, Spec};

/// Rows `start..end` of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// First row.
    pub start: u64,
    /// Row behind the last.
    pub end: u64,
}

/// The tutorial's command line for one input file, in its order.
#[must_use]
pub fn arguments(spec: &Spec, preprocess: &Preprocess, input: &str) -> Vec<String> {
    common(spec, preprocess, input, true).into_words()
}

/// One shard's task. The agent appends `--output-prefix P`, a name of its attempt.
///
/// Without `rows` the whole file is read.
#[must_use]
pub fn shard_arguments(spec: &Spec, preprocess: &Preprocess, input: &str, rows: Option<Rows>) -> Vec<String> {
    let mut a = common(spec, preprocess, input, false);
    if let Some(Rows { start, end }) = rows {
        a.value("--rows", format!("{start}..{end}"));
    }
    a.value("--progress", "json");
    a.into_words()
}

/// The closing task: joins the shards' files in order.
///
/// The agent appends `--manifest FILE`.
#[must_use]
pub fn merge_arguments(preprocess: &Preprocess) -> Vec<String> {
    let mut words = vec!["merge".to_owned(), "--output-prefix".to_owned(), preprocess.output_prefix.clone()];
    words.push("--json-keys".to_owned());
    words.extend(preprocess.json_keys.iter().cloned());
    words.extend(["--remove-parts", "--progress", "json"].map(str::to_owned));
    words
}

/// Prefix of the pair of files that one column becomes.
#[must_use]
pub fn data_path(preprocess: &Preprocess, key: &str) -> String {
    format!("{}_{key}_document", preprocess.output_prefix)
}

fn common(spec: &Spec, preprocess: &Preprocess, input: &str, with_output: bool) -> Arguments {
    let mut a = Arguments::default();
    a.value("--input", input);
    if let Some(dir) = &spec.hf_dir {
        a.value("--tokenizer-name-or-path", dir);
    }
    if with_output {
        a.value("--output-prefix", &preprocess.output_prefix);
    }
    a.value("--tokenizer-type", "PretrainedFromHF")
        .value("--workers", preprocess.workers)
        .value("--log-interval", 1000);
    if preprocess.json_keys != ["text"] {
        let mut words = vec!["--json-keys".to_owned()];
        words.extend(preprocess.json_keys.iter().cloned());
        a.extend(&words);
    }
    a.flag_if(preprocess.append_eod, "--append-eod");
    if let Some(length) = preprocess.seq_length {
        a.value("--seq-length", length);
    }
    a
}
