//! `qctl dataset`: what a pair of token files holds, and where two pairs differ.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::beside;
use crate::failure::{Exit, Failure};
use crate::output::{Format, print, print_json, print_line, print_yaml, say};
use crate::text::{count, one_line, plural, printable};
use crate::view::Document;

/// What to do with token files.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DatasetArgs {
    #[command(subcommand)]
    command: DatasetCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum DatasetCommand {
    /// Checks a `.bin/.idx` pair and shows what it holds
    #[command(after_help = "\
Every number of the index is compared with the others and with the size of the `.bin`. The exit
code is 1 if they contradict each other.

Example:
  qctl dataset describe ./dataset/alpaca_text_document --tokenizer ./qwen2.5_7b_hf")]
    Describe {
        /// The pair, with or without `.bin` or `.idx`
        prefix: PathBuf,
        /// Directory of the tokenizer that spells out samples
        #[arg(long, value_name = "DIR")]
        tokenizer: Option<PathBuf>,
        /// Sequences to spell out, from the beginning to the end
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
        samples: u16,
        /// How it is written; `name` gives its prefix
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Names the first difference of two pairs
    #[command(after_help = "\
The exit code is 0 if ids, lengths and documents are equal, 1 if not.

Example:
  qctl dataset diff ./dataset/alpaca_text_document ./reference/alpaca_text_document")]
    Diff {
        /// A pair, with or without `.bin` or `.idx`
        left: PathBuf,
        /// The other
        right: PathBuf,
        /// How the answer is written; `name` gives nothing but the exit code
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `qctl-tokenize describe --prefix`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Described {
    sequences: u64,
    documents: u64,
    tokens: u64,
    min_length: u64,
    mean_length: f64,
    max_length: u64,
    consistent: bool,
    histogram: Vec<Bucket>,
    samples: Vec<Sample>,
}

/// Sequences of about one length.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bucket {
    from: u64,
    to: u64,
    sequences: u64,
}

/// The beginning of one sequence.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    sequence: u64,
    ids: Vec<i64>,
    text: Option<String>,
}

/// `qctl-tokenize diff`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Compared {
    equal: bool,
    first: Option<Difference>,
}

/// What differs first.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Difference {
    what: String,
    sequence: Option<u64>,
    position: Option<u64>,
    document: Option<u64>,
    left: i64,
    right: i64,
}

/// Does what is asked; no controller is needed.
pub(crate) fn run(args: &DatasetArgs) -> Result<(), Failure> {
    match &args.command {
        DatasetCommand::Describe { prefix, tokenizer, samples, output } => {
            describe(prefix, tokenizer.as_deref(), *samples, *output)
        }
        DatasetCommand::Diff { left, right, output } => diff(left, right, *output),
    }
}

fn describe(prefix: &Path, tokenizer: Option<&Path>, samples: u16, output: Format) -> Result<(), Failure> {
    let mut args: Vec<OsString> = vec!["describe".into(), "--prefix".into(), prefix.into()];
    if let Some(directory) = tokenizer {
        args.extend(["--tokenizer-name-or-path".into(), directory.into()]);
        args.extend(["--samples".into(), samples.to_string().into()]);
    }
    let found: Described = ask(&args)?;
    match output {
        Format::Json => print_json(&Document::new(found)),
        Format::Yaml => print_yaml(&Document::new(found)),
        Format::Name => print_line(&one_line(&prefix.display().to_string())),
        Format::Table | Format::Wide => print(&text(prefix, &found)),
    }
}

fn diff(left: &Path, right: &Path, output: Format) -> Result<(), Failure> {
    let found: Compared = ask(&["diff".into(), left.into(), right.into()])?;
    let equal = found.equal;
    match output {
        Format::Json => print_json(&Document::new(found))?,
        Format::Yaml => print_yaml(&Document::new(found))?,
        Format::Name => {}
        Format::Table | Format::Wide => match &found.first {
            Some(first) => print_line(&sentence(first))?,
            None => say("the two are equal: ids, lengths and documents"),
        },
    }
    if equal { Ok(()) } else { Err(Failure::Said(Exit::Failed)) }
}

/// Lets the engine look; it tells its own errors.
fn ask<T: DeserializeOwned>(args: &[OsString]) -> Result<T, Failure> {
    let program = beside("qctl-tokenize")?;
    let started = Command::new(&program).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let said =
        started.map_err(|error| Failure::because(format!("`{}` could not be run", program.display()), &error))?;
    match serde_json::from_slice(&said.stdout) {
        Ok(found) => Ok(found),
        Err(_) if !said.status.success() => {
            Err(Failure::Said(if said.status.code() == Some(2) { Exit::Usage } else { Exit::Failed }))
        }
        Err(error) => Err(Failure::because(format!("`{}` said what is not understood", program.display()), &error)
            .hint("are all programs of qctl of one version? see `qctl version`")),
    }
}

fn text(prefix: &Path, found: &Described) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<11} {}", printable(value));
    };
    row("pair", &prefix.display().to_string());
    row("sequences", &found.sequences.to_string());
    row("documents", &found.documents.to_string());
    row("tokens", &format!("{} ({})", found.tokens, count(found.tokens)));
    row("lengths", &format!("{} to {}, {:.1} in the mean", found.min_length, found.max_length, found.mean_length));
    row("sound", "yes: index, documents and sizes agree");
    let most = found.histogram.iter().map(|bucket| bucket.sequences).max().unwrap_or(0).max(1);
    for bucket in &found.histogram {
        let width = usize::try_from(bucket.sequences.saturating_mul(40).div_ceil(most)).unwrap_or(40);
        let range = format!("{}..{}", bucket.from, bucket.to);
        row("", &format!("{range:>15} {:<40} {}", "#".repeat(width), bucket.sequences));
    }
    for sample in &found.samples {
        let shown = match &sample.text {
            Some(text) => format!("{text:?}"),
            None => format!("{:?}", sample.ids),
        };
        row(&format!("sequence {}", sample.sequence), &shown);
    }
    text
}

fn sentence(first: &Difference) -> String {
    let Difference { left, right, .. } = first;
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let (sequence, position, document) = (number(first.sequence), number(first.position), number(first.document));
    let many = |count: i64, noun: &str| plural(usize::try_from(count).unwrap_or(0), noun);
    match first.what.as_str() {
        "id" => format!("sequence {sequence} differs at id {position}: {left} and {right}"),
        "length" => format!("sequence {sequence} has {} and {}", many(*left, "id"), many(*right, "id")),
        "document" => format!("document entry {document} is {left} and {right}"),
        what => format!("the one has {left} {what}, the other {right}"),
    }
}

/// One document of each command, by the title of its section in docs/json.md.
#[cfg(test)]
pub(super) fn examples() -> [(&'static str, serde_json::Value); 2] {
    let value = |document: &dyn Fn() -> serde_json::Result<serde_json::Value>| document().unwrap_or_default();
    let described = Described {
        sequences: 1,
        documents: 1,
        tokens: 2,
        min_length: 2,
        mean_length: 2.0,
        max_length: 2,
        consistent: true,
        histogram: vec![Bucket { from: 2, to: 3, sequences: 1 }],
        samples: vec![Sample { sequence: 0, ids: vec![1, 2], text: Some("a b".to_owned()) }],
    };
    let first =
        Difference { what: "id".to_owned(), sequence: Some(0), position: Some(1), document: None, left: 2, right: 3 };
    let compared = Compared { equal: false, first: Some(first) };
    [
        ("qctl dataset describe", value(&|| serde_json::to_value(Document::new(described.clone())))),
        ("qctl dataset diff", value(&|| serde_json::to_value(Document::new(compared.clone())))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_sentence() {
        let first = |what: &str, sequence, position, document| Difference {
            what: what.to_owned(),
            sequence,
            position,
            document,
            left: 2,
            right: 1,
        };
        for (difference, expected) in [
            (first("id", Some(7), Some(0), None), "sequence 7 differs at id 0: 2 and 1"),
            (first("length", Some(7), None, None), "sequence 7 has 2 ids and 1 id"),
            (first("document", None, None, Some(3)), "document entry 3 is 2 and 1"),
            (first("sequences", None, None, None), "the one has 2 sequences, the other 1"),
        ] {
            assert_eq!(sentence(&difference), expected);
        }
    }
}
