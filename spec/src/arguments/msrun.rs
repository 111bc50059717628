//! msrun's own arguments.

/// One node's place in an msrun launch. All nodes have equally many ranks.
///
/// What only a launch decides is text, so that a plan can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Ranks of the whole job.
    pub worker_num: u32,
    /// Ranks on this node.
    pub local_worker_num: u32,
    /// Address of the node that runs the scheduler.
    pub master_addr: String,
    /// Port of the scheduler.
    pub master_port: String,
    /// Position of this node, from 0.
    pub node_rank: String,
}

/// Longest wait for all ranks to register where MS_TOPO_TIMEOUT sets none, in seconds.
pub const DEFAULT_TIME_OUT: &str = "600";

/// Where our msrun command line differs from the tutorial's: short name and reason.
pub const MSRUN_CORRECTIONS: [(&str, &str); 4] = [
    ("msrun-join", "with --join=False msrun returns at once with code 0 and nobody watches its ranks"),
    ("msrun-log-dir", "without --log_dir logs go to the working directory and each start truncates the last one's"),
    (
        "msrun-time-out",
        "--cluster_time_out is MS_TOPO_TIMEOUT where that is set, else 600 s: msrun would overwrite the variable",
    ),
    (
        "msrun-no-tails",
        "--tail_worker_log names no rank, since each rank's log would be copied to msrun's output again",
    ),
];

/// The arguments before the script, as the tutorial gives them.
#[must_use]
pub fn msrun_arguments(seat: &Seat) -> Vec<String> {
    let mut words = place(seat);
    words.push("--join=False".to_owned());
    words
}

/// The arguments before the script, as an agent gives them.
///
/// `time_out_s` is the longest wait for all ranks to register, in seconds.
#[must_use]
pub fn corrected_msrun_arguments(seat: &Seat, log_dir: &str, time_out_s: &str) -> Vec<String> {
    let mut words = place(seat);
    words.push("--join=True".to_owned());
    for (flag, value) in [
        ("--log_dir", log_dir.to_owned()),
        ("--cluster_time_out", time_out_s.to_owned()),
        // The number of ranks is the first number that is no rank.
        ("--tail_worker_log", seat.worker_num.to_string()),
    ] {
        words.push(flag.to_owned());
        words.push(value);
    }
    words
}

fn place(seat: &Seat) -> Vec<String> {
    [
        ("--worker_num", seat.worker_num.to_string()),
        ("--local_worker_num", seat.local_worker_num.to_string()),
        ("--master_addr", seat.master_addr.clone()),
        ("--master_port", seat.master_port.clone()),
        ("--node_rank", seat.node_rank.clone()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_joins_and_keeps_its_logs() {
        let seat = Seat {
            worker_num: 4,
            local_worker_num: 2,
            master_addr: "h0".into(),
            master_port: "7000".into(),
            node_rank: "1".into(),
        };
        assert_eq!(
            corrected_msrun_arguments(&seat, "/logs/a1", "300").join(" "),
            "--worker_num 4 --local_worker_num 2 --master_addr h0 --master_port 7000 --node_rank 1 --join=True \
             --log_dir /logs/a1 --cluster_time_out 300 --tail_worker_log 4"
        );
    }
}
