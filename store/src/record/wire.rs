//! The records' own messages, apart from the wire's, so that old ones stay readable.
//!
//! Fields are only added; numbers are never used again.

mod access;

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

pub(super) use access::{Certificate, Revocation, Token};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub boot_id: String,
    #[prost(string, tag = "3")]
    pub hostname: String,
    #[prost(string, tag = "4")]
    pub address: String,
    #[prost(string, tag = "5")]
    pub version: String,
    #[prost(enumeration = "Device", tag = "6")]
    pub device: i32,
    #[prost(uint32, tag = "7")]
    pub slots: u32,
    #[prost(uint32, tag = "8")]
    pub cpus: u32,
    #[prost(uint64, tag = "9")]
    pub memory: u64,
    #[prost(uint64, tag = "10")]
    pub joined: u64,
    #[prost(message, optional, tag = "11")]
    pub cordon: Option<Cordon>,
    #[prost(message, optional, tag = "12")]
    pub fence: Option<Fence>,
    #[prost(btree_map = "string, string", tag = "13")]
    pub labels: BTreeMap<String, String>,
    #[prost(uint32, repeated, tag = "14")]
    pub groups: Vec<u32>,
    #[prost(bool, tag = "15")]
    pub spare: bool,
    #[prost(bool, optional, tag = "16")]
    pub spare_word: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Cordon {
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(uint64, tag = "3")]
    pub at: u64,
    #[prost(bool, tag = "4")]
    pub empty: bool,
    #[prost(uint64, optional, tag = "5")]
    pub deadline: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fence {
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(uint64, tag = "3")]
    pub at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Device {
    Ascend = 0,
    Cpu = 1,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Job {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub owner: String,
    #[prost(int32, tag = "4")]
    pub priority: i32,
    #[prost(uint64, tag = "5")]
    pub submitted: u64,
    #[prost(string, optional, tag = "7")]
    pub idempotency_key: Option<String>,
    #[prost(string, tag = "8")]
    pub spec_text: String,
    #[prost(message, optional, tag = "9")]
    pub runtime: Option<Runtime>,
    #[prost(message, repeated, tag = "10")]
    pub stages: Vec<Stage>,
    #[prost(message, optional, tag = "11")]
    pub placement: Option<Placement>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Placement {
    #[prost(btree_map = "string, string", tag = "1")]
    pub labels: BTreeMap<String, String>,
}

/// What changes of a job beside its tasks.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(uint64, optional, tag = "1")]
    pub ended: Option<u64>,
    #[prost(message, optional, tag = "2")]
    pub cancel: Option<Cancel>,
    #[prost(uint64, tag = "3")]
    pub last_event: u64,
    #[prost(message, repeated, tag = "4")]
    pub restarts: Vec<Restart>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Restart {
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(uint64, tag = "3")]
    pub at: u64,
    #[prost(string, optional, tag = "4")]
    pub key: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Cancel {
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(uint64, tag = "3")]
    pub at: u64,
    #[prost(uint64, tag = "4")]
    pub grace_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Runtime {
    #[prost(string, tag = "1")]
    pub workdir: String,
    #[prost(string, tag = "2")]
    pub python: String,
    #[prost(string, repeated, tag = "3")]
    pub source: Vec<String>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub env: BTreeMap<String, String>,
    #[prost(string, optional, tag = "5")]
    pub mindspeed_root: Option<String>,
    #[prost(enumeration = "Device", tag = "6")]
    pub device: i32,
    #[prost(bool, tag = "7")]
    pub shared_storage: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "StageKind", tag = "2")]
    pub kind: i32,
    #[prost(uint32, repeated, tag = "3")]
    pub after: Vec<u32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub digest: Option<Vec<u8>>,
    #[prost(string, optional, tag = "5")]
    pub reused: Option<String>,
    /// What does not change of its tasks; their states are in chunks.
    #[prost(message, repeated, tag = "6")]
    pub tasks: Vec<Task>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum StageKind {
    Preflight = 0,
    Convert = 1,
    Preprocess = 2,
    Train = 3,
    Export = 4,
    Run = 5,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Task {
    #[prost(string, tag = "1")]
    pub label: String,
    #[prost(bool, tag = "2")]
    pub closing: bool,
    #[prost(uint32, tag = "3")]
    pub nodes: u32,
    #[prost(uint32, tag = "4")]
    pub ranks_per_node: u32,
    #[prost(uint32, tag = "5")]
    pub slots_per_rank: u32,
    #[prost(string, optional, tag = "6")]
    pub pinned: Option<String>,
    #[prost(uint32, tag = "7")]
    pub retries: u32,
    /// Absent in records that had one window and one pause for all.
    #[prost(uint64, optional, tag = "8")]
    pub retry_window_ms: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    pub retry_backoff_ms: Option<u64>,
    #[prost(oneof = "Body", tags = "10, 11, 12, 13")]
    pub body: Option<Body>,
    #[prost(uint64, optional, tag = "14")]
    pub limit_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Body {
    #[prost(message, tag = "10")]
    Preflight(Preflight),
    #[prost(message, tag = "11")]
    Engine(Engine),
    #[prost(message, tag = "12")]
    Run(Run),
    #[prost(message, tag = "13")]
    Train(Train),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Preflight {
    #[prost(btree_map = "string, string", tag = "1")]
    pub require: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "2")]
    pub readable: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub writable: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub free_bytes: u64,
    #[prost(string, optional, tag = "5")]
    pub train_script: Option<String>,
    #[prost(bool, tag = "6")]
    pub needs_mindspore: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Engine {
    #[prost(enumeration = "Tool", tag = "1")]
    pub tool: i32,
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub out: Option<Pair>,
    #[prost(bool, tag = "4")]
    pub manifest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Tool {
    Convert = 0,
    Tokenize = 1,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub first: String,
    #[prost(string, tag = "2")]
    pub second: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Run {
    #[prost(string, repeated, tag = "1")]
    pub argv: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Train {
    #[prost(bool, tag = "1")]
    pub msrun: bool,
    #[prost(string, tag = "2")]
    pub script: String,
    #[prost(string, repeated, tag = "3")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub resume_args: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub scheduler: Vec<String>,
    #[prost(uint32, tag = "6")]
    pub tp: u32,
    #[prost(uint32, tag = "7")]
    pub pp: u32,
    #[prost(string, tag = "8")]
    pub save_dir: String,
    #[prost(uint64, tag = "9")]
    pub train_iters: u64,
    #[prost(uint64, tag = "10")]
    pub vocab_size: u64,
    #[prost(uint64, tag = "11")]
    pub grace_ms: u64,
}

/// States of up to 64 tasks of one stage.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Chunk {
    #[prost(message, repeated, tag = "1")]
    pub states: Vec<State>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct State {
    #[prost(message, repeated, tag = "1")]
    pub history: Vec<Summary>,
    #[prost(oneof = "Standing", tags = "2, 3, 4, 5, 6, 7")]
    pub standing: Option<Standing>,
    /// Attempts that are over and not in `history`.
    #[prost(uint32, tag = "8")]
    pub dropped: u32,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Standing {
    #[prost(message, tag = "2")]
    Waiting(Waiting),
    #[prost(message, tag = "3")]
    Active(Attempt),
    #[prost(message, tag = "4")]
    Done(Done),
    #[prost(message, tag = "5")]
    Failed(Failed),
    /// When.
    #[prost(uint64, tag = "6")]
    Cancelled(u64),
    #[prost(bool, tag = "7")]
    Skipped(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Waiting {
    #[prost(uint64, optional, tag = "1")]
    pub not_before: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Done {
    #[prost(uint32, tag = "1")]
    pub attempt: u32,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(message, optional, tag = "3")]
    pub output: Option<Output>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Failed {
    #[prost(message, optional, tag = "1")]
    pub failure: Option<Failure>,
    #[prost(uint64, tag = "2")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    pub placed: u64,
    #[prost(uint64, tag = "3")]
    pub ended: u64,
    #[prost(string, repeated, tag = "4")]
    pub nodes: Vec<String>,
    #[prost(oneof = "Outcome", tags = "5, 6, 7, 8")]
    pub outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Outcome {
    #[prost(bool, tag = "5")]
    Succeeded(bool),
    #[prost(message, tag = "6")]
    Failed(Failure),
    #[prost(bool, tag = "7")]
    Cancelled(bool),
    #[prost(bool, tag = "8")]
    Requeued(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attempt {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    pub placed: u64,
    #[prost(enumeration = "Phase", tag = "3")]
    pub phase: i32,
    #[prost(message, repeated, tag = "4")]
    pub seats: Vec<Seat>,
    #[prost(uint64, optional, tag = "5")]
    pub resume: Option<u64>,
    #[prost(message, optional, tag = "6")]
    pub first_failure: Option<Failure>,
    #[prost(uint32, tag = "7")]
    pub port: u32,
    /// With `DrainingMoved` and `DrainingRestarted`.
    #[prost(uint64, tag = "8")]
    pub kill_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Phase {
    Preparing = 0,
    Running = 1,
    DrainingFailed = 2,
    DrainingCancelled = 3,
    DrainingNodeLost = 4,
    DrainingMoved = 5,
    DrainingRestarted = 6,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Seat {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(uint32, tag = "2")]
    pub first_rank: u32,
    #[prost(uint32, tag = "3")]
    pub ranks: u32,
    #[prost(uint32, repeated, tag = "4")]
    pub slots: Vec<u32>,
    #[prost(oneof = "SeatPhase", tags = "5, 6, 7, 8, 9")]
    pub phase: Option<SeatPhase>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum SeatPhase {
    #[prost(bool, tag = "5")]
    Assigned(bool),
    /// The port.
    #[prost(uint32, tag = "6")]
    Prepared(u32),
    #[prost(bool, tag = "7")]
    Running(bool),
    #[prost(message, tag = "8")]
    Ended(SeatEnd),
    #[prost(bool, tag = "9")]
    GivenUp(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SeatEnd {
    #[prost(bool, tag = "1")]
    pub ok: bool,
    #[prost(message, optional, tag = "2")]
    pub output: Option<Output>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Output {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<File>,
    #[prost(string, tag = "3")]
    pub summary: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(uint64, tag = "2")]
    pub size: u64,
    #[prost(string, tag = "3")]
    pub digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Failure {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(uint32, optional, tag = "2")]
    pub rank: Option<u32>,
    #[prost(enumeration = "CauseKind", tag = "3")]
    pub cause: i32,
    #[prost(int32, tag = "4")]
    pub code: i32,
    #[prost(uint64, tag = "5")]
    pub at: u64,
    #[prost(string, tag = "6")]
    pub message: String,
    #[prost(string, tag = "7")]
    pub hint: String,
    #[prost(string, repeated, tag = "8")]
    pub evidence: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum CauseKind {
    Exit = 0,
    Signal = 1,
    Refused = 2,
    NodeLost = 3,
    Hang = 4,
    Overrun = 5,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Checkpoints {
    #[prost(message, repeated, tag = "1")]
    pub checkpoints: Vec<Checkpoint>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Checkpoint {
    #[prost(uint64, tag = "1")]
    pub iteration: u64,
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<Shard>,
    #[prost(bool, tag = "3")]
    pub tracked: bool,
    #[prost(uint64, optional, tag = "4")]
    pub complete: Option<u64>,
    #[prost(bool, tag = "5")]
    pub superseded: bool,
    #[prost(bool, tag = "6")]
    pub pinned: bool,
    #[prost(bool, tag = "7")]
    pub broken: bool,
    #[prost(bool, tag = "8")]
    pub removing: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shard {
    #[prost(uint32, tag = "1")]
    pub tp: u32,
    #[prost(uint32, tag = "2")]
    pub pp: u32,
    #[prost(string, tag = "3")]
    pub node: String,
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(uint64, tag = "5")]
    pub size: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(string, tag = "1")]
    pub job: String,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(uint64, tag = "3")]
    pub at: u64,
    #[prost(enumeration = "Level", tag = "4")]
    pub level: i32,
    #[prost(string, tag = "5")]
    pub kind: String,
    #[prost(string, optional, tag = "6")]
    pub stage: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub node: Option<String>,
    #[prost(uint32, optional, tag = "8")]
    pub rank: Option<u32>,
    #[prost(string, tag = "9")]
    pub message: String,
    #[prost(string, repeated, tag = "10")]
    pub evidence: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Level {
    Info = 0,
    Warn = 1,
    Error = 2,
}
