//! The preprocessor's arguments, under the reference tool's names.

use super::Arguments;
use crate::spec::{Handler, Preprocess, Spec};

/// Which part of its input a shard reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// From a row to before another.
    Rows { start: u64, end: u64 },
    /// The lines that begin from a byte to before another.
    Bytes { start: u64, end: u64 },
}

/// The tutorial's command line for one input file, in its order.
#[must_use]
pub fn arguments(spec: &Spec, preprocess: &Preprocess, input: &str) -> Vec<String> {
    common(spec, preprocess, &[input], true).into_words()
}

/// One shard's task. The agent appends `--output-prefix P`, a name of its attempt.
#[must_use]
pub fn shard_arguments(spec: &Spec, preprocess: &Preprocess, inputs: &[&str], part: Part) -> Vec<String> {
    let unpacked = Preprocess { pack: false, ..preprocess.clone() };
    let mut a = common(spec, &unpacked, inputs, false);
    match part {
        Part::Whole => {}
        Part::Rows { start, end } => {
            a.value("--rows", format!("{start}..{end}"));
        }
        Part::Bytes { start, end } => {
            a.value("--byte-range", format!("{start}..{end}"));
        }
    }
    a.value("--progress", "json");
    a.into_words()
}

/// The closing task: joins the shards' files in order.
///
/// The agent appends `--manifest FILE`.
#[must_use]
pub fn merge_arguments(spec: &Spec, preprocess: &Preprocess) -> Vec<String> {
    let mut words = vec!["merge".to_owned(), "--output-prefix".to_owned(), preprocess.output_prefix.clone()];
    words.push("--json-keys".to_owned());
    words.extend(preprocess.outputs().into_iter().map(str::to_owned));
    if let (true, Some(length)) = (preprocess.pack, preprocess.seq_length) {
        words.extend(["--pack".to_owned(), "--seq-length".to_owned(), length.to_string()]);
        words.extend(spec.hf_dir.iter().flat_map(|dir| ["--tokenizer-name-or-path".to_owned(), dir.clone()]));
    }
    words.extend(["--remove-parts", "--progress", "json"].map(str::to_owned));
    words
}

/// Prefix of the pair of files that one column becomes.
#[must_use]
pub fn data_path(preprocess: &Preprocess, key: &str) -> String {
    format!("{}_{key}_document", preprocess.output_prefix)
}

fn common(spec: &Spec, preprocess: &Preprocess, inputs: &[&str], with_output: bool) -> Arguments {
    let mut a = Arguments::default();
    let mut words = vec!["--input".to_owned()];
    words.extend(inputs.iter().map(|&input| input.to_owned()));
    a.extend(&words);
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
    match preprocess.handler {
        Handler::Pretrain => {}
        Handler::AlpacaPretrain => {
            a.value("--handler-name", "AlpacaPretrainHandler");
        }
        Handler::AlpacaInstruction => {
            a.value("--handler-name", "AlpacaStyleInstructionHandler").value("--prompt-type", "qwen");
        }
    }
    a.flag_if(preprocess.append_eod, "--append-eod");
    if let Some(length) = preprocess.seq_length {
        a.value("--seq-length", length);
    }
    if preprocess.pad_to_multiple_of > 1 {
        a.value("--pad-to-multiple-of", preprocess.pad_to_multiple_of);
    }
    a.flag_if(preprocess.pack, "--pack");
    a
}
