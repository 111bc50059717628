//! A file that was checked: every value present, in range and consistent.

use std::collections::BTreeMap;

use model::{Deal, Dtype, Labels, Parallel, Retries};

use crate::origin::Origin;
use crate::problem::Problem;
pub use crate::words::{Convention, Device, Granularity, Handler, Launcher, Method, Resume, Storage};

/// One pipeline, as [`crate::parse`] let it pass.
///
/// Only the parser makes one: what the checks promise holds for every value
/// that is passed around.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Spec {
    /// Name of the job: `[a-z0-9][a-z0-9-]{0,62}`.
    pub name: String,
    /// Absolute directory that relative paths are seen from; absent only where no stage needs one.
    pub workdir: Option<String>,
    /// Cuts of the model; 1 x 1 where the file says nothing.
    pub parallel: Parallel,
    /// How layers are dealt to pipeline stages; in equal blocks where the file says nothing.
    pub deal: Deal,
    /// Directory of the model in Hugging Face format.
    pub hf_dir: Option<String>,
    /// Input files in reading order.
    pub dataset: Vec<String>,
    /// Environment of every process.
    pub runtime: Runtime,
    /// What a path means on two nodes.
    pub storage: Storage,
    /// Place in the queue, -1000 to 1000; higher goes first.
    pub priority: i32,
    /// Labels that a node must have.
    pub labels: Labels,
    /// Stages in an order in which each comes after those it waits for.
    pub stages: Vec<Stage>,
    /// What is allowed but doubtful.
    pub warnings: Vec<Problem>,
    pub(crate) origin: Origin,
}

/// Environment of every process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Interpreter: a path, or a name found in PATH.
    pub python: String,
    /// Shell files that are sourced once per node.
    pub source: Vec<String>,
    /// Parent of the four MindSpeed repositories.
    pub mindspeed_root: Option<String>,
    /// Variables set last.
    pub env: BTreeMap<String, String>,
    /// What a rank computes on.
    pub device: Device,
}

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// `[a-z0-9][a-z0-9-]{0,30}`, unique in the pipeline.
    pub name: String,
    /// Stages that must have succeeded before: the usual ones and those the file names.
    pub after: Vec<String>,
    /// Variables for this stage's processes alone.
    pub env: BTreeMap<String, String>,
    /// How often a failed task is tried again: 0 to 100 times, within 1 s to 30 days.
    pub retries: Retries,
    /// Longest time of one attempt, in milliseconds: 1 s to 365 days.
    pub limit_ms: Option<u64>,
    /// What it does.
    pub body: StageBody,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq)]
pub enum StageBody {
    /// Checks nodes.
    Preflight(Preflight),
    /// Hugging Face to Megatron-core.
    Convert(Convert),
    /// Text to token files.
    Preprocess(Preprocess),
    /// Trains.
    Train(Box<Train>),
    /// Megatron-core to Hugging Face.
    Export(Export),
    /// Runs a command.
    Run(Run),
}

/// Versions that every node must have; absent ones are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// CANN toolkit.
    pub cann: Option<String>,
    /// NPU driver.
    pub driver: Option<String>,
    /// MindSpore.
    pub mindspore: Option<String>,
    /// Python.
    pub python: Option<String>,
}

/// Hugging Face weights to Megatron-core shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convert {
    /// Parent of `iter_0000001`.
    pub save_dir: String,
    /// Type of the written tensors; the model's own where absent.
    pub dtype: Option<Dtype>,
    /// D of the padded vocabulary ceil(V / (D x TP)) x D x TP, 1 to 65536.
    pub vocab_divisor: u32,
    /// Whose habits the shards follow.
    pub convention: Convention,
}

/// Text to token files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preprocess {
    /// Beginning of the output's path.
    pub output_prefix: String,
    /// Threads of each task, 1 to 1024.
    pub workers: u32,
    /// How texts are made of rows.
    pub handler: Handler,
    /// Columns, at least one.
    pub json_keys: Vec<String>,
    /// Whether each document ends with the end-of-text token.
    pub append_eod: bool,
    /// Documents of this many tokens and more are left out.
    pub seq_length: Option<u64>,
    /// Documents are filled up to a multiple of so many tokens, 1 to 2^24.
    pub pad_to_multiple_of: u64,
    /// Whether chats are packed into rows of `seq_length`, which is there then.
    pub pack: bool,
    /// Tasks asked for, 1 to 4096; one per agent where absent.
    pub shards: Option<u32>,
}

impl Preprocess {
    /// Columns that a row must have.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        match self.handler {
            Handler::Pretrain => self.json_keys.iter().map(String::as_str).collect(),
            Handler::AlpacaPretrain => Vec::new(),
            // Without inputs an instruction is still one.
            Handler::AlpacaInstruction => vec!["instruction", "output"],
        }
    }

    /// Names of the pairs of files, as they stand between prefix and `_document`.
    #[must_use]
    pub fn outputs(&self) -> Vec<&str> {
        match self.handler {
            Handler::Pretrain | Handler::AlpacaPretrain => self.json_keys.iter().map(String::as_str).collect(),
            Handler::AlpacaInstruction => vec!["packed_input_ids", "packed_attention_mask", "packed_labels"],
        }
    }

    /// Whether texts of several columns decide about each other, fifty rows at
    /// a time: what is too long in one is left out of all.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        self.handler == Handler::Pretrain && self.json_keys.len() > 1 && self.seq_length.is_some()
    }
}

/// Training ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// Who starts the ranks.
    pub launcher: Launcher,
    /// Training script.
    pub script: String,
    /// Nodes, 1 to 4096.
    pub nodes: u32,
    /// Ranks on each node, 1 to 256; a multiple of tp.
    pub ranks_per_node: u32,
    /// Data-parallel size: nodes x ranks_per_node / (tp x pp).
    pub data_parallel: u32,
    /// What the derived arguments are made of; absent with `derive: false`.
    pub derived: Option<Derived>,
    /// Directory of checkpoints; absent only with `derive: false`.
    pub save_dir: Option<String>,
    /// Checkpoint to start from, if the file names one.
    pub load_dir: Option<String>,
    /// Whether optimizer and random state are saved.
    pub checkpoint_optimizer: bool,
    /// How a restart goes on; [`Resume::Never`] without a save directory.
    pub resume: Resume,
    /// Whether a first loss of random weights is worth a warning.
    pub expect_pretrained: bool,
    /// Whether a missing checkpoint ends the run.
    pub exit_on_missing_checkpoint: bool,
    /// Derived flags to leave out.
    pub without: Vec<String>,
    /// Appended as they are.
    pub args: Vec<String>,
    /// Command of the scheduler process; empty for none.
    pub scheduler: Vec<String>,
}

/// The training's numbers. Decimals are kept as the file spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Tokens of a sample.
    pub seq_length: u64,
    /// Samples of a micro batch.
    pub micro_batch_size: u64,
    /// Samples of an iteration: a multiple of micro batch x data-parallel size.
    pub global_batch_size: u64,
    /// Last iteration.
    pub train_iters: u64,
    /// What is computed again instead of kept.
    pub recompute: Option<Recompute>,
    /// Prefix of the token files, if the file names one.
    pub data_path: Option<String>,
    /// Peak learning rate.
    pub lr: String,
    /// Last learning rate.
    pub min_lr: String,
    /// Iterations between checkpoints.
    pub save_interval: u64,
    /// Iterations between log lines.
    pub log_interval: u64,
    /// Iterations between evaluations.
    pub eval_interval: u64,
    /// Seed.
    pub seed: u64,
}

/// Activations that are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Whole layers.
    Full {
        /// Which of them.
        method: Method,
        /// Layers of a block, at least 1.
        num_layers: u32,
    },
    /// The attention core.
    Selective,
}

/// Megatron-core to Hugging Face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Stage whose checkpoint is taken.
    pub from: String,
    /// Directory of that checkpoint.
    pub load_dir: String,
    /// Iteration, or the latest.
    pub iteration: Option<u64>,
    /// The result goes to `mg2hf` in here.
    pub save_dir: String,
}

/// A command of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Program and arguments, at least one word.
    pub argv: Vec<String>,
    /// Tasks, 1 to 1,000,000.
    pub count: u32,
    /// Processes of each task, 1 to 4096.
    pub ranks: u32,
    /// Devices of each process, 0 to 64.
    pub slots: u32,
}

impl Spec {
    /// Returns the stage of this name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// Returns the convert stage, if there is one.
    #[must_use]
    pub fn convert(&self) -> Option<&Convert> {
        self.stages.iter().find_map(|stage| match &stage.body {
            StageBody::Convert(convert) => Some(convert),
            StageBody::Preflight(_)
            | StageBody::Preprocess(_)
            | StageBody::Train(_)
            | StageBody::Export(_)
            | StageBody::Run(_) => None,
        })
    }

    /// Returns the preprocess stage, if there is one.
    #[must_use]
    pub fn preprocess(&self) -> Option<&Preprocess> {
        self.stages.iter().find_map(|stage| match &stage.body {
            StageBody::Preprocess(preprocess) => Some(preprocess),
            StageBody::Preflight(_)
            | StageBody::Convert(_)
            | StageBody::Train(_)
            | StageBody::Export(_)
            | StageBody::Run(_) => None,
        })
    }

    /// Returns the train stage, if there is one.
    #[must_use]
    pub fn train(&self) -> Option<&Train> {
        self.stages.iter().find_map(|stage| match &stage.body {
            StageBody::Train(train) => Some(train.as_ref()),
            StageBody::Preflight(_)
            | StageBody::Convert(_)
            | StageBody::Preprocess(_)
            | StageBody::Export(_)
            | StageBody::Run(_) => None,
        })
    }

    /// Whether a first loss near ln(vocabulary) is worth a warning.
    ///
    /// False where no stage trains or nothing is loaded.
    #[must_use]
    pub fn expect_pretrained(&self) -> bool {
        self.train().is_some_and(|train| train.expect_pretrained)
    }

    /// Builds a problem that points at a value of the file.
    #[must_use]
    pub fn problem(&self, path: &str, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.origin.problem(path, message.into(), hint)
    }
}
