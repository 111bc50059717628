//! Deliberate breakages, each of which a test must notice.

/// One rule of the protocol, broken.
///
/// Present in a [`crate::World`] only with the feature `check`; elsewhere
/// every question about it is answered `false` at compile time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Reports of superseded attempts count for the present one.
    IgnoreAttemptNumber,
    /// A node may report about another node's seat.
    AcceptReportsOfOtherNodes,
    /// A silent gang seat is given up while its reachable peers run.
    GiveUpGangSeatWhilePeersRun,
    /// A returning node gets slot work beside what it still runs.
    ReleaseSlotsOfLostNode,
    /// Work on a silent node is given up as soon as it is suspect.
    KillOnSilence,
    /// Messages of an earlier session count.
    IgnoreSession,
    /// A gang starts when its first seat is prepared.
    StartPartialGang,
    /// A rebooted node's seats are thought to run on.
    IgnoreBootId,
    /// An attempt is over when its first seat is.
    OverWithFirstSeat,
    /// A new attempt takes the number of the one before.
    ReuseAttemptNumber,
    /// A node's greeting ends its cordon.
    ForgetCordonAtHello,
    /// A cordoned node gets new work.
    PlaceOnCordonedNode,
    /// A node that speaks is fenced all the same.
    FenceWhatSpeaks,
    /// A node's greeting ends its fence, whatever its boot id.
    ForgetFenceAtHello,
    /// A fenced node gets new work.
    PlaceOnFencedNode,
    /// A spare gets work that replaces nothing.
    PlaceOnSpare,
    /// A node that lacks a job's labels gets its tasks.
    IgnoreLabels,
    /// Ranks that speak most are laid over several groups of slots.
    TearUnits,
    /// What may outlast the head's wait takes the nodes kept for it.
    BackfillPastTheHead,
    /// What is moved off a node counts as cancelled.
    MovedIsCancelled,
    /// A restarted task counts its attempts from 1 again.
    RestartForgetsHistory,
    /// Stages of several queues are sent ahead to one node.
    MixStagesAhead,
    /// What was asked back counts as given back at once.
    TakeBackUnanswered,
    /// Effects go out before the commit (a driver's fault).
    EffectsBeforeCommit,
    /// Reports are acknowledged before the commit (a driver's fault).
    AckBeforeCommit,
}

impl Mutation {
    /// All of them, in declaration order.
    pub const ALL: [Self; 25] = [
        Self::IgnoreAttemptNumber,
        Self::AcceptReportsOfOtherNodes,
        Self::GiveUpGangSeatWhilePeersRun,
        Self::ReleaseSlotsOfLostNode,
        Self::KillOnSilence,
        Self::IgnoreSession,
        Self::StartPartialGang,
        Self::IgnoreBootId,
        Self::OverWithFirstSeat,
        Self::ReuseAttemptNumber,
        Self::ForgetCordonAtHello,
        Self::PlaceOnCordonedNode,
        Self::FenceWhatSpeaks,
        Self::ForgetFenceAtHello,
        Self::PlaceOnFencedNode,
        Self::PlaceOnSpare,
        Self::IgnoreLabels,
        Self::TearUnits,
        Self::BackfillPastTheHead,
        Self::MovedIsCancelled,
        Self::RestartForgetsHistory,
        Self::MixStagesAhead,
        Self::TakeBackUnanswered,
        Self::EffectsBeforeCommit,
        Self::AckBeforeCommit,
    ];
}
