//! Jobs, their stages and tasks.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::attempt::{Attempt, Failure, Output};
use crate::checkpoint::Checkpoint;
use crate::history::History;
use crate::ids::{JobId, JobName, NodeId, StageName};
use crate::labels::Labels;
use crate::layout::Parallel;
use crate::retries::Retries;

/// What a user submitted, and how far it is.
///
/// Phases of stages and of the job are derived from the tasks
/// (`planner::phase`), never stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Unique for ever.
    pub id: JobId,
    /// Unique among jobs that have not ended.
    pub name: JobName,
    /// Common name of the submitter's certificate.
    pub owner: String,
    /// Larger goes first; ties by age.
    pub priority: i32,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When its last task ended.
    pub ended: Option<Timestamp>,
    /// Repeating a submission with this key returns the same job.
    pub idempotency_key: Option<String>,
    /// The spec as it was submitted.
    pub spec_text: String,
    /// What all its processes share.
    pub runtime: Runtime,
    /// Where its tasks may run.
    pub placement: Placement,
    /// In an order in which `after` only points backwards.
    pub stages: Vec<Stage>,
    /// Set once somebody asked to end it.
    pub cancel: Option<Cancel>,
    /// The newest restarts, oldest first; at most [`Restart::KEPT`].
    pub restarts: Vec<Restart>,
    /// Sequence number of the job's newest event; 0 before the first.
    pub last_event: u64,
}

/// Somebody's wish that a job end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Who asked.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
}

/// Somebody's wish that a job go on, or that a stage begin again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Who asked.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When: failures before it count against no task's retries.
    pub at: Timestamp,
    /// Repeating a restart with this key changes nothing.
    pub key: Option<String>,
}

impl Restart {
    /// Restarts that a job remembers.
    pub const KEPT: usize = 16;
}

/// What all processes of a job share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Working directory of every process; absolute.
    pub workdir: String,
    /// Python interpreter; absolute, or a name looked up in PATH.
    pub python: String,
    /// Files sourced once per node in a clean shell.
    pub source: Vec<String>,
    /// Variables of every process.
    pub env: BTreeMap<String, String>,
    /// Root of the MindSpeed repositories, put on PYTHONPATH.
    pub mindspeed_root: Option<String>,
    /// What a slot stands for.
    pub device: DeviceKind,
    /// Whether all nodes see the same files.
    pub shared_storage: bool,
}

/// Where a job's tasks may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Labels that a node must have, with these values.
    pub labels: Labels,
}

/// What a slot of a node stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// An Ascend NPU.
    #[default]
    Ascend,
    /// A configured share of the host's processors.
    Cpu,
}

/// A named part of a job: tasks that do one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Unique in the job.
    pub name: StageName,
    /// What kind of work it is.
    pub kind: StageKind,
    /// Positions of the stages that must have succeeded first.
    pub after: Vec<usize>,
    /// Digest of everything that decides the result; `None` = never reused.
    pub digest: Option<[u8; 32]>,
    /// The job whose equal stage stands in for this one.
    pub reused: Option<JobId>,
    /// Its tasks; a closing task, if any, is the last.
    pub tasks: Vec<Task>,
    /// Checkpoints seen while it trains, by iteration.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
}

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StageKind {
    /// Checks of every node that the job may use.
    Preflight,
    /// Hugging Face to Megatron-core.
    Convert,
    /// Text to `.bin/.idx`.
    Preprocess,
    /// A gang of training ranks.
    Train,
    /// Megatron-core to Hugging Face.
    Export,
    /// Any command.
    Run,
}

/// The schedulable unit: one or more ranks that live and die together.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Short text for people and manifests, such as `tp0,pp1` or `rows 0..500`.
    pub label: String,
    /// Whether it waits for all other tasks of its stage and gets their outputs.
    pub closing: bool,
    /// How many nodes, ranks and slots it needs.
    pub shape: TaskShape,
    /// What it executes.
    pub body: Body,
    /// Further attempts allowed after a failure that is not the user's.
    pub retries: Retries,
    /// Longest time of one attempt, from its placement, in milliseconds; `None` = no limit.
    pub limit_ms: Option<u64>,
    /// Where it stands.
    pub state: TaskState,
    /// Attempts that are over, oldest first.
    pub history: History,
}

/// How many nodes, ranks and slots a task needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskShape {
    /// Distinct nodes, at least 1.
    pub nodes: u32,
    /// Ranks on each of them, at least 1.
    pub ranks_per_node: u32,
    /// Device slots a rank takes; 0 for work that needs only processors.
    pub slots_per_rank: u32,
    /// The one node it must run on (preflight).
    pub pinned: Option<NodeId>,
}

impl TaskShape {
    /// World size.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.nodes.saturating_mul(self.ranks_per_node)
    }
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskState {
    /// Waits for other stages, for room, or for its back-off to pass.
    Waiting {
        /// Not before this instant.
        not_before: Option<Timestamp>,
    },
    /// One attempt holds seats.
    Active(Attempt),
    /// Succeeded.
    Done {
        /// Number of the attempt that did it.
        attempt: u32,
        /// When its last seat ended.
        at: Timestamp,
        /// What it made.
        output: Output,
    },
    /// Will not be tried again.
    Failed {
        /// The first failure of the last attempt.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
    /// Ended unfinished because somebody cancelled the job, or because another
    /// part of it failed.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// Never started: what it waited for failed, or an equal stage was reused.
    Skipped,
}

impl TaskState {
    /// The attempt that holds seats, if one does.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Active(attempt) => Some(attempt),
            Self::Waiting { .. } | Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. } | Self::Skipped => {
                None
            }
        }
    }

    /// Whether nothing will change it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Waiting { .. } | Self::Active(_) => false,
            Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. } | Self::Skipped => true,
        }
    }
}

/// Which engine a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// `qctl-convert`.
    Convert,
    /// `qctl-tokenize`.
    Tokenize,
}

/// What the processes of a task execute.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Checks on the node itself.
    Preflight(PreflightBody),
    /// An engine, one process.
    Engine(EngineBody),
    /// Any command; one process a rank.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Training ranks under a launcher.
    Train(TrainBody),
}

/// What a preflight looks at, beside what it always looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreflightBody {
    /// Required versions by component: `python`, `mindspore`, `cann`, `driver`.
    pub require: BTreeMap<String, String>,
    /// Paths that must be readable.
    pub readable: Vec<String>,
    /// Directories that must be writable, or can be made.
    pub writable: Vec<String>,
    /// Free bytes wanted in the writable directories.
    pub free_bytes: u64,
    /// Whether the job trains, so that the interpreter must import MindSpore
    /// and the script must exist.
    pub train_script: Option<String>,
    /// Whether the script needs MindSpore.
    pub needs_mindspore: bool,
}

/// One engine process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineBody {
    /// Which engine.
    pub tool: Tool,
    /// Its arguments, without the two below.
    pub args: Vec<String>,
    /// Flag and path prefix of its output: the agent appends `.<attempt>` to
    /// the prefix, so that two attempts never write one file.
    pub out: Option<(String, String)>,
    /// Whether it gets `--manifest FILE` with the outputs of the stage's other tasks.
    pub manifest: bool,
}

/// How training ranks are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Launcher {
    /// The agent starts scheduler and ranks itself.
    Ranks,
    /// MindSpore's own launcher, one per node.
    Msrun,
}

/// A gang of training ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainBody {
    /// How ranks are started.
    pub launcher: Launcher,
    /// The script, absolute or relative to the working directory.
    pub script: String,
    /// Its arguments for a first start.
    pub args: Vec<String>,
    /// Its arguments for a restart; `--ckpt-step N` is appended. Empty = start afresh.
    pub resume_args: Vec<String>,
    /// Command of the scheduler process; empty = MindSpore's own through `python -c`.
    pub scheduler: Vec<String>,
    /// Layout, to know when a checkpoint is complete.
    pub parallel: Parallel,
    /// Where checkpoints appear; empty = none are watched.
    pub save_dir: String,
    /// Last iteration.
    pub train_iters: u64,
    /// Vocabulary, for the first-loss check; 0 = no check.
    pub vocab_size: u64,
    /// Milliseconds between SIGTERM and SIGKILL on a planned stop.
    pub grace_ms: u64,
}
