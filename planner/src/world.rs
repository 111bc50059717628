//! Everything the planner knows.

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, Cordon, DeviceKind, Job, JobId, Liveness, Node, NodeId, Purpose, Task, Timestamp};

use crate::ahead::Ahead;
use crate::backfill::Head;
use crate::index::{Index, Place};
use crate::mutation::Mutation;

/// How long things may take, and where ports come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silence after which a node gets no new work, in milliseconds.
    pub suspect_after_ms: u64,
    /// Silence after which a node's one-rank work may run elsewhere, and a
    /// gang's silent seat may be given up once no reachable seat runs.
    pub lost_after_ms: u64,
    /// Extra time a silent seat keeps after its reachable peers stopped, for a
    /// save in flight.
    pub fence_margin_ms: u64,
    /// Grace of a stop after a rank's death.
    pub failure_grace_ms: u64,
    /// One-rank processor-only tasks that one node runs at once.
    pub engine_tasks_per_node: u32,
    /// Ended jobs kept in memory and in listings. The driver's to enforce: the
    /// planner drops nothing, because only the driver knows what is still
    /// shown; [`World::forget_job`] takes one out.
    pub keep_ended_jobs: usize,
    /// Grace of a planned stop of what names no grace of its own.
    pub stop_grace_ms: u64,
    /// Work, in milliseconds, that a node may be sent ahead; 0 = none is.
    pub ahead_ms: u64,
    /// Tasks that a node may be sent ahead at most.
    pub most_ahead: u32,
    /// Time that a stop may take to be confirmed, beyond its grace.
    pub confirm_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            suspect_after_ms: 5_000,
            lost_after_ms: 60_000,
            fence_margin_ms: 60_000,
            failure_grace_ms: 1_000,
            engine_tasks_per_node: 2,
            keep_ended_jobs: 1_000,
            stop_grace_ms: 30_000,
            ahead_ms: 100,
            most_ahead: 128,
            confirm_ms: 15_000,
        }
    }
}

/// All jobs and nodes. Domain state with one owner: the driver.
///
/// Jobs enter through [`World::restore_job`] or a `Submit` and change only in
/// `step`, because look-up tables beside them must agree; a change made
/// directly to `jobs` is followed by [`World::reindex`].
#[derive(Clone, Debug, Default)]
pub struct World {
    /// How long things may take.
    pub policy: Policy,
    /// Nodes by id; records are stored, the rest is this leader's own view.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Jobs by id, ended ones included.
    pub jobs: BTreeMap<JobId, Job>,
    /// Attempts that agents run and this controller does not know: shown,
    /// never stopped.
    pub quarantined: BTreeSet<(NodeId, AttemptId)>,
    /// When this leader began; deadlines about silence start here.
    pub since: Timestamp,
    pub(crate) index: Index,
    /// Attempts whose reachable seats are all over, and since when: a silent
    /// seat's fence margin is counted from here. Never stored.
    pub(crate) fences: BTreeMap<Place, Timestamp>,
    /// No node's silence reaches a limit before this instant. `None` if no
    /// node's silence is being counted.
    pub(crate) next_silence: Option<Timestamp>,
    /// No node is to be emptied before this instant. `None` if none is.
    pub(crate) next_deadline: Option<Timestamp>,
    /// When to look whether what was sent ahead has waited for long.
    pub(crate) next_overdue: Option<Timestamp>,
    /// Whether something changed that may let a waiting task in.
    pub(crate) reconsider: bool,
    /// Who waited first for slots when the queue was gone through last.
    pub(crate) head: Option<Head>,
    /// When the queue was gone through last.
    pub(crate) scheduled: Timestamp,
    /// When it was stepped last; sentences about time are said as of then.
    pub(crate) stepped: Timestamp,
    /// A rule that is deliberately broken.
    #[cfg(any(test, feature = "check"))]
    pub mutation: Option<Mutation>,
}

/// A node, and what this leader has seen of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The stored record.
    pub record: Node,
    /// How far it is trusted to answer.
    pub liveness: Liveness,
    /// When it last spoke, or when this leader began.
    pub last_heard: Timestamp,
    /// Number of its present session, larger for later ones; `None` without one.
    pub session: Option<u64>,
    /// Attempts that its last beat or hello said it runs.
    pub live: BTreeSet<AttemptId>,
    /// Largest session number seen of it; 0 before the first.
    pub newest_session: u64,
    /// Attempts with a running seat here that its last beat left out.
    pub missing: BTreeSet<AttemptId>,
    /// Attempts in `live` that were replaced, or whose seat here was given up,
    /// and that it has not reported as ended: what they hold is not known, so
    /// the node gets no slot work while there are any.
    pub leftover: BTreeSet<AttemptId>,
    /// Attempts in `live` that it has reported as ended.
    pub ended: BTreeSet<AttemptId>,
    /// Slots whose device is in alarm: what runs there goes on, and nothing new
    /// is placed there. Never stored; each session says it anew.
    pub unfit: BTreeSet<u32>,
    /// What it may be sent ahead. Never stored; learnt anew.
    pub ahead: Option<Ahead>,
    /// Attempts that it was asked to give back, unless they have begun.
    pub recalled: BTreeSet<AttemptId>,
}

impl NodeView {
    pub(crate) fn unheard(record: Node, since: Timestamp) -> Self {
        Self {
            record,
            liveness: Liveness::Unheard,
            last_heard: since,
            session: None,
            live: BTreeSet::new(),
            newest_session: 0,
            missing: BTreeSet::new(),
            leftover: BTreeSet::new(),
            ended: BTreeSet::new(),
            unfit: BTreeSet::new(),
            ahead: None,
            recalled: BTreeSet::new(),
        }
    }

    /// Whether an operator keeps new work away.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        self.record.cordon.is_some() || self.record.fence.is_some()
    }

    /// Whether new work may be placed here: it speaks, there is a session to
    /// send the work through, and no operator has set it aside.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.liveness == Liveness::Ready && self.session.is_some() && !self.is_set_aside()
    }
}

impl World {
    /// An empty world whose leader began at `since`.
    #[must_use]
    pub fn new(policy: Policy, since: Timestamp) -> Self {
        Self { policy, since, ..Self::default() }
    }

    /// Adds a stored node that this leader has not heard yet.
    pub fn restore_node(&mut self, record: Node) {
        self.expect_silence(self.since.after_ms(self.policy.suspect_after_ms));
        if let Some(Cordon { purpose: Purpose::Empty { deadline: Some(at) }, .. }) = &record.cordon {
            self.expect_deadline(*at);
        }
        let mut view = NodeView::unheard(record, self.since);
        // Nothing was waited for there, and nothing is.
        if view.record.fence.is_some() {
            view.liveness = Liveness::Lost;
        }
        self.nodes.insert(view.record.id.clone(), view);
    }

    /// Adds a stored job.
    pub fn restore_job(&mut self, job: Job) {
        self.forget_job(&job.id);
        self.index.add_job(&job);
        self.jobs.insert(job.id.clone(), job);
    }

    /// Takes a job out, as the driver does with the oldest ended ones.
    pub fn forget_job(&mut self, id: &JobId) -> Option<Job> {
        let job = self.jobs.remove(id)?;
        self.index.remove_job(&job);
        Some(job)
    }

    /// Rebuilds the look-up tables from `jobs`.
    pub fn reindex(&mut self) {
        self.index = Index::of(self.jobs.values());
    }

    /// Nodes that may get new work of `device` kind, in id order.
    pub fn ready(&self, device: DeviceKind) -> impl Iterator<Item = &NodeView> {
        self.nodes
            .values()
            .filter(move |n| n.liveness == Liveness::Ready && !n.is_set_aside() && n.record.device == device)
    }

    /// Who waited first for slots when the queue was gone through last.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Slots of `node` that seats hold, lowest first.
    #[must_use]
    pub fn slots_taken(&self, node: &NodeId) -> Vec<u32> {
        self.index.load(node).map(|load| load.slots.iter().copied().collect()).unwrap_or_default()
    }

    /// Seats on `node` that are not over, in job, stage, task order.
    pub fn seats_on(&self, node: &NodeId) -> impl Iterator<Item = AttemptId> {
        let places: Vec<Place> = self.index.places(node).cloned().collect();
        places.into_iter().filter_map(|place| self.attempt_id(&place))
    }

    pub(crate) fn task(&self, place: &Place) -> Option<&Task> {
        self.jobs.get(&place.job)?.stages.get(place.stage)?.tasks.get(usize::try_from(place.task).ok()?)
    }

    pub(crate) fn attempt_id(&self, place: &Place) -> Option<AttemptId> {
        let stage = self.jobs.get(&place.job)?.stages.get(place.stage)?;
        match &stage.tasks.get(usize::try_from(place.task).ok()?)?.state {
            model::TaskState::Active(attempt) => Some(place.attempt_id(&stage.name, attempt.number)),
            model::TaskState::Waiting { .. }
            | model::TaskState::Done { .. }
            | model::TaskState::Failed { .. }
            | model::TaskState::Cancelled { .. }
            | model::TaskState::Skipped => None,
        }
    }

    /// Notes that some node's silence may reach a limit at `at`.
    pub(crate) fn expect_silence(&mut self, at: Timestamp) {
        self.next_silence = Some(self.next_silence.map_or(at, |next| next.min(at)));
    }

    /// Notes that some node is to be emptied at `at`.
    pub(crate) fn expect_deadline(&mut self, at: Timestamp) {
        self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
    }

    #[cfg(any(test, feature = "check"))]
    pub(crate) fn broken(&self, rule: Mutation) -> bool {
        self.mutation == Some(rule)
    }

    #[cfg(not(any(test, feature = "check")))]
    pub(crate) const fn broken(&self, _: Mutation) -> bool {
        false
    }
}
