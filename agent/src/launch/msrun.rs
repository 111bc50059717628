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

/// Process number and exit code (a signal below 0) of the rank that msrun says it saw fail.
#[must_use]
pub fn worker_failure(lines: &[String]) -> Option<(i32, i32)> {
    lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("Worker process ")?;
        let (pid, rest) = rest.split_once(" exit with exception. Error code: ")?;
        let code = rest.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?;
        Some((pid.parse().ok()?, code.parse().ok()?))
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::launch::build;
    use proto::v1::{Assignment, DeviceKind, Runtime, assignment::Body};

    fn assignment(dir: &Path, seat: u32) -> Assignment {
        fs::write(dir.join("train.py"), "").unwrap();
        fs::create_dir_all(dir.join("python")).unwrap();
        make_program(dir.join("python/python3"), "").unwrap();
        Assignment {
            attempt: "j.train.0.1".into(),
            number: 1,
            seat,
            first_rank: 2 * seat,
            ranks: 2,
            world_size: 4,
            nodes: 2,
            master_address: "127.0.0.1".into(),
            master_port: 7000,
            runtime: Some(Runtime {
                workdir: dir.to_string_lossy().into_owned(),
                device: DeviceKind::Cpu.into(),
                ..Runtime::default()
            }),
            body: Some(Body::Train(TrainBody {
                launcher: "msrun".into(),
                script: "train.py".into(),
                args: vec!["--lr".into(), "1".into()],
                ..TrainBody::default()
            })),
            ..Assignment::default()
        }
    }

    fn built(assignment: &Assignment, dir: &Path, more: &[(&str, &str)]) -> Result<Vec<Process>, Refusal> {
        let mut environment = Environment::from([("PATH".to_owned(), format!("{}/python:/bin", dir.display()))]);
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let from = Ingredients { assignment, seat_dir: &dir.join("it's"), bin_dir: dir, environment: &environment };
        build(&from).map(|launch| launch.processes)
    }

    #[test]
    fn the_launcher_comes_first_and_what_it_starts_is_known_by_its_role() {
        let dir = tempfile::tempdir().unwrap();
        let made = built(&assignment(dir.path(), 1), dir.path(), &[("MS_TOPO_TIMEOUT", "300")]).unwrap();
        let names: Vec<_> = made.iter().map(|p| (p.name.as_str(), p.rank, p.nested)).collect();
        assert_eq!(names, [("msrun", None, false), ("worker_2", Some(2), true), ("worker_3", Some(3), true)]);
        assert_eq!((made[2].env["MS_ROLE"].as_str(), made[2].env["MS_NODE_ID"].as_str()), ("MS_WORKER", "3"));
        let root = dir.path().display();
        // The words of the spec's own table of corrections, but for what a launch decides.
        let want = format!(
            "{root}/python/python3 -m {MODULE} --worker_num 4 --local_worker_num 2 --master_addr 127.0.0.1 --master_port 7000 \
             --node_rank 1 --join=True --log_dir {root}/it's/logs --cluster_time_out 300 --tail_worker_log 4 {root}/train.py --lr 1"
        );
        assert_eq!(made[0].argv.join(" "), want);
        assert!(made[0].env["PATH"].starts_with(&format!("{root}/it's/bin:")), "{}", made[0].env["PATH"]);
        let first = built(&assignment(dir.path(), 0), dir.path(), &[]).unwrap();
        assert_eq!((first[1].name.as_str(), first[1].nested), ("scheduler", true));
        make_program(dir.path().join("python/msrun"), "").unwrap();
        let beside = built(&assignment(dir.path(), 0), dir.path(), &[]).unwrap();
        assert_eq!(beside[0].argv[..2], [format!("{root}/python/msrun"), "--worker_num".to_owned()]);
    }

    #[test]
    fn only_a_second_launcher_of_the_schedulers_host_is_shown_no_addresses() {
        for (seat, master, fake) in [(0, "127.0.0.1", false), (1, "127.0.0.1", true), (1, "192.0.2.1", false)] {
            let dir = tempfile::tempdir().unwrap();
            let assignment = Assignment { master_address: master.into(), ..assignment(dir.path(), seat) };
            built(&assignment, dir.path(), &[]).unwrap();
            let bin = dir.path().join("it's/bin");
            assert_eq!(bin.join("ip").exists(), fake, "seat {seat} of {master}");
            let python = fs::read_to_string(bin.join("python")).unwrap();
            assert!(python.contains(r"it'\''s' "), "{python}");
        }
    }

    #[test]
    fn unequal_nodes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let unequal = Assignment { first_rank: 3, ..assignment(dir.path(), 1) };
        assert!(built(&unequal, dir.path(), &[]).unwrap_err().message.contains("equally many"));
    }

    #[test]
    fn a_launchers_complaint_is_read() {
        let line = "[ERROR] ME(9:1,MainProcess):2026-01-01-00:00:00.000.000 [process_entity/_api.py:388] Worker process 4711 exit with exception. Error code: -9.";
        assert_eq!(worker_failure(&["x".to_owned(), line.to_owned()]), Some((4711, -9)));
        for other in [
            "",
            "Worker process x exit with exception. Error code: 1.",
            "Worker process 1 exit with exception. Error code: .",
        ] {
            assert_eq!(worker_failure(&[other.to_owned()]), None, "{other}");
        }
    }
}
