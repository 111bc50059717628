//! The faults, one file for each kind.

mod agents;
mod apart;
mod disks;
mod etcd;
mod leaders;
mod links;
mod mindspore;
mod nodes;
mod pipelines;
mod ranks;
mod restarts;
mod stores;

use crate::rounds::Fault;

/// All of them, in the order of the promises.
pub(crate) const ALL: &[Fault] = &[
    Fault { name: "hosts_are_apart", cheap: true, etcd: false, run: apart::hosts },
    Fault { name: "agent_killed", cheap: true, etcd: false, run: agents::killed },
    Fault { name: "rank_killed", cheap: true, etcd: false, run: ranks::killed },
    Fault { name: "rank_leaves", cheap: true, etcd: false, run: ranks::leaves },
    Fault { name: "rank_leaves_early", cheap: false, etcd: false, run: ranks::leaves_early },
    Fault { name: "rank_hangs", cheap: false, etcd: false, run: ranks::hangs },
    Fault { name: "rank_hangs_unasked", cheap: false, etcd: false, run: ranks::hangs_unasked },
    Fault { name: "leader_killed", cheap: true, etcd: true, run: leaders::killed },
    Fault { name: "node_cut_off", cheap: false, etcd: false, run: nodes::cut_off },
    Fault { name: "node_killed", cheap: false, etcd: false, run: nodes::killed },
    Fault { name: "node_fenced", cheap: false, etcd: false, run: nodes::fenced },
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
    Fault { name: "store_restored", cheap: false, etcd: true, run: stores::restored },
    Fault { name: "store_migrated", cheap: false, etcd: true, run: stores::migrated },
    Fault { name: "leader_clock_ahead", cheap: false, etcd: true, run: stores::clock_ahead },
    Fault { name: "link_flaps", cheap: true, etcd: false, run: links::flaps },
    Fault { name: "link_narrow", cheap: false, etcd: false, run: links::narrow },
    Fault { name: "link_lossy", cheap: false, etcd: false, run: links::lossy },
    Fault { name: "link_far", cheap: false, etcd: false, run: links::far },
    Fault { name: "pipeline_control_plane", cheap: false, etcd: true, run: pipelines::control_plane },
    Fault { name: "pipeline_hosts", cheap: false, etcd: true, run: pipelines::hosts },
    Fault { name: "mindspore_by_ranks", cheap: false, etcd: false, run: mindspore::by_ranks },
    Fault { name: "mindspore_by_msrun", cheap: false, etcd: false, run: mindspore::by_msrun },
];
