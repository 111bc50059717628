//! The faults, one file for each kind.

mod agents;
mod disks;
mod etcd;
mod leaders;
mod nodes;
mod ranks;
mod restarts;

use crate::rounds::Fault;

/// All of them, in the order of the promises.
pub(crate) const ALL: &[Fault] = &[
    Fault { name: "agent_killed", cheap: true, etcd: false, run: agents::killed },
    Fault { name: "rank_killed", cheap: true, etcd: false, run: ranks::killed },
    Fault { name: "rank_leaves", cheap: true, etcd: false, run: ranks::leaves },
    Fault { name: "rank_leaves_early", cheap: false, etcd: false, run: ranks::leaves_early },
    Fault { name: "rank_hangs", cheap: false, etcd: false, run: ranks::hangs },
    Fault { name: "leader_killed", cheap: true, etcd: true, run: leaders::killed },
    Fault { name: "node_cut_off", cheap: false, etcd: false, run: nodes::cut_off },
    Fault { name: "node_killed", cheap: false, etcd: false, run: nodes::killed },
    Fault { name: "leader_cut_from_etcd", cheap: false, etcd: true, run: leaders::cut_from_etcd },
    Fault { name: "etcd_member_killed", cheap: false, etcd: true, run: etcd::member_killed },
    Fault { name: "etcd_majority_killed", cheap: false, etcd: true, run: etcd::majority_killed },
    Fault { name: "etcd_full", cheap: false, etcd: true, run: etcd::full },
    Fault { name: "etcd_compacted", cheap: false, etcd: true, run: etcd::compacted },
    Fault { name: "controller_disk_full", cheap: false, etcd: false, run: disks::of_controller_full },
    Fault { name: "agent_disk_full", cheap: false, etcd: false, run: disks::of_agent_full },
    Fault { name: "slow_disks", cheap: false, etcd: false, run: disks::slow },
    Fault { name: "controllers_all_dead", cheap: false, etcd: true, run: leaders::all_dead },
    Fault { name: "rolling_restart", cheap: false, etcd: true, run: restarts::rolling },
];
