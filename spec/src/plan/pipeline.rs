//! Stages and tasks as plain data.

use std::collections::BTreeMap;

use model::{Labels, Parallel, Retries};

use crate::arguments::corrections::Applied;
use crate::arguments::resume::resume_arguments;
use crate::problem::Problem;
use crate::spec::{Device, Launcher, Preflight, Resume, Runtime, Storage};

/// A pipeline whose every process is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Name of the job.
    pub name: String,
    /// Working directory of every process; absent only where no stage needs one.
    pub workdir: Option<String>,
    /// Environment of every process.
    pub runtime: Runtime,
    /// What a path means on two nodes.
    pub storage: Storage,
    /// Place in the queue.
    pub priority: i32,
    /// Labels that a node must have.
    pub labels: Labels,
    /// Stages, each behind those it waits for.
    pub stages: Vec<StagePlan>,
    /// Warnings of the file as a whole.
    pub warnings: Vec<Problem>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    /// Name, unique in the pipeline.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Stages that must have succeeded before.
    pub after: Vec<String>,
    /// Variables for this stage's processes, beside the runtime's.
    pub env: BTreeMap<String, String>,
    /// Tasks without an order among them.
    pub tasks: Vec<TaskPlan>,
    /// Runs once all tasks have succeeded, with the list of their outputs.
    pub closing: Option<TaskPlan>,
    /// Digest of all that decides the result; absent: never taken over from another job.
    pub digest: Option<[u8; 32]>,
    /// What is doubtful about this stage.
    pub warnings: Vec<Problem>,
}

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Checks nodes.
    Preflight,
    /// Hugging Face to Megatron-core.
    Convert,
    /// Text to token files.
    Preprocess,
    /// Trains.
    Train,
    /// Megatron-core to Hugging Face.
    Export,
    /// Runs a command.
    Run,
}

impl Kind {
    /// The word for it in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Convert => "convert",
            Self::Preprocess => "preprocess",
            Self::Train => "train",
            Self::Export => "export",
            Self::Run => "run",
        }
    }
}

/// One task: processes that start together.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    /// What it is, for people: `pp 1, tp 0`.
    pub label: String,
    /// Identical tasks that this stands for; 1 except for `run` stages with a count.
    pub copies: u32,
    /// One task on each node that the job may use, instead of `copies`.
    pub per_node: bool,
    /// Nodes that are used at once.
    pub nodes: u32,
    /// Processes on each of them.
    pub ranks_per_node: u32,
    /// Devices of each process; 0 for engines.
    pub slots_per_rank: u32,
    /// What is run.
    pub body: Body,
    /// Bytes that are worked through, for sharing work out evenly; 0 where unknown.
    pub weight_bytes: u64,
    /// How often it is tried again.
    pub retries: Retries,
    /// Longest time of one attempt, in milliseconds.
    pub limit_ms: Option<u64>,
}

/// What a task runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The agent's own checks.
    Preflight(PreflightBody),
    /// `qctl-convert` for one shard; the agent appends `--out FILE`.
    ConvertShard {
        /// Tensor-parallel position.
        tp: u32,
        /// Pipeline-parallel position.
        pp: u32,
        /// Arguments of the engine.
        args: Vec<String>,
    },
    /// `qctl-convert publish`; the agent appends `--manifest FILE`.
    ConvertPublish {
        /// Arguments of the engine.
        args: Vec<String>,
    },
    /// `qctl-tokenize` for one shard; the agent appends `--output-prefix P`.
    Tokenize {
        /// Position of the shard in the merged output.
        index: u32,
        /// Arguments of the engine.
        args: Vec<String>,
    },
    /// `qctl-tokenize merge`; the agent appends `--manifest FILE`.
    TokenizeMerge {
        /// Arguments of the engine.
        args: Vec<String>,
    },
    /// Training ranks.
    Train(Box<TrainBody>),
    /// `qctl-convert` from Megatron-core to Hugging Face.
    Export {
        /// Arguments of the engine.
        args: Vec<String>,
        /// Directory that is written.
        output_dir: String,
    },
    /// A command of the user's own.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// What a node is checked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightBody {
    /// Versions.
    pub require: Preflight,
    /// What ranks compute on.
    pub device: Device,
    /// Interpreter.
    pub python: String,
    /// Whether MindSpore must be importable: a train stage uses its scheduler or launcher.
    pub needs_mindspore: bool,
    /// Parent of the four MindSpeed repositories.
    pub mindspeed_root: Option<String>,
    /// Files and directories that must be readable before any stage.
    pub inputs: Vec<String>,
    /// Files and directories that stages will write.
    pub outputs: Vec<String>,
    /// Training script.
    pub script: Option<String>,
    /// Devices that training needs on each node; 0 where nothing trains.
    pub ranks_per_node: u32,
}

/// A training task.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainBody {
    /// Who starts the ranks.
    pub launcher: Launcher,
    /// Interpreter.
    pub python: String,
    /// Training script.
    pub script: String,
    /// What follows the script at a first start.
    pub arguments: Vec<String>,
    /// Corrections that went into the arguments.
    pub applied: Vec<Applied>,
    /// Command of the scheduler process; empty for none.
    pub scheduler: Vec<String>,
    /// How a restart goes on.
    pub resume: Resume,
    /// Directory of checkpoints.
    pub save_dir: Option<String>,
    /// Directory of the checkpoint that a first start reads.
    pub load_dir: Option<String>,
    /// Prefix of the token files.
    pub data_path: Option<String>,
    /// Cuts of the model: which shards make a checkpoint whole.
    pub parallel: Parallel,
    /// Data-parallel size.
    pub data_parallel: u32,
    /// Last iteration, for progress; absent with `derive: false`.
    pub train_iters: Option<u64>,
    /// Vocabulary V of the model, if a first loss near ln(V) is worth a warning.
    pub expect_pretrained: Option<u64>,
}

impl TrainBody {
    /// What follows the script at a restart from `iteration` of the save directory.
    ///
    /// The first start's arguments where nothing is saved or resuming is off.
    #[must_use]
    pub fn resume_arguments(&self, iteration: u64) -> Vec<String> {
        match &self.save_dir {
            Some(dir) => resume_arguments(self.resume, &self.arguments, dir, iteration),
            None => self.arguments.clone(),
        }
    }
}
