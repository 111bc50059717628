//! What the planner is told, and what it answers.

use std::collections::BTreeSet;

use model::{AttemptId, Event, Failure, Job, JobId, Node, NodeId, Output, StageName, Timestamp};

/// One thing that happened outside.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a report is the common case: a box for each would cost more than it saves"
)]
pub enum Input {
    /// A user submits a job whose stages are compiled and whose id is fresh.
    Submit(Box<Job>),
    /// A user asks to end a job.
    Cancel {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
        /// Why, in their words.
        reason: String,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// A user asks that an ended job go on, or that a stage begin again.
    Restart(Box<Restart>),
    /// Something is said about a checkpoint of a job.
    Checkpoint(Box<AboutCheckpoint>),
    /// An operator keeps new work away from a node.
    Cordon {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// An operator empties a node.
    Drain {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
        /// Why, in their words.
        reason: String,
        /// Milliseconds after which what still runs is stopped; `None` = never.
        deadline_ms: Option<u64>,
    },
    /// An operator says that a silent node does not run any more.
    Fence {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// An operator keeps a node for replacements, or lets all work onto it.
    Spare {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
        /// Whether it is kept.
        spare: bool,
    },
    /// An operator lets new work onto a node again.
    Uncordon {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
    },
    /// An agent opened a session. `live` is what it runs or holds results of.
    Hello {
        /// The node's description of itself.
        node: Box<Node>,
        /// Larger for later sessions of any node (the driver counts).
        session: u64,
        /// Attempts it runs.
        live: BTreeSet<AttemptId>,
    },
    /// An agent's periodic sign of life.
    Beat {
        /// Who.
        node: NodeId,
        /// In which session.
        session: u64,
        /// Attempts it runs or is about to run.
        live: BTreeSet<AttemptId>,
    },
    /// Devices of a node that must not get work, as its agent sees them.
    Unfit {
        /// Who.
        node: NodeId,
        /// In which session.
        session: u64,
        /// Slots whose device is in alarm; replaces what was said before.
        slots: BTreeSet<u32>,
    },
    /// Which slots of a node are near to each other, as its agent sees them.
    Groups {
        /// Who.
        node: NodeId,
        /// In which session.
        session: u64,
        /// Per slot its group.
        groups: Vec<u32>,
    },
    /// An agent's report about a seat.
    Report {
        /// Who.
        node: NodeId,
        /// In which session.
        session: u64,
        /// The attempt that the seat belongs to.
        attempt: AttemptId,
        /// What it says.
        what: Report,
    },
    /// An agent's session ended.
    SessionLost {
        /// Who.
        node: NodeId,
        /// Which session.
        session: u64,
    },
    /// Time passed.
    Tick,
}

/// A wish that a job go on, or that a stage begin again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Which.
    pub job: JobId,
    /// Who asks.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// Repeating a restart with this key changes nothing.
    pub key: Option<String>,
    /// Begin again with this stage and all that come after it; `None` = with
    /// whatever has not succeeded.
    pub from_stage: Option<StageName>,
    /// A complete checkpoint to go back to.
    pub from_checkpoint: Option<u64>,
    /// Whether what runs may be stopped.
    pub stop_running: bool,
    /// Milliseconds between SIGTERM and SIGKILL of what is stopped.
    pub grace_ms: u64,
}

/// What is said about one checkpoint, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AboutCheckpoint {
    /// Whose.
    pub job: JobId,
    /// Which stage wrote it.
    pub stage: StageName,
    /// Which.
    pub iteration: u64,
    /// Who says it.
    pub by: String,
    /// What.
    pub what: Keep,
}

/// What becomes of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is not to be removed.
    Pin,
    /// It may be removed again.
    Unpin,
    /// It is taken out of use: its files are about to be removed.
    Remove {
        /// Even if a job that has not ended may need it.
        force: bool,
    },
    /// All its files are gone.
    Removed,
    /// It was read to its last byte.
    Verified {
        /// When it had been completed last as the reading began, by [`written`](crate::written).
        written: Timestamp,
        /// What is wrong, and on which node; empty = it is whole.
        faults: Vec<(NodeId, String)>,
    },
}

/// What an agent says about its seat of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Checks passed; seat 0 offers `port` for the scheduler.
    Prepared {
        /// 0 on other seats.
        port: u16,
    },
    /// Its processes run.
    Started,
    /// The first failure on this node; the rest of the node is being stopped.
    Failed(Failure),
    /// All its processes are gone.
    Ended {
        /// Whether every rank finished its work.
        ok: bool,
        /// What it made.
        output: Output,
        /// The failure, if not ok (again, or for the first time); `None` after
        /// a stop that the controller asked for.
        failure: Option<Failure>,
        /// How long its processes ran, in milliseconds, where that is known.
        ran_ms: Option<u64>,
    },
    /// Nothing of it was begun, and nothing ever will be.
    Returned,
    /// A checkpoint shard was written.
    Shard {
        /// Iteration.
        iteration: u64,
        /// Tensor-parallel rank of the shard.
        tp: u32,
        /// Pipeline stage of the shard.
        pp: u32,
        /// Path on the node.
        path: String,
        /// Bytes.
        size: u64,
    },
    /// The tracker file names this iteration.
    Tracker {
        /// Iteration.
        iteration: u64,
    },
    /// Something looks wrong but is no failure.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// What came of one input.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Answer to the caller, for inputs that have one.
    pub reply: Option<Reply>,
    /// What must be saved before anything below is done.
    pub writes: BTreeSet<Write>,
    /// Events to append, in order; saved with the writes.
    pub events: Vec<Event>,
    /// Hints to agents, sent after the commit; may be lost.
    pub effects: Vec<Effect>,
    /// When to step with [`Input::Tick`] at the latest, and why.
    pub wake_at: Option<(Timestamp, Why)>,
}

impl Step {
    /// Adds what came of a later input, whose wish to be woken counts.
    pub fn append(&mut self, later: Self) {
        self.reply = later.reply.or(self.reply.take());
        self.writes.extend(later.writes);
        self.events.extend(later.events);
        self.effects.extend(later.effects);
        self.wake_at = later.wake_at;
    }
}

/// Answer to a caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The job was accepted, or was accepted before under the same key.
    Accepted(JobId),
    /// The job's name is in use by `holder`.
    NameInUse {
        /// The job that has the name.
        holder: JobId,
    },
    /// The job is being ended.
    Cancelling,
    /// The job had ended already.
    AlreadyEnded,
    /// There is no such job.
    NoSuchJob,
    /// These stages begin again.
    Restarted(Vec<StageName>),
    /// The restart was asked for before under the same key.
    RestartedBefore,
    /// All of the job has succeeded, and no stage was named.
    NothingToRestart,
    /// The job cannot be restarted so.
    RestartRefused(RestartRefusal),
    /// The checkpoint's record says so, as it did not before.
    CheckpointChanged,
    /// The checkpoint's record says so already.
    CheckpointUnchanged,
    /// It is not done with this checkpoint.
    CheckpointRefused(CheckpointRefusal),
    /// The node's record says so, as it did not before.
    NodeChanged,
    /// The node's record says so already.
    NodeUnchanged,
    /// The node is not silent, or not for long enough, to be fenced.
    NotSilent {
        /// Whether this leader has heard it.
        heard: bool,
        /// Milliseconds since it spoke, or since this leader began.
        silent_ms: u64,
    },
    /// There is no such node.
    NoSuchNode,
    /// The report was taken, or is a latecomer that changes nothing: the agent may forget it.
    Taken,
}

/// Why a job is not restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartRefusal {
    /// It runs, and the request does not allow to stop it.
    Running,
    /// It is being ended: what runs has been told to stop.
    Ending,
    /// It has no such stage.
    NoSuchStage,
    /// No training stage begins again, or more than one does.
    NoTraining,
    /// The training stage's restarts never resume.
    NeverResumes {
        /// The stage.
        stage: StageName,
    },
    /// The iteration is no complete checkpoint of the stage.
    NoSuchCheckpoint {
        /// The stage.
        stage: StageName,
        /// The iterations that are, newest first.
        complete: Vec<u64>,
    },
}

/// Why something is not done with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointRefusal {
    /// The stage has no such checkpoint.
    NoSuch {
        /// The iterations that are complete, newest first.
        complete: Vec<u64>,
    },
    /// It cannot be gone on from, so there is nothing to keep.
    Unusable,
    /// Its stage has too many pinned ones.
    TooManyPinned {
        /// How many shards all of them may have.
        shards: usize,
    },
    /// It is pinned.
    Pinned {
        /// In this job.
        job: JobId,
    },
    /// A job that has not ended may need it.
    Needed {
        /// This one.
        job: JobId,
    },
}

/// A record that changed. The driver reads its value from the world at the end
/// of the batch, so that one record is written once a batch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    /// A node's record.
    Node(NodeId),
    /// A job's plan: all that changes at most with a restart.
    Plan(JobId),
    /// A job's head: its end, its cancellation and the number of its newest event.
    Job(JobId),
    /// States of one stage's tasks, in a chunk of 64: `index / 64`.
    Tasks {
        /// The job.
        job: JobId,
        /// Position of the stage.
        stage: usize,
        /// `index / 64`.
        chunk: u32,
    },
    /// Checkpoints of a stage.
    Checkpoints {
        /// The job.
        job: JobId,
        /// Position of the stage.
        stage: usize,
    },
}

/// Something an agent should do; lost ones are derived again from the next beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check what seat `seat` of the attempt needs, and say `Prepared`.
    Prepare {
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: AttemptId,
        /// Position of the seat.
        seat: usize,
    },
    /// Start the seat's processes.
    Start {
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: AttemptId,
        /// Position of the seat.
        seat: usize,
    },
    /// Stop the seat's processes and confirm with `Ended`.
    Stop {
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: AttemptId,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// Give the seat back if nothing of it has begun, and say `Returned`; else
    /// let it be.
    Recall {
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The attempt is over and its results are saved: the node may forget it.
    Forget {
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: AttemptId,
    },
}

/// Why the planner wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A node's silence reaches a limit.
    Silence,
    /// A retried task's back-off ends.
    Backoff,
    /// A silent seat's fence margin ends.
    Fence,
    /// A node is to be empty.
    Emptied,
    /// What was sent ahead has waited for long.
    Overdue,
    /// An attempt reaches its time limit.
    Limit,
}
