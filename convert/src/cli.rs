//! The command line: the reference converter's flag names, and a few of our own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use convert::plan::mcore::{Convention, Cut};
use convert::safetensors::write::SHARD_BYTES;
use convert::{Error, Result};
use model::{Deal, Dtype, Parallel};

/// Converts weights between Hugging Face safetensors and Megatron-core shards.
///
/// Without a subcommand it takes the flags of MindSpeed-LLM's `convert_ckpt.py`
/// under the same names. Results appear whole or not at all.
#[derive(Debug, Parser)]
#[command(name = "qctl-convert", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) convert: Convert,
    /// How progress and results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Form::Text, value_name = "FORM")]
    pub(crate) progress: Form,
}

/// What is done instead of a conversion.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check shards written one by one, move them into place, and write the tracker last.
    Publish(Publish),
    /// Print facts about a model or a checkpoint directory as one JSON object.
    Describe(Describe),
    /// Print what one iteration of a checkpoint directory holds, and what is wrong with it, as one JSON object.
    Inspect(Inspect),
    /// Measure a conversion against `cp` of the same bytes.
    Bench(Bench),
}

/// A conversion.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// What `--load-dir` holds: a Hugging Face model or Megatron-core checkpoints.
    #[arg(long, value_enum, required = true, value_name = "TYPE")]
    load_model_type: Option<Side>,
    /// What is written.
    #[arg(long, value_enum, required = true, value_name = "TYPE")]
    save_model_type: Option<Side>,
    /// Directory to read. For `mg`: the one that holds `iter_…` and the tracker.
    #[arg(long, required = true, value_name = "DIR")]
    load_dir: Option<PathBuf>,
    /// Directory to write. For `hf`: the original model's, which gets `mg2hf/`. For `mg`: an iteration beyond 1 that is
    /// there is replaced only if all its shards are a conversion's.
    #[arg(long, value_name = "DIR")]
    save_dir: Option<PathBuf>,
    /// Tensor-parallel size.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    target_tensor_parallel_size: u32,
    /// Pipeline-parallel size.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    target_pipeline_parallel_size: u32,
    /// Layers of each pipeline stage, such as 6,8,8,6 [default: equally many].
    #[arg(long, value_name = "N,…", value_parser = parse_counts)]
    num_layer_list: Option<Counts>,
    /// Layers of each virtual pipeline stage [default: no virtual stages].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    num_layers_per_virtual_pipeline_stage: Option<u64>,
    /// Slots that hold no layer, counted from 0 over the whole model.
    #[arg(long, value_name = "N,…", value_parser = parse_counts)]
    noop_layers: Option<Counts>,
    /// Type of the written tensors [default: the source's; fp16 from `hf` by convention v1].
    #[arg(long, value_enum, value_name = "DTYPE")]
    params_dtype: Option<ParamsDtype>,
    /// The model has biases on q, k and v; must agree with config.json.
    #[arg(long)]
    add_qkv_bias: bool,
    /// Pad the vocabulary to a multiple of N x tp.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    make_vocab_size_divisible_by: u64,
    /// Recorded in the shards; not read.
    #[arg(long, value_name = "PATH")]
    tokenizer_model: Option<String>,
    /// Always so; taken for the reference's command lines.
    #[arg(long)]
    use_mcore_models: bool,
    /// `GPT`.
    #[arg(long, value_name = "TYPE")]
    model_type: Option<String>,
    /// `llama2`, `qwen25` or `qwen3`: the architecture itself is read from config.json.
    #[arg(long, value_name = "NAME")]
    model_type_hf: Option<String>,
    /// Taken for the reference's command lines; the shards suit both.
    #[arg(long, value_enum, value_name = "NAME")]
    ai_framework: Option<Framework>,
    /// Write only the shard of this rank, to `--out`, and no tracker.
    #[arg(long, value_name = "TP,PP", requires = "out", value_parser = parse_rank)]
    only_shard: Option<(u32, u32)>,
    /// The file for `--only-shard`; for `hf`, the directory to make instead of `SAVE_DIR/mg2hf`.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// The iteration to read: a number, or `latest` for the tracker's.
    #[arg(long, value_name = "N", value_parser = parse_iteration)]
    iteration: Option<Iteration>,
    /// From `mg`: where config and tokenizer come from, instead of `--save-dir`; for `mg`, which model it is.
    #[arg(long, value_name = "DIR")]
    hf_dir: Option<PathBuf>,
    /// From `mg` to `mg`: rows of the vocabulary without padding [default: as `--hf-dir` or the shards state it].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    true_vocab_size: Option<u64>,
    /// For `hf`: pass all weights through half precision, as the reference's scripts do; it loses bits.
    #[arg(long)]
    emulate_fp16: bool,
    /// For `hf`: most bytes of weights in one file [default: 5000000000].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_shard_size: Option<u64>,
    /// Read both sides again afterwards and compare every weight.
    #[arg(long)]
    verify: bool,
    /// Whose habits the shards follow: `convert_ckpt.py` (v1) or `convert_ckpt_v2.py` (v2).
    #[arg(long, value_enum, default_value_t = ConventionName::V1, value_name = "NAME")]
    convention: ConventionName,
}

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The checkpoint directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_dir: PathBuf,
    /// Tensor-parallel size.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) target_tensor_parallel_size: u32,
    /// Pipeline-parallel size.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) target_pipeline_parallel_size: u32,
    /// A rank and its shard's file; once for each rank.
    #[arg(long = "shard", value_name = "TP,PP=FILE", value_parser = parse_shard)]
    pub(crate) shards: Vec<((u32, u32), PathBuf)>,
    /// A JSON file instead: [{"task": "TP,PP", "path": "FILE"}, …].
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
}

/// Arguments of `describe`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Describe {
    /// A Hugging Face model.
    #[arg(long, value_name = "DIR")]
    pub(crate) hf_dir: Option<PathBuf>,
    /// A directory of Megatron-core checkpoints.
    #[arg(long, value_name = "DIR")]
    pub(crate) mcore_dir: Option<PathBuf>,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The directory that holds `iter_…`, or one of these itself.
    #[arg(long, value_name = "DIR")]
    pub(crate) mcore_dir: PathBuf,
    /// The iteration: a number, or `latest` for the tracker's.
    #[arg(long, value_name = "N", value_parser = parse_iteration)]
    iteration: Option<Iteration>,
    /// Read every byte and compare it with its checksum.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Only this rank's shard; may be given again.
    #[arg(long = "shard", value_name = "TP,PP", value_parser = parse_rank)]
    pub(crate) shards: Vec<(u32, u32)>,
    /// A layout to load it with: tensor-parallel size.
    #[arg(long, value_name = "N", requires = "pp", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) tp: Option<u32>,
    /// Pipeline-parallel size.
    #[arg(long, value_name = "N", requires = "tp", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) pp: Option<u32>,
}

impl Inspect {
    /// What is to be looked at.
    pub(crate) fn request(self) -> Result<convert::inspect::Request> {
        let load_as = match (self.tp, self.pp) {
            (Some(tp), Some(pp)) => Some(model::Parallel::new(tp, pp)?),
            _ => None,
        };
        let iteration = match self.iteration {
            Some(Iteration::Number(number)) => Some(number),
            Some(Iteration::Latest) | None => None,
        };
        let only = self.shards.into_iter().collect();
        Ok(convert::inspect::Request { dir: self.mcore_dir, iteration, only, verify: self.verify, load_as })
    }
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Size of the model that is made.
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    pub(crate) size_mib: u64,
    /// Where model and results are made and removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines for people; a progress line on a terminal.
    Text,
    /// One JSON object a line on stdout.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Hf,
    Mg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ParamsDtype {
    Bf16,
    Fp16,
    Fp32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Framework {
    Mindspore,
    Pytorch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConventionName {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Iteration {
    Latest,
    Number(u64),
}

/// What a conversion's flags ask for, once they agree among themselves.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) load_dir: PathBuf,
    pub(crate) add_qkv_bias: bool,
    pub(crate) dtype: Option<Dtype>,
    pub(crate) verify: bool,
    pub(crate) way: Way,
}

/// From where to where.
#[derive(Debug)]
pub(crate) enum Way {
    HfToMcore { goal: Goal, cut: Cut, tokenizer_model: Option<String> },
    McoreToMcore { goal: Goal, cut: Cut, tokenizer_model: Option<String>, from: From },
    McoreToHf(convert::to_hf::Request, Vec<&'static str>),
}

/// Which checkpoint shards are made of.
#[derive(Debug)]
pub(crate) struct From {
    pub(crate) iteration: Option<u64>,
    pub(crate) hf_dir: Option<PathBuf>,
    pub(crate) vocabulary: Option<u64>,
}

/// Where shards go.
#[derive(Debug)]
pub(crate) enum Goal {
    Checkpoint(PathBuf),
    Shard { tp: u32, pp: u32, out: PathBuf },
}

impl Convert {
    /// Checks the flags against each other.
    pub(crate) fn task(self) -> Result<Task> {
        self.refuse_models()?;
        let missing = |flag: &str| Error::usage(format!("`{flag}` is missing"));
        let load_dir = self.load_dir.clone().ok_or_else(|| missing("--load-dir"))?;
        let (add_qkv_bias, verify) = (self.add_qkv_bias, self.verify);
        let dtype = self.params_dtype.map(dtype);
        let way = match (self.load_model_type, self.save_model_type) {
            (Some(Side::Hf), Some(Side::Mg)) => {
                self.refuse_model_flags()?;
                let from = [
                    ("--iteration", self.iteration.is_some()),
                    ("--hf-dir", self.hf_dir.is_some()),
                    ("--true-vocab-size", self.true_vocab_size.is_some()),
                ];
                self.refuse("--load-model-type mg", &from)?;
                let (goal, cut) = (self.goal()?, self.cut()?);
                Way::HfToMcore { goal, cut, tokenizer_model: self.tokenizer_model }
            }
            (Some(Side::Mg), Some(Side::Mg)) => {
                self.refuse_model_flags()?;
                if self.hf_dir.is_some() && self.true_vocab_size.is_some() {
                    return Err(Error::usage("`--hf-dir` states the vocabulary, too").with_hint("give one of the two"));
                }
                let (goal, cut) = (self.goal()?, self.cut()?);
                let from = From { iteration: self.iteration(), hf_dir: self.hf_dir, vocabulary: self.true_vocab_size };
                Way::McoreToMcore { goal, cut, tokenizer_model: self.tokenizer_model, from }
            }
            (Some(Side::Mg), Some(Side::Hf)) => self.into_model(load_dir.clone())?,
            (Some(Side::Hf), Some(Side::Hf)) => return Err(Error::usage("load and save type are both `hf`")),
            (None, _) => return Err(missing("--load-model-type")),
            (_, None) => return Err(missing("--save-model-type")),
        };
        Ok(Task { load_dir, add_qkv_bias, dtype, verify, way })
    }

    /// Refuses flags that have no meaning without `other`.
    fn refuse(&self, other: &str, flags: &[(&str, bool)]) -> Result<()> {
        match flags.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::usage(format!("`{flag}` only has a meaning with `{other}`"))),
            None => Ok(()),
        }
    }

    fn refuse_model_flags(&self) -> Result<()> {
        let flags = [("--emulate-fp16", self.emulate_fp16), ("--max-shard-size", self.max_shard_size.is_some())];
        self.refuse("--save-model-type hf", &flags)
    }

    fn iteration(&self) -> Option<u64> {
        match self.iteration {
            Some(Iteration::Number(number)) => Some(number),
            Some(Iteration::Latest) | None => None,
        }
    }

    fn goal(&self) -> Result<Goal> {
        match (self.only_shard, &self.out, &self.save_dir) {
            (Some(_), Some(_), _) if self.verify => {
                Err(Error::usage("`--verify` compares a whole checkpoint").with_hint("leave it out for a single shard"))
            }
            (Some((tp, pp)), Some(out), _) => Ok(Goal::Shard { tp, pp, out: out.clone() }),
            (None, None, Some(save_dir)) => Ok(Goal::Checkpoint(save_dir.clone())),
            (None, Some(_), _) => {
                Err(Error::usage("`--out` needs `--only-shard`").with_hint("use `--save-dir` for a whole checkpoint"))
            }
            (_, None, _) => Err(Error::usage("`--save-dir` is missing")),
        }
    }

    fn cut(&self) -> Result<Cut> {
        let counts = |counts: &Option<Counts>| counts.as_ref().map(|counts| counts.0.clone());
        let deal = Deal {
            list: counts(&self.num_layer_list),
            per_chunk: self.num_layers_per_virtual_pipeline_stage,
            noop: counts(&self.noop_layers).unwrap_or_default(),
        };
        Ok(Cut {
            parallel: Parallel::new(self.target_tensor_parallel_size, self.target_pipeline_parallel_size)?,
            deal,
            divisor: self.make_vocab_size_divisible_by,
            convention: match self.convention {
                ConventionName::V1 => Convention::V1,
                ConventionName::V2 => Convention::V2,
            },
        })
    }

    fn refuse_models(&self) -> Result<()> {
        if let Some(name) = self.model_type.as_deref().filter(|name| *name != "GPT") {
            return Err(Error::unsupported(format!("`--model-type {name}`")).with_hint("supported: GPT"));
        }
        if let Some(name) = self.model_type_hf.as_deref().filter(|name| !["llama2", "qwen25", "qwen3"].contains(name)) {
            return Err(Error::unsupported(format!("`--model-type-hf {name}`"))
                .with_hint("supported: llama2 (also for Qwen2.5), qwen25, qwen3"));
        }
        Ok(())
    }

    fn into_model(self, load_dir: PathBuf) -> Result<Way> {
        let shards =
            [("--only-shard", self.only_shard.is_some()), ("--true-vocab-size", self.true_vocab_size.is_some())];
        self.refuse("--save-model-type mg", &shards)?;
        if self.emulate_fp16 && self.params_dtype.is_some() {
            return Err(
                Error::usage("`--emulate-fp16` writes the type of config.json").with_hint("leave `--params-dtype` out")
            );
        }
        let hf_dir = self.hf_dir.clone().or_else(|| self.save_dir.clone()).ok_or_else(|| {
            Error::usage("`--save-dir` is missing")
                .with_hint("give the directory of the original model, or `--hf-dir` and `--out`")
        })?;
        let out = match (self.out, self.save_dir) {
            (Some(out), _) => out,
            (None, Some(save_dir)) => save_dir.join("mg2hf"),
            (None, None) => return Err(Error::usage("`--out` is missing").with_hint("give `--out` beside `--hf-dir`")),
        };
        let idle = [
            ("--target-tensor-parallel-size", self.target_tensor_parallel_size != 1),
            ("--target-pipeline-parallel-size", self.target_pipeline_parallel_size != 1),
            ("--make-vocab-size-divisible-by", self.make_vocab_size_divisible_by != 1),
            ("--num-layer-list", self.num_layer_list.is_some()),
            ("--num-layers-per-virtual-pipeline-stage", self.num_layers_per_virtual_pipeline_stage.is_some()),
            ("--noop-layers", self.noop_layers.is_some()),
        ];
        let idle = idle.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
        let request = convert::to_hf::Request {
            load_dir,
            iteration: match self.iteration {
                Some(Iteration::Number(number)) => Some(number),
                Some(Iteration::Latest) | None => None,
            },
            hf_dir,
            out,
            dtype: self.params_dtype.map(dtype),
            emulate_fp16: self.emulate_fp16,
            file_bytes: self.max_shard_size.unwrap_or(SHARD_BYTES),
        };
        Ok(Way::McoreToHf(request, idle))
    }
}

/// Numbers with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts(Vec<u64>);

/// Most numbers of one list; more layers no model has.
const MOST_COUNTS: usize = 4096;

fn parse_counts(text: &str) -> std::result::Result<Counts, String> {
    let counts: Option<Vec<u64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match counts {
        Some(counts) if counts.len() <= MOST_COUNTS => Ok(Counts(counts)),
        Some(_) => Err(format!("more than {MOST_COUNTS} numbers")),
        None => Err(format!("`{text}` is not of the form N,N,…, such as 6,7")),
    }
}

fn dtype(name: ParamsDtype) -> Dtype {
    match name {
        ParamsDtype::Bf16 => Dtype::Bf16,
        ParamsDtype::Fp16 => Dtype::Fp16,
        ParamsDtype::Fp32 => Dtype::Fp32,
    }
}

fn parse_rank(text: &str) -> std::result::Result<(u32, u32), String> {
    let form = || format!("`{text}` is not of the form TP,PP, such as 0,1");
    let (tp, pp) = text.split_once(',').ok_or_else(form)?;
    match (tp.parse(), pp.parse()) {
        (Ok(tp), Ok(pp)) => Ok((tp, pp)),
        _ => Err(form()),
    }
}

fn parse_shard(text: &str) -> std::result::Result<((u32, u32), PathBuf), String> {
    let (rank, path) = text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form TP,PP=FILE"))?;
    if path.is_empty() {
        return Err(format!("`{text}` names no file"));
    }
    Ok((parse_rank(rank)?, PathBuf::from(path)))
}

fn parse_iteration(text: &str) -> std::result::Result<Iteration, String> {
    match text {
        "latest" => Ok(Iteration::Latest),
        digits => {
            digits.parse().map(Iteration::Number).map_err(|_| format!("`{text}` is neither a number nor `latest`"))
        }
    }
}

/// Parses the rank of a manifest's entry.
pub(crate) fn rank(text: &str) -> Result<(u32, u32)> {
    parse_rank(text).map_err(Error::usage)
}

/// Flags of the reference converter that this version refuses.
const REFUSED: [&str; 38] = [
    "--add-dense-bias",
    "--ckpt-cfg-path",
    "--ckpt-format",
    "--embed-layernorm",
    "--expert-tensor-parallel-size",
    "--first-k-dense-replace",
    "--input-layernorm-in-fp32",
    "--load-checkpoint-loosely",
    "--load-hf-from-config",
    "--loader",
    "--lora-alpha",
    "--lora-load",
    "--lora-r",
    "--lora-target-modules",
    "--max-queue-size",
    "--megatron-path",
    "--moe-grouped-gemm",
    "--moe-tp-extend-ep",
    "--mtp-num-layers",
    "--multi-latent-attention",
    "--n-shared-experts",
    "--no-checking",
    "--num-experts",
    "--orm",
    "--post-norm",
    "--qk-layernorm",
    "--qlora-nf4",
    "--save-layer-by-layer",
    "--save-lora-to-hf",
    "--save-to-legacy",
    "--saver",
    "--schedules-method",
    "--spec",
    "--target-expert-parallel-size",
    "--transformer-impl",
    "--vocab-file",
    "--vpp-stage",
    "--w-pack",
];

/// Refuses the reference's other flags by name, before anything else is said.
pub(crate) fn refuse_known_flags(args: &[OsString]) -> Result<()> {
    for arg in args.iter().skip(1) {
        let text = arg.to_string_lossy();
        let flag = text.split('=').next().unwrap_or_default();
        if REFUSED.contains(&flag) {
            return Err(Error::unsupported(format!("`{flag}`")).with_hint(
                "the flags of `qctl-convert --help` are; `engine: mindspeed` runs the reference converter itself",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::command().render_long_help().to_string().contains(&format!("[default: {SHARD_BYTES}]")));
        let own: Vec<String> =
            Cli::command().get_arguments().filter_map(|a| Some(format!("--{}", a.get_long()?))).collect();
        assert!(REFUSED.iter().all(|flag| !own.contains(&(*flag).to_owned())));
    }

    #[test]
    fn ranks_and_shards_have_one_form() {
        assert_eq!(parse_rank("1,0"), Ok((1, 0)));
        assert_eq!(parse_shard("0,1=a=b"), Ok(((0, 1), PathBuf::from("a=b"))));
        for bad in ["", "1", "1,", "1,2,3", "-1,0", "a,b"] {
            assert!(parse_rank(bad).is_err(), "{bad}");
        }
        assert!(parse_shard("0,1").is_err() && parse_shard("0,1=").is_err());
    }

    #[test]
    fn the_tutorial_s_command_line_is_taken() {
        let line = "qctl-convert --use-mcore-models --model-type GPT --load-model-type hf --save-model-type mg \
            --target-tensor-parallel-size 2 --target-pipeline-parallel-size 2 --add-qkv-bias --load-dir ./a/ --save-dir ./b/ \
            --tokenizer-model ./a/tokenizer.json --model-type-hf llama2 --params-dtype bf16 --ai-framework mindspore";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let task = cli.convert.task().unwrap();
        assert_eq!((task.dtype, task.add_qkv_bias), (Some(Dtype::Bf16), true));
        let parallel = Parallel::new(2, 2).unwrap();
        assert!(matches!(task.way, Way::HfToMcore { cut, .. } if cut == Cut::even(parallel, Convention::V1)));
    }
}
