//! Hosts with an agent.

use crate::Timestamp;
use crate::ids::NodeId;
use crate::job::DeviceKind;
use crate::labels::Labels;

/// A host with an agent, as it described itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Identity, from the certificate.
    pub id: NodeId,
    /// The kernel's boot id: agents that share one are one host.
    pub boot_id: String,
    /// The host's name.
    pub hostname: String,
    /// Address at which other nodes reach this one.
    pub address: String,
    /// Version of the agent.
    pub version: String,
    /// What a slot stands for.
    pub device: DeviceKind,
    /// Device slots, numbered from 0.
    pub slots: u32,
    /// What its configuration says of it, to be chosen by; `rack` says which nodes are near to each other.
    pub labels: Labels,
    /// Per slot the group of slots that are near to each other (a NUMA pair, a ring); empty = all are.
    pub groups: Vec<u32>,
    /// Whether its configuration keeps it for replacements.
    pub spare: bool,
    /// Whether an operator does; goes before the configuration.
    pub spare_word: Option<bool>,
    /// Processors of the host.
    pub cpus: u32,
    /// Bytes of memory of the host.
    pub memory: u64,
    /// When it first joined.
    pub joined: Timestamp,
    /// Set while an operator keeps new work away from it.
    pub cordon: Option<Cordon>,
    /// Set while an operator says that the host, as of this boot id, does not run.
    pub fence: Option<Fence>,
}

impl Node {
    /// Whether it takes only replacements of lost or failed seats.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.spare_word.unwrap_or(self.spare)
    }
}

/// An operator's word that a node gets no new work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// Who said so.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// What becomes of the work that is there.
    pub purpose: Purpose,
}

/// An operator's word that a silent host does not run any more, so that
/// nothing there needs to be waited for.
///
/// Ends with another boot id, which proves it, or when it is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Who said so.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What becomes of the work on a cordoned node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It goes on.
    Keep,
    /// It is let finish, until the deadline if there is one; then it is
    /// stopped with its grace and runs again elsewhere.
    Empty {
        /// When what still runs is stopped.
        deadline: Option<Timestamp>,
    },
}

/// How much a node is trusted to answer.
///
/// Never stored: a new leader starts every deadline afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Known from the store; has not spoken to this leader yet.
    Unheard,
    /// Speaks.
    Ready,
    /// Silent; gets no new work.
    Suspect,
    /// Silent for a whole window; its one-rank work may be replaced.
    Lost,
}
