//! What can be said of why something waits, was stopped or failed.

use std::fmt;

use model::{DeviceKind, Failure, JobId, JobName, Labels, Liveness, NodeId, StageName};

use crate::text;

/// Why a task, a stage or a job is where it is. Each is one sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is its stage's.
    InStage {
        /// The stage.
        stage: StageName,
        /// What is said of that.
        why: Box<Self>,
    },
    /// An equal stage of an earlier job stands in.
    TakenOver(JobId),
    /// Another part of the job failed.
    FailedElsewhere,
    /// Somebody asked to cancel the job.
    Cancelled(Word),
    /// It failed.
    Failed {
        /// How.
        failure: Box<Failure>,
        /// That it is not tried again, where that is why.
        spent: Option<String>,
    },
    /// Stages that come before it.
    Stages(Vec<StageName>),
    /// It closes its stage, and so many others are open.
    Closing(usize),
    /// It is tried again.
    Backoff {
        /// In so many milliseconds.
        wait_ms: u64,
        /// Which try of how many that is.
        which: String,
        /// What failed before.
        last: Option<Box<Failure>>,
    },
    /// Its checkpoint lies on a node that takes no work.
    Checkpoint {
        /// Of this iteration.
        iteration: u64,
        /// Where.
        node: NodeId,
        /// What keeps it.
        lack: Lack,
    },
    /// Its one node has not joined.
    PinnedAbsent(NodeId),
    /// Its one node has no slots of its kind.
    PinnedKind(NodeId, DeviceKind),
    /// Its one node takes no work.
    PinnedAway(NodeId, Away),
    /// Too few nodes could hold it, however idle they were.
    TooFew {
        /// What it needs.
        needs: Needs,
        /// Nodes that are large enough.
        fit: usize,
        /// Nodes of its kind.
        joined: usize,
        /// Nodes that could, but are kept for replacements.
        spares: usize,
    },
    /// Too few of the nodes that could hold it have room now.
    Short {
        /// What it needs.
        needs: Needs,
        /// Nodes that have it.
        have: usize,
        /// Nodes that are large enough.
        fit: usize,
        /// What keeps others of them, what people can mend first.
        lacks: Vec<(NodeId, Lack)>,
        /// How many more are kept.
        more: usize,
    },
    /// Every node runs as many tasks without slots as it may.
    Full(u32),
    /// An earlier job waits for slots of the same kind.
    Behind {
        /// What it needs.
        needs: Needs,
        /// That one.
        job: JobName,
        /// Milliseconds until that has room at the latest, where that is known.
        wait_ms: Option<u64>,
    },
    /// Seats check what they need.
    Preparing(Vec<Spot>),
    /// It was sent ahead to a node that runs so many of its kind at once.
    Queued(Spot, u32),
    /// Seats were told to start.
    Starting(Vec<Spot>),
    /// It runs.
    Running(Vec<Spot>),
    /// It was told to stop.
    Stopping {
        /// Why.
        why: Box<Self>,
        /// Who has not confirmed it.
        waits: Vec<Spot>,
    },
    /// A node of it is being emptied.
    Moved,
    /// Somebody asked to begin it again.
    Restarted(Word),
}

/// What somebody asked for, in their words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Who.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

/// Why a node gets no new work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Away {
    /// An operator keeps work away.
    Cordoned(Word),
    /// An operator empties it.
    Drained(Word),
    /// An operator says that it does not run any more.
    Fenced(Word),
    /// This leader has not heard it.
    Unheard,
    /// It speaks, but has no session at this moment.
    BetweenSessions,
    /// It is silent.
    Silent,
    /// It is lost.
    Lost,
}

/// What keeps a node that is large enough from taking a task now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It gets no new work.
    Away(Away),
    /// Something runs there that was replaced, or that nobody has on record.
    Strangers,
    /// Too few of its slots are free.
    Taken {
        /// So many are.
        free: usize,
        /// Of so many.
        slots: u32,
        /// Jobs that hold some; not all, where there are many.
        jobs: Vec<JobName>,
        /// Slots whose device is in alarm.
        alarmed: Vec<u32>,
    },
}

/// What a task needs: nodes, and free slots on each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Distinct nodes.
    pub nodes: u32,
    /// Slots on each.
    pub per_node: u32,
    /// Of this kind.
    pub device: DeviceKind,
    /// Nodes with these labels.
    pub labels: Labels,
}

/// A seat's node, and how far it is trusted to answer; `None` = it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The node.
    pub node: NodeId,
    /// How it is.
    pub liveness: Option<Liveness>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InStage { stage, why } => write!(f, "stage `{stage}`: {why}"),
            Self::TakenOver(job) => write!(f, "taken over from job {job}"),
            Self::FailedElsewhere => f.write_str("another part of the job failed"),
            Self::Cancelled(word) => said(f, &format!("`{}` asked to cancel it", word.by), &word.reason),
            Self::Failed { failure, spent } => {
                f.write_str(&text::failure(failure))?;
                spent.as_ref().map_or(Ok(()), |spent| write!(f, "; {spent}"))?;
                if failure.hint.is_empty() { Ok(()) } else { write!(f, " (hint: {})", failure.hint) }
            }
            Self::Stages(stages) => write!(f, "waits for {}", text::join(&quoted(stages))),
            Self::Closing(open) => write!(f, "closes the stage, and waits for its other tasks ({open} open)"),
            Self::Backoff { wait_ms, which, last } => {
                let last = last.as_ref().map(|last| text::failure(last)).unwrap_or_default();
                said(f, &format!("is tried again in {} ({which})", text::span(*wait_ms)), &last)
            }
            Self::Checkpoint { iteration, node, lack } => {
                write!(f, "its checkpoint of iteration {iteration} lies on node `{node}`, which {lack}")
            }
            Self::PinnedAbsent(node) => write!(f, "must run on node `{node}`, which has not joined"),
            Self::PinnedKind(node, device) => {
                write!(f, "must run on node `{node}`, which has no {}", units(*device).1)
            }
            Self::PinnedAway(node, away) => write!(f, "must run on node `{node}`, which {away}"),
            Self::TooFew { needs, fit, joined, spares } => {
                let so = if needs.labels.is_empty() { "" } else { " and so labelled" };
                write!(f, "needs {needs}; ")?;
                match (needs.per_node, needs.labels.is_empty()) {
                    (0, true) => write!(f, "{joined} have joined")?,
                    (0, false) => write!(f, "{fit} of {joined} joined nodes are so labelled")?,
                    (_, _) => write!(f, "{fit} of {joined} joined nodes of this kind are large enough{so}")?,
                }
                match spares {
                    0 => Ok(()),
                    1 => f.write_str("; one more is a spare"),
                    more => write!(f, "; {more} more are spares"),
                }
            }
            Self::Short { needs, have, fit, lacks, more } => {
                let verb = match (needs.per_node, needs.nodes, have) {
                    (0, _, 1) => "takes work",
                    (0, _, _) => "take work",
                    (1, 1, 1) => "has one",
                    (1, 1, _) => "have one",
                    (_, _, 1) => "has them",
                    (_, _, _) => "have them",
                };
                write!(f, "needs {needs}; {have} of {fit} joined nodes {verb}")?;
                lacks.iter().try_for_each(|(node, lack)| write!(f, "; node `{node}` {lack}"))?;
                if *more == 0 { Ok(()) } else { write!(f, "; and {more} more") }
            }
            Self::Full(limit) => write!(f, "every node runs {limit} such tasks, which is its limit"),
            Self::Behind { needs, job, wait_ms } => {
                write!(f, "needs {needs}; job `{job}` is ahead in the queue")?;
                let until = |wait: &u64| write!(f, ", and has room in {} at the latest", text::span(*wait));
                wait_ms.as_ref().map_or(Ok(()), until)
            }
            Self::Preparing(seats) => write!(f, "waits for {} to be prepared", joined(seats)),
            Self::Queued(seat, limit) => write!(f, "is in the queue of {seat}, which runs {limit} of its kind at once"),
            Self::Starting(seats) => write!(f, "starts on {}", joined(seats)),
            Self::Running(seats) => write!(f, "runs on {}", joined(seats)),
            Self::Stopping { why, waits } => write!(f, "{why}; waits for {} to confirm the stop", joined(waits)),
            Self::Moved => f.write_str("a node of it is being drained, and it runs again elsewhere"),
            Self::Restarted(word) => said(f, &format!("`{}` asked to begin it again", word.by), &word.reason),
        }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cordoned(word) => said(f, &format!("is cordoned by {}", word.by), &word.reason),
            Self::Drained(word) => said(f, &format!("is being drained by {}", word.by), &word.reason),
            Self::Fenced(word) => said(f, &format!("is fenced by {}", word.by), &word.reason),
            Self::Unheard => f.write_str("has not spoken since this controller took over"),
            Self::BetweenSessions => f.write_str("is between two sessions"),
            Self::Silent => f.write_str("is silent"),
            Self::Lost => f.write_str("is lost"),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(away) => away.fmt(f),
            Self::Strangers => f.write_str("runs what was replaced, or is unknown here"),
            Self::Taken { free, slots, jobs, alarmed } => {
                let names: Vec<String> = jobs.iter().map(|job| format!("`{job}`")).collect();
                let jobs = match names.as_slice() {
                    [] => None,
                    [one] => Some(format!("job {one} runs there")),
                    many => Some(format!("jobs {} run there", text::join(many))),
                };
                let numbers: Vec<String> = alarmed.iter().map(u32::to_string).collect();
                let alarmed = match numbers.as_slice() {
                    [] => None,
                    [one] => Some(format!("slot {one} is in alarm")),
                    many => Some(format!("slots {} are in alarm", text::join(many))),
                };
                let why: Vec<String> = jobs.into_iter().chain(alarmed).collect();
                said(f, &format!("has {free} of {slots} slots free"), &text::join(&why))
            }
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = units(self.device);
        match (self.nodes, self.per_node) {
            (1, 0) => f.write_str("a node")?,
            (nodes, 0) => write!(f, "{nodes} nodes")?,
            (1, 1) => write!(f, "a free {one}")?,
            (1, slots) => write!(f, "{slots} free {many} on one node")?,
            (nodes, 1) => write!(f, "{nodes} nodes with a free {one} each")?,
            (nodes, slots) => write!(f, "{nodes} nodes with {slots} free {many} each")?,
        }
        let mut labels = self.labels.iter();
        labels.try_for_each(|(name, value)| write!(f, ", labelled `{name}={value}`"))
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.liveness {
            Some(Liveness::Ready) => write!(f, "`{}`", self.node),
            Some(Liveness::Unheard | Liveness::Suspect) => write!(f, "`{}` (silent)", self.node),
            Some(Liveness::Lost) | None => write!(f, "`{}` (lost)", self.node),
        }
    }
}

fn said(f: &mut fmt::Formatter<'_>, what: &str, why: &str) -> fmt::Result {
    if why.is_empty() { f.write_str(what) } else { write!(f, "{what}: {why}") }
}

fn quoted(stages: &[StageName]) -> Vec<String> {
    stages.iter().map(|stage| format!("`{stage}`")).collect()
}

fn joined(seats: &[Spot]) -> String {
    text::join(&seats.iter().map(Spot::to_string).collect::<Vec<_>>())
}

/// What slots of this kind are called.
fn units(device: DeviceKind) -> (&'static str, &'static str) {
    match device {
        DeviceKind::Ascend => ("NPU", "NPUs"),
        DeviceKind::Cpu => ("cpu slot", "cpu slots"),
    }
}
