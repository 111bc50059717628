//! `qctl-convert`: weights between Hugging Face and Megatron-core.

mod bench;
mod cli;
mod terminal;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use convert::compare::{Equal, Side, compare, vouch};
use convert::config::{Config, read_bounded};
use convert::plan::mcore::Convention;
use convert::progress::Report;
use convert::publish::Sources;
use convert::safetensors::HfModel;
use convert::source::{Checkpoint, Expected};
use convert::stage::Written;
use convert::to_mcore::Source;
use convert::{Error, Result, describe, inspect, publish, to_hf, to_mcore};
use model::{Dtype, Parallel};
use serde::Deserialize;

use cli::{Cli, Command, Form, Goal, Task, Way};
use terminal::Terminal;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Err(error) = cli::refuse_known_flags(&args) {
        Terminal::new(wanted_form(&args)).error(&error);
        return ExitCode::from(2);
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&args, &error),
    };
    let terminal = Terminal::new(cli.progress);
    match run(cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(terminal.error(&error)),
    }
}

/// A command line that clap does not take, or a request for help.
fn refuse(args: &[OsString], error: &clap::Error) -> ExitCode {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !help && wanted_form(args) == Form::Json {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let hint = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
        let record = serde_json::json!({ "type": "error", "message": message, "hint": hint });
        Terminal::new(Form::Json).data(&record.to_string());
    }
    // Nothing is left to do where the terminal itself is gone.
    let _ = error.print();
    ExitCode::from(if help { 0 } else { 2 })
}

/// The form asked for, before the command line is known to be right.
fn wanted_form(args: &[OsString]) -> Form {
    let json = args.windows(2).any(|pair| pair[0] == "--progress" && pair[1] == "json");
    if json || args.iter().any(|arg| arg == "--progress=json") { Form::Json } else { Form::Text }
}

fn run(cli: Cli, terminal: &Terminal) -> Result<()> {
    match cli.command {
        None => {
            let written = conversion(cli.convert.task()?, terminal)?;
            terminal.result(&written);
            terminal.note("INFO:root:Done!");
            Ok(())
        }
        Some(Command::Publish(args)) => {
            let parallel = Parallel::new(args.target_tensor_parallel_size, args.target_pipeline_parallel_size)?;
            let sources = shard_sources(&args)?;
            let written = publish::publish(&args.save_dir, parallel, &sources, terminal)?;
            terminal.result(&written);
            terminal.note("INFO:root:Done!");
            Ok(())
        }
        Some(Command::Describe(args)) => match (args.hf_dir, args.mcore_dir) {
            (Some(dir), _) => terminal::print_json(terminal, &describe::hf(&dir)?),
            (None, Some(dir)) => terminal::print_json(terminal, &describe::mcore(&dir)?),
            (None, None) => Err(Error::usage("give `--hf-dir` or `--mcore-dir`")),
        },
        Some(Command::Inspect(args)) => {
            let inspection = inspect::inspect(&args.request()?, terminal)?;
            terminal::print_json(terminal, &inspection)
        }
        Some(Command::Bench(args)) => bench::run(&args, terminal),
    }
}

fn conversion(task: Task, terminal: &Terminal) -> Result<Vec<Written>> {
    let Task { load_dir, add_qkv_bias, dtype, verify, way } = task;
    match way {
        Way::HfToMcore { goal, cut, tokenizer_model } => {
            let model = HfModel::open(&load_dir)?;
            cut.stages(model.shape())?;
            check_qkv_bias(&model.config, add_qkv_bias)?;
            if model.shape().qkv_bias && !add_qkv_bias {
                terminal.warn(
                    "the model has biases on q, k and v; they are converted, though `--add-qkv-bias` was not given",
                );
            }
            for remark in &model.remarks {
                terminal.warn(remark);
            }
            let stored = model.shape().dtype;
            let dtype = match (dtype, cut.convention) {
                (Some(dtype), _) => dtype,
                // `convert_ckpt_v2.py` never casts.
                (None, Convention::V2) => stored,
                (None, Convention::V1) => {
                    terminal.warn(&format!(
                        "without --params-dtype the tensors are cast to fp16, as the reference converter does; the source is {}",
                        stored.flag()
                    ));
                    Dtype::Fp16
                }
            };
            let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype, tokenizer_model };
            let (written, made) = shards(&request, goal, terminal)?;
            if let Some(save_dir) = made.filter(|_| verify) {
                let equal = vouch(&save_dir, || {
                    let source = HfModel::open(&load_dir)?;
                    let expected = Expected::Of(source.shape(), &load_dir);
                    let made = Checkpoint::open(&save_dir, None, &expected, terminal)?;
                    compare(Side::Hf(&source), Side::Mcore(&made), Some(dtype), None, terminal)
                })?;
                verified(equal, terminal);
            }
            Ok(written)
        }
        Way::McoreToMcore { goal, cut, tokenizer_model, from } => {
            let config = from.hf_dir.as_deref().map(Config::read).transpose()?;
            if let Some(config) = &config {
                check_qkv_bias(config, add_qkv_bias)?;
            }
            let expected = match (&config, &from.hf_dir) {
                (Some(config), Some(dir)) => Expected::Of(&config.shape, dir),
                _ => Expected::Stated { vocabulary: from.vocabulary },
            };
            let checkpoint = Checkpoint::open(&load_dir, from.iteration, &expected, terminal)?;
            if add_qkv_bias && !checkpoint.shape.qkv_bias {
                return Err(no_qkv_bias(&load_dir, "its shards have no biases on q, k and v"));
            }
            let dtype = dtype.map_or_else(|| checkpoint.only_dtype(), Ok)?;
            let request = to_mcore::Request { source: Source::Mcore(&checkpoint), cut, dtype, tokenizer_model };
            let (written, made) = shards(&request, goal, terminal)?;
            if let Some(save_dir) = made.filter(|_| verify) {
                let equal = vouch(&save_dir, || {
                    let source = Checkpoint::open(&load_dir, from.iteration, &expected, terminal)?;
                    let same = Expected::Of(&source.shape, &load_dir);
                    let made = Checkpoint::open(&save_dir, None, &same, terminal)?;
                    compare(Side::Mcore(&source), Side::Mcore(&made), Some(dtype), None, terminal)
                })?;
                verified(equal, terminal);
            }
            Ok(written)
        }
        Way::McoreToHf(request, idle) => {
            let config = Config::read(&request.hf_dir)?;
            check_qkv_bias(&config, add_qkv_bias)?;
            for flag in idle {
                terminal.warn(&format!("`{flag}` has no effect on Hugging Face output"));
            }
            let written = to_hf::convert(&request, terminal)?;
            if verify {
                let equal = vouch(&request.out, || {
                    let made = HfModel::open(&request.out)?;
                    let expected = Expected::Of(made.shape(), &request.out);
                    let source = Checkpoint::open(&load_dir, request.iteration, &expected, terminal)?;
                    let (dtype, via) = request.types(&config);
                    compare(Side::Mcore(&source), Side::Hf(&made), dtype, via, terminal)
                })?;
                verified(equal, terminal);
            }
            Ok(written)
        }
    }
}

/// Writes shards; gives the directory of a whole checkpoint, if it was one.
fn shards(request: &to_mcore::Request<'_>, goal: Goal, terminal: &Terminal) -> Result<(Vec<Written>, Option<PathBuf>)> {
    let shape = request.source.shape();
    let (vocab, padded) = (shape.vocab_size, request.cut.vocabulary(shape));
    if padded != vocab {
        terminal.note(&format!(
            " > padded vocab (size: {vocab}) with {} dummy tokens (new size: {padded})",
            padded - vocab
        ));
    }
    match goal {
        Goal::Checkpoint(save_dir) => Ok((to_mcore::convert(request, &save_dir, terminal)?, Some(save_dir))),
        Goal::Shard { tp, pp, out } => Ok((vec![to_mcore::write_shard(request, tp, pp, &out, terminal)?], None)),
    }
}

fn verified(equal: Equal, terminal: &Terminal) {
    terminal.note(&format!("verified: {} tensors, {} bytes, equal on both sides", equal.tensors, equal.bytes));
}

/// The flag must not contradict the model; where it is absent, the model decides.
fn check_qkv_bias(config: &Config, flag: bool) -> Result<()> {
    if !flag || config.shape.qkv_bias {
        return Ok(());
    }
    let why = format!("model_type `{}` has no biases on q, k and v", config.shape.model_type);
    Err(no_qkv_bias(&config.path, &why))
}

fn no_qkv_bias(path: &Path, why: &str) -> Error {
    Error::usage(format!("`--add-qkv-bias` contradicts `{}`: {why}", path.display())).with_hint("leave the flag out")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestEntry {
    task: String,
    path: PathBuf,
}

fn shard_sources(args: &cli::Publish) -> Result<Sources> {
    let mut given = args.shards.clone();
    if let Some(path) = &args.manifest {
        let text = read_bounded(path, 16 << 20)?;
        let entries: Vec<ManifestEntry> =
            serde_json::from_slice(&text).map_err(|e| Error::bad(path, format!("is no valid manifest: {e}")))?;
        for entry in entries {
            given.push((cli::rank(&entry.task)?, entry.path));
        }
    }
    let mut sources = Sources::new();
    for ((tp, pp), path) in given {
        if sources.insert((tp, pp), path).is_some() {
            return Err(Error::usage(format!("shard {tp},{pp} is named twice")));
        }
    }
    Ok(sources)
}
