//! The command line: the reference tool's flags, and our own.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokenize::Backend;

use crate::bench::Kind;
use crate::report::Report;

/// Turn text into Megatron's .bin/.idx.
#[derive(Debug, Parser)]
#[command(name = "qctl-tokenize", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Line {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    run: Option<RunFlags>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Join the outputs of consecutive slices into one pair per key.
    Merge(MergeFlags),
    /// Print what an input or a finished pair holds, as JSON.
    Describe(DescribeFlags),
    /// Compare two finished pairs, as JSON; exit code 1 if they differ.
    Diff(DiffFlags),
    /// Measure the engine against its encoder alone.
    Bench(BenchFlags),
}

/// One run.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// Files (.parquet, .jsonl, .json, .csv, .txt, .arrow; the text formats also as .gz or .zst), directories of them,
    /// or patterns such as `dir/*.parquet`
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// The directory with tokenizer.json (or vocab.json and merges.txt) and tokenizer_config.json
    #[arg(long, value_name = "DIR", required_unless_present = "merge_group_keys")]
    pub(crate) tokenizer_name_or_path: Option<PathBuf>,
    /// Instead, join the pairs in the directory --input whose names hold KEY, by name, into <PREFIX>_<KEY>
    #[arg(long, value_name = "KEY", num_args = 1..)]
    pub(crate) merge_group_keys: Vec<String>,
    /// The kind of tokenizer
    #[arg(long, value_name = "TYPE", default_value = "PretrainedFromHF", value_parser = ["PretrainedFromHF"])]
    pub(crate) tokenizer_type: String,
    /// Files are named <PREFIX>_<key>_document.bin and .idx
    #[arg(long, value_name = "PREFIX")]
    pub(crate) output_prefix: PathBuf,
    /// Encoder threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) workers: u16,
    /// End each document with the tokenizer's end token
    #[arg(long)]
    pub(crate) append_eod: bool,
    /// The text columns
    #[arg(long, value_name = "KEY", num_args = 1.., default_value = "text")]
    pub(crate) json_keys: Vec<String>,
    /// Rows between two progress lines
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) log_interval: u64,
    /// Leave out sequences of N ids or more; their documents stay, empty
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) seq_length: Option<u32>,
    /// How texts are made of rows; by default each key is a text
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) handler_name: String,
    /// The prompt of an instruction handler: qwen
    #[arg(long, value_name = "TYPE")]
    pub(crate) prompt_type: Option<String>,
    /// Pack an instruction handler's sequences into rows of --seq-length
    #[arg(long)]
    pub(crate) pack: bool,
    /// Fill each document up to a multiple of N ids
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) pad_to_multiple_of: u32,
    /// Parts that the reference would cut the rows into first: it matters to --pack, and to --seq-length with several
    /// keys
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) n_subs: u32,
    /// Only these rows, from 0, the end excluded
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "byte_range")]
    pub(crate) rows: Option<Range<u64>>,
    /// Only the lines that begin at these bytes; plain .jsonl and .txt
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub(crate) byte_range: Option<Range<u64>>,
    /// The longest text or line
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(1..=(1 << 30)))]
    pub(crate) max_row_bytes: u32,
    /// Which encoder to trust
    #[arg(long, value_enum, default_value_t = EncoderFlag::Auto)]
    pub(crate) encoder: EncoderFlag,
    /// JSON lines on stdout instead of talk
    #[arg(long, value_enum, default_value_t = ProgressFlag::Text)]
    progress: ProgressFlag,
}

/// `merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeFlags {
    /// The prefix of the result
    #[arg(long, value_name = "PREFIX")]
    pub(crate) output_prefix: PathBuf,
    /// The text columns
    #[arg(long, value_name = "KEY", num_args = 1.., default_value = "text")]
    pub(crate) json_keys: Vec<String>,
    /// The prefixes of the parts, in input order
    #[arg(long = "part", value_name = "PREFIX", num_args = 1.., required_unless_present = "manifest", conflicts_with = "manifest")]
    pub(crate) parts: Vec<PathBuf>,
    /// A JSON list of {"task": N, "path": PREFIX}, joined by task number
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Remove the parts once the result stands
    #[arg(long)]
    pub(crate) remove_parts: bool,
    /// Pack the joined sequences of an instruction handler
    #[arg(long, requires = "seq_length", requires = "tokenizer_name_or_path")]
    pub(crate) pack: bool,
    /// The length of packed rows, in ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) seq_length: Option<u32>,
    /// The tokenizer whose padding token fills packed rows
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer_name_or_path: Option<PathBuf>,
    /// JSON lines on stdout instead of talk
    #[arg(long, value_enum, default_value_t = ProgressFlag::Text)]
    progress: ProgressFlag,
}

/// `describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeFlags {
    /// The input to look at
    #[arg(long, value_name = "PATH", required_unless_present_any = ["prefix", "tokenizer_name_or_path"], conflicts_with = "prefix")]
    pub(crate) input: Option<PathBuf>,
    /// A finished pair, with or without .bin or .idx
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<PathBuf>,
    /// The tokenizer to look at; with --prefix it spells out samples
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer_name_or_path: Option<PathBuf>,
    /// Read an input that does not say how many rows it has
    #[arg(long)]
    pub(crate) count: bool,
    /// Sequences of a pair to spell out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) samples: u16,
}

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffFlags {
    /// A finished pair, with or without .bin or .idx
    pub(crate) left: PathBuf,
    /// The other one
    pub(crate) right: PathBuf,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchFlags {
    /// An input, several times if need be; without one, texts of the kinds are made from a seed, as parquet
    #[arg(long, value_name = "PATH")]
    pub(crate) input: Vec<PathBuf>,
    /// Kinds of text to make
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_values = ["english", "chinese", "code", "emoji", "unicode"])]
    pub(crate) kinds: Vec<Kind>,
    /// Text of each kind; of emoji and unicode a tenth
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) megabytes: u64,
    /// A Python that has the `tokenizers` package: measured beside it on a part of each text
    #[arg(long, value_name = "PATH")]
    pub(crate) python: Option<PathBuf>,
    /// Compare the memory for 0.2 GB and 2 GB of text as well
    #[arg(long)]
    pub(crate) memory: bool,
    /// The tokenizer directory
    #[arg(long, value_name = "DIR", alias = "tokenizer-name-or-path")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Encoder threads on both sides
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: u16,
    /// Interleaved pairs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) pairs: u16,
    /// The text column
    #[arg(long, value_name = "KEY", default_value = "text")]
    pub(crate) json_key: String,
    /// Where the outputs go while it measures; the system's temporary directory by default
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProgressFlag {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EncoderFlag {
    Auto,
    Fast,
    Reference,
}

impl EncoderFlag {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Auto => Backend::Auto,
            Self::Fast => Backend::Fast,
            Self::Reference => Backend::Reference,
        }
    }
}

/// Flags of the reference tool that would change the result.
const REFUSED: &[&str] = &[
    "prompt-type-path",
    "neat-pack",
    "split-sentences",
    "streaming",
    "hf-datasets-params",
    "datasets",
    "dataset-additional-keys",
    "interleave-probs",
    "mix-strategy",
    "dataset-dir",
    "max-samples",
    "map-keys",
    "script-data-dir",
    "enable-thinking",
    "tokenizer-not-use-fast",
    "vocab-file",
    "merge-file",
    "tokenizer-model",
    "placeholder-token",
    "reward-tokens",
];

/// Flags of the reference tool that have nothing to do here, and whether they
/// take a value.
const IGNORED: &[(&str, bool)] = &[
    ("cache-dir", true),
    ("overwrite-cache", false),
    ("seed", true),
    ("keep-newlines", false),
    ("make-vocab-size-divisible-by", true),
    ("pad-vocab-size-to", true),
    ("dataset-impl", true),
];

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) action: Action,
    pub(crate) report: Report,
    /// Remarks about accepted flags.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Run(RunFlags),
    MergeGroups(RunFlags),
    Merge(MergeFlags),
    Describe(DescribeFlags),
    Diff(DiffFlags),
    Bench(BenchFlags),
}

/// Why the command line was not accepted, or help.
#[derive(Debug)]
pub(crate) struct Usage {
    error: Box<clap::Error>,
}

impl Usage {
    /// Prints it where it belongs: help to stdout, faults to stderr.
    pub(crate) fn print(&self) -> ExitCode {
        // A closed terminal leaves nobody to tell.
        let _ = self.error.print();
        ExitCode::from(u8::try_from(self.error.exit_code()).unwrap_or(2))
    }
}

impl From<clap::Error> for Usage {
    fn from(error: clap::Error) -> Self {
        Self { error: Box::new(error) }
    }
}

/// Reads the command line.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Parsed, Usage> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    for name in REFUSED {
        if matches.get_flag_or_values(name) {
            let what = format!("`--{name}` is not supported");
            return Err(command.error(ErrorKind::UnknownArgument, what).into());
        }
    }
    let mut notes = Vec::new();
    for (name, _) in IGNORED {
        if matches.get_flag_or_values(name) {
            notes.push(format!("`--{name}` has no effect here"));
        }
    }
    let line = Line::from_arg_matches(&matches)?;
    let (action, progress) = match (line.command, line.run) {
        (Some(Verb::Merge(flags)), _) => {
            let progress = flags.progress;
            (Action::Merge(flags), progress)
        }
        (Some(Verb::Describe(flags)), _) => (Action::Describe(flags), ProgressFlag::Text),
        (Some(Verb::Diff(flags)), _) => (Action::Diff(flags), ProgressFlag::Text),
        (Some(Verb::Bench(flags)), _) => (Action::Bench(flags), ProgressFlag::Text),
        (None, Some(flags)) => {
            let progress = flags.progress;
            let group = !flags.merge_group_keys.is_empty();
            (if group { Action::MergeGroups(flags) } else { Action::Run(flags) }, progress)
        }
        (None, None) => {
            let what = "`--input`, `--tokenizer-name-or-path` and `--output-prefix` are needed";
            return Err(command.error(ErrorKind::MissingRequiredArgument, what).into());
        }
    };
    Ok(Parsed { action, report: Report::new(progress == ProgressFlag::Json), notes })
}

/// The derived command with the reference tool's other flags.
fn command() -> Command {
    let refused =
        REFUSED.iter().map(|name| Arg::new(*name).long(*name).num_args(0..).hide(true).allow_hyphen_values(false));
    let ignored = IGNORED.iter().map(|(name, value)| {
        let arg = Arg::new(*name).long(*name).hide(true);
        if *value { arg } else { arg.action(ArgAction::SetTrue) }
    });
    Line::command().args(refused).args(ignored)
}

/// Whether a flag was given, with or without values.
trait Given {
    fn get_flag_or_values(&self, name: &str) -> bool;
}

impl Given for clap::ArgMatches {
    fn get_flag_or_values(&self, name: &str) -> bool {
        self.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    }
}

/// Parses `A..B`.
fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("a range looks like 0..1000")?;
    let number = |part: &str| part.parse::<u64>().map_err(|_| format!("`{part}` is not a whole number"));
    let (start, end) = (number(start)?, number(end)?);
    if start > end {
        return Err(format!("{start} is behind {end}"));
    }
    Ok(start..end)
}
