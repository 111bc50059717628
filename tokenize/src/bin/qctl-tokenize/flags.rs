//! The command line: the reference tool's flags, and our own.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokenize::Backend;

use crate::report::Report;

/// Turn parquet or jsonl text into Megatron's .bin/.idx.
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
    /// Measure the engine against its encoder alone.
    Bench(BenchFlags),
}

/// One run.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// A .parquet, .jsonl or .json file, a directory of them, or a pattern such as `dir/*.parquet`
    #[arg(long, value_name = "PATH")]
    pub(crate) input: PathBuf,
    /// The directory with tokenizer.json and tokenizer_config.json
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer_name_or_path: PathBuf,
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
    /// Accepted: the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) n_subs: u32,
    /// Only these rows, from 0, the end excluded
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "byte_range")]
    pub(crate) rows: Option<Range<u64>>,
    /// Only the jsonl lines that begin at these bytes
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
    /// The tokenizer to look at
    #[arg(long, value_name = "DIR", conflicts_with = "prefix")]
    pub(crate) tokenizer_name_or_path: Option<PathBuf>,
    /// Read a jsonl input to count its rows
    #[arg(long)]
    pub(crate) count: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchFlags {
    /// The input; without it English-like text is made from a seed
    #[arg(long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
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
    "handler-name",
    "prompt-type",
    "prompt-type-path",
    "pack",
    "neat-pack",
    "pad-to-multiple-of",
    "merge-group-keys",
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
    Merge(MergeFlags),
    Describe(DescribeFlags),
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
            let what = format!("`--{name}` is not supported yet: only the pretrain mode is, one text per row");
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
        (Some(Verb::Bench(flags)), _) => (Action::Bench(flags), ProgressFlag::Text),
        (None, Some(flags)) => {
            if flags.n_subs > 1 {
                notes.push("`--n-subs` has no effect here: the result is the same without it".to_owned());
            }
            let progress = flags.progress;
            (Action::Run(flags), progress)
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
