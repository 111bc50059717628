//! Training ranks started by MindSpore's own launcher, one on each node.
//!
//! msrun starts the scheduler where the master address is, and the ranks
//! everywhere, with whatever `python` is in its PATH. That one is the shim's
//! stand-in, so each process is known by number and its end by the wait.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proto::v1::TrainBody;

use super::environment::Environment;
use super::{Ingredients, ranks};
use crate::refusal::Refusal;
use crate::shim::record::Process;
use crate::shim::within;

/// The launcher as a module, where no program of its name is installed.
const MODULE: &str = "mindspore.parallel.cluster.run";
/// Longest wait for all ranks to register where the user sets none, in seconds.
const TIME_OUT: &str = "600";

pub(super) fn processes(from: &Ingredients<'_>, body: &TrainBody) -> Result<Vec<Process>, Refusal> {
    let found = check(from, body)?;
    ranks::check_scheduler_address(from)?;
    let assignment = from.assignment;
    let workdir = from.workdir()?;
    let device = from.runtime()?.device();
    let is_hosts_second = assignment.seat != 0 && is_local(&assignment.master_address);
    let bin = from.seat_dir.join(within::BIN);
    make_programs(&bin, from, is_hosts_second).map_err(|error| {
        Refusal::new(format!("`{}` could not be filled: {error}", bin.display()), "check space on this node's disk")
    })?;
    let mut env = ranks::shared_environment(from, device);
    let path = env.get("PATH").cloned().unwrap_or_default();
    env.insert("PATH".into(), format!("{}:{path}", bin.display()));
    let mut argv = found.launcher;
    argv.extend(arguments(from, &env));
    argv.push(found.script.clone());
    argv.extend(body.args.iter().cloned());
    let log = from.log("msrun");
    let mut made = vec![Process {
        name: "msrun".into(),
        rank: None,
        nested: false,
        argv,
        cwd: workdir.clone(),
        env,
        stdout: log.clone(),
        stderr: log,
    }];
    let mut words = vec![found.python, found.script];
    words.extend(body.args.iter().cloned());
    let nested = |name: String, rank: Option<u32>, env: Environment| {
        let log = from.log(&name);
        let (argv, cwd) = (words.clone(), workdir.clone());
        Process { name, rank, nested: true, argv, cwd, env, stdout: log.clone(), stderr: log }
    };
    let variable = |name: &str, value: String| (name.to_owned(), value);
    if assignment.seat == 0 {
        let role = [variable("MS_ROLE", "MS_SCHED".into())];
        made.push(nested("scheduler".into(), None, role.into()));
    }
    for rank in assignment.first_rank..assignment.first_rank.saturating_add(assignment.ranks) {
        let role = [variable("MS_ROLE", "MS_WORKER".into()), variable("MS_NODE_ID", rank.to_string())];
        made.push(nested(ranks::log_of(rank), Some(rank), role.into()));
    }
    Ok(made)
}

/// What a launch needs to find on the host.
pub(super) struct Found {
    launcher: Vec<String>,
    python: String,
    script: String,
}

/// Finds launcher, interpreter and script.
pub(super) fn check(from: &Ingredients<'_>, body: &TrainBody) -> Result<Found, Refusal> {
    let assignment = from.assignment;
    if assignment.first_rank != assignment.seat.saturating_mul(assignment.ranks) {
        return Err(Refusal::new(
            "msrun numbers ranks by node, so that all nodes must have equally many",
            "use `launcher: ranks`, or the same number of ranks on every node",
        ));
    }
    let (python, script) = ranks::check(from, body)?;
    let beside = Path::new(&python).with_file_name("msrun");
    let runs = fs::metadata(&beside).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let launcher = if runs {
        vec![beside.to_string_lossy().into_owned()]
    } else {
        vec![python.clone(), "-m".to_owned(), MODULE.to_owned()]
    };
    Ok(Found { launcher, python, script })
}

/// The launcher's own arguments, as the spec's table of corrections has them.
fn arguments(from: &Ingredients<'_>, env: &Environment) -> Vec<String> {
    let assignment = from.assignment;
    let logs = from.log("msrun").parent().map(Path::to_path_buf).unwrap_or_default();
    let time_out = env.get("MS_TOPO_TIMEOUT").filter(|text| text.parse::<u32>().is_ok());
    let mut words: Vec<String> = [
        ("--worker_num", assignment.world_size.to_string()),
        ("--local_worker_num", assignment.ranks.to_string()),
        ("--master_addr", assignment.master_address.clone()),
        ("--master_port", assignment.master_port.to_string()),
        ("--node_rank", assignment.seat.to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    words.push("--join=True".to_owned());
    for (flag, value) in [
        ("--log_dir", logs.to_string_lossy().into_owned()),
        ("--cluster_time_out", time_out.map_or(TIME_OUT, String::as_str).to_owned()),
        // The number of ranks is the first number that is no rank.
        ("--tail_worker_log", assignment.world_size.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    words
}

/// Whether `address` is one of this host: then seat 0's agent runs here too.
fn is_local(address: &str) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Fills the directory that comes first in msrun's PATH.
///
/// msrun takes itself for the master if `ip -j addr` names the master's
/// address. A second one on a host would start a second scheduler, so it is
/// shown a host without addresses.
fn make_programs(bin: &Path, from: &Ingredients<'_>, is_hosts_second: bool) -> io::Result<()> {
    fs::create_dir_all(bin)?;
    let shim = quoted(&from.bin_dir.join("qctl-shim"));
    let python = format!("#!/bin/sh\nexec {shim} {} {} \"$@\"\n", within::FLAG, quoted(from.seat_dir));
    make_program(bin.join("python"), &python)?;
    if is_hosts_second {
        make_program(bin.join("ip"), "#!/bin/sh\necho '[]'\n")?;
    }
    Ok(())
}

fn make_program(path: PathBuf, text: &str) -> io::Result<()> {
    fs::write(&path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A path as one word of a shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
