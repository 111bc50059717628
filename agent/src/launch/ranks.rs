//! Training ranks in MindSpore's dynamic cluster, without msrun.
//!
//! The environment contract: the scheduler needs MS_ROLE, MS_WORKER_NUM,
//! MS_SCHED_HOST and MS_SCHED_PORT; a rank also MS_NODE_ID, whose number is
//! the rank (RANK_ID is ignored for numbering, but scripts read it).

use std::path::Path;

use proto::v1::{DeviceKind, TrainBody};

use super::environment::{Environment, find_program};
use super::{Ingredients, absolute};
use crate::refusal::Refusal;
use crate::shim::record::Process;
use crate::watch::hang;

/// Does nothing but play the scheduler's role until all ranks have left.
const SCHEDULER: &str = "from mindspore.communication import init; init()";
/// First HCCL port of slot 0; each device needs a port of its own.
const HCCL_BASE: u32 = 60_000;
/// Ports from one slot's base to the next.
const HCCL_STRIDE: u32 = 16;

/// Name of a rank's log, as msrun names it.
#[must_use]
pub fn log_of(rank: u32) -> String {
    format!("worker_{rank}")
}

pub(super) fn processes(from: &Ingredients<'_>, body: &TrainBody) -> Result<Vec<Process>, Refusal> {
    let (python, script) = check(from, body)?;
    let assignment = from.assignment;
    check_scheduler_address(from)?;
    let runtime = from.runtime()?;
    let workdir = from.workdir()?;
    let shared = shared_environment(from, runtime.device());
    let mut made = Vec::new();
    if assignment.seat == 0 {
        let mut env = shared.clone();
        env.insert("MS_ROLE".into(), "MS_SCHED".into());
        let log = from.log("scheduler");
        made.push(Process {
            name: "scheduler".into(),
            rank: None,
            nested: false,
            argv: scheduler_command(body, &python, &workdir, from.environment)?,
            cwd: workdir.clone(),
            env,
            stdout: log.clone(),
            stderr: log,
        });
    }
    let mut argv = vec![python, script];
    argv.extend(body.args.iter().cloned());
    for local in 0..assignment.ranks {
        let rank = assignment.first_rank.saturating_add(local);
        let mut env = shared.clone();
        env.insert("MS_ROLE".into(), "MS_WORKER".into());
        for name in ["MS_NODE_ID", "RANK_ID", "RANK"] {
            env.insert(name.into(), rank.to_string());
        }
        env.insert("DEVICE_ID".into(), local.to_string());
        env.insert("LOCAL_RANK".into(), local.to_string());
        let log = from.log(&log_of(rank));
        made.push(Process {
            name: log_of(rank),
            rank: Some(rank),
            nested: false,
            argv: argv.clone(),
            cwd: workdir.clone(),
            env,
            stdout: log.clone(),
            stderr: log,
        });
    }
    Ok(made)
}

pub(super) fn check_scheduler_address(from: &Ingredients<'_>) -> Result<(), Refusal> {
    let assignment = from.assignment;
    if assignment.master_address.is_empty() || assignment.master_port == 0 || assignment.master_port > 65_535 {
        return Err(Refusal::new("the assignment names no scheduler address", "update the controller"));
    }
    Ok(())
}

/// Finds the interpreter and the script.
pub(super) fn check(from: &Ingredients<'_>, body: &TrainBody) -> Result<(String, String), Refusal> {
    let workdir = from.workdir()?;
    let python = find_program(python_name(&from.runtime()?.python), &workdir, from.environment)?;
    let script = script(&workdir, body)?;
    scheduler_command(body, "python3", &workdir, from.environment)?;
    hang::limit(from.runtime()?.env.iter())?;
    Ok((python.to_string_lossy().into_owned(), script))
}

/// The interpreter that a runtime names.
#[must_use]
pub fn python_name(python: &str) -> &str {
    if python.is_empty() { "python3" } else { python }
}

fn script(workdir: &Path, body: &TrainBody) -> Result<String, Refusal> {
    let path = absolute(workdir, &body.script);
    if path.is_file() {
        return Ok(path.to_string_lossy().into_owned());
    }
    Err(Refusal::new(
        format!("training script `{}` is not there", path.display()),
        "correct `train.script`; it is seen from `workdir` on every node",
    ))
}

fn scheduler_command(
    body: &TrainBody,
    python: &str,
    workdir: &Path,
    env: &Environment,
) -> Result<Vec<String>, Refusal> {
    let Some(name) = body.scheduler.first() else {
        return Ok(vec![python.to_owned(), "-c".to_owned(), SCHEDULER.to_owned()]);
    };
    let program = match name.as_str() {
        "python" | "python3" => python.to_owned(),
        other => find_program(other, workdir, env)?.to_string_lossy().into_owned(),
    };
    let mut argv = vec![program];
    argv.extend(body.scheduler[1..].iter().cloned());
    Ok(argv)
}

/// What scheduler, ranks and whoever starts them share.
pub(super) fn shared_environment(from: &Ingredients<'_>, device: DeviceKind) -> Environment {
    let assignment = from.assignment;
    let mut env = from.environment.clone();
    // A user's own value of a time-out or thread count stands.
    for (name, value) in [("MS_TOPO_TIMEOUT", "600"), ("MS_NODE_TIMEOUT", "30"), ("PYTHONUNBUFFERED", "1")] {
        env.entry(name.into()).or_insert_with(|| value.into());
    }
    if device == DeviceKind::Cpu {
        env.entry("OMP_NUM_THREADS".into()).or_insert_with(|| "1".into());
    }
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("MS_WORKER_NUM", assignment.world_size.to_string());
    set("RANK_SIZE", assignment.world_size.to_string());
    set("WORLD_SIZE", assignment.world_size.to_string());
    set("MS_SCHED_HOST", assignment.master_address.clone());
    set("MS_SCHED_PORT", assignment.master_port.to_string());
    set("MS_NODE_RANK", assignment.seat.to_string());
    set("QCTL_ATTEMPT", assignment.attempt.clone());
    set("QCTL_ATTEMPT_NUMBER", assignment.number.to_string());
    if device == DeviceKind::Ascend {
        let slots: Vec<String> = assignment.slots.iter().map(u32::to_string).collect();
        set("ASCEND_RT_VISIBLE_DEVICES", slots.join(","));
        let first = assignment.slots.iter().min().copied().unwrap_or(0);
        set("HCCL_IF_BASE_PORT", (HCCL_BASE + HCCL_STRIDE * first.min(300)).to_string());
    }
    env
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use proto::v1::{Assignment, Runtime, assignment::Body};

    fn assignment(workdir: &Path, seat: u32, device: DeviceKind) -> Assignment {
        fs::write(workdir.join("train.py"), "").unwrap();
        Assignment {
            attempt: "j.train.0.2".into(),
            number: 2,
            seat,
            first_rank: 2 * seat,
            ranks: 2,
            world_size: 4,
            nodes: 2,
            slots: vec![4, 5],
            master_address: "10.0.0.1".into(),
            master_port: 4000,
            runtime: Some(Runtime {
                workdir: workdir.to_string_lossy().into_owned(),
                device: device.into(),
                ..Runtime::default()
            }),
            body: Some(Body::Train(TrainBody {
                launcher: "ranks".into(),
                script: "train.py".into(),
                args: vec!["--lr".into(), "1".into()],
                ..TrainBody::default()
            })),
            ..Assignment::default()
        }
    }

    fn built(assignment: &Assignment, dir: &Path) -> Result<Vec<Process>, Refusal> {
        let environment = Environment::from([("PATH".to_owned(), std::env::var("PATH").unwrap_or_default())]);
        let from = Ingredients { assignment, seat_dir: dir, bin_dir: dir, environment: &environment };
        super::super::build(&from).map(|l| l.processes)
    }

    #[test]
    fn seat_zero_gets_the_scheduler_and_every_rank_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let made = built(&assignment(dir.path(), 0, DeviceKind::Cpu), dir.path()).unwrap();
        assert_eq!(made.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["scheduler", "worker_0", "worker_1"]);
        let env = &made[0].env;
        assert_eq!((env["MS_ROLE"].as_str(), env["MS_SCHED_PORT"].as_str()), ("MS_SCHED", "4000"));
        assert!(!env.contains_key("MS_NODE_ID") && made[0].argv[1..] == ["-c", SCHEDULER]);
        let other = built(&assignment(dir.path(), 1, DeviceKind::Cpu), dir.path()).unwrap();
        assert_eq!(other.iter().map(|p| p.rank).collect::<Vec<_>>(), [Some(2), Some(3)]);
        let env = &other[1].env;
        for (name, value) in [
            ("MS_ROLE", "MS_WORKER"),
            ("MS_NODE_ID", "3"),
            ("RANK_ID", "3"),
            ("RANK_SIZE", "4"),
            ("DEVICE_ID", "1"),
            ("MS_NODE_RANK", "1"),
            ("QCTL_ATTEMPT_NUMBER", "2"),
            ("OMP_NUM_THREADS", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("ASCEND_RT_VISIBLE_DEVICES"));
        assert_eq!(other[1].argv[2..], ["--lr", "1"]);
    }

    #[test]
    fn devices_are_named_on_ascend_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = built(&assignment(dir.path(), 1, DeviceKind::Ascend), dir.path()).unwrap();
        let env = &made[0].env;
        assert_eq!(env["ASCEND_RT_VISIBLE_DEVICES"], "4,5");
        assert_eq!(env["HCCL_IF_BASE_PORT"], "60064");
        assert!(!env.contains_key("OMP_NUM_THREADS"));
    }

    #[test]
    fn what_is_missing_or_unsupported_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut wrong = assignment(dir.path(), 0, DeviceKind::Cpu);
        if let Some(Body::Train(body)) = &mut wrong.body {
            body.launcher = "mpirun".into();
        }
        let refusal = built(&wrong, dir.path()).unwrap_err();
        assert_eq!(
            (refusal.message.as_str(), refusal.hint.as_str()),
            ("launcher `mpirun` is not known", "use `launcher: ranks` or `launcher: msrun`")
        );
        let good = assignment(dir.path(), 0, DeviceKind::Cpu);
        fs::remove_file(dir.path().join("train.py")).unwrap();
        assert!(built(&good, dir.path()).unwrap_err().message.contains("train.py"));
    }
}
