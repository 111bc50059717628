//! Failures in words: who, why, with proof, and what to try.

use std::path::Path;

use proto::v1::Failure;

use crate::refusal::Refusal;
use crate::shim::record::{Exit, Process};
use crate::watch::evidence;
use crate::watch::hang::Standstill;

/// A failure of what could not be started or was refused by a check.
#[must_use]
pub(crate) fn refused(node: &str, refusal: &Refusal) -> Failure {
    Failure {
        node: node.to_owned(),
        cause: "refused".into(),
        at_ms: runtime::clock::now_ms(),
        message: refusal.message.clone(),
        hint: refusal.hint.clone(),
        ..Failure::default()
    }
}

/// The failure of what ran when the host went down.
#[must_use]
pub(crate) fn rebooted(node: &str) -> Failure {
    Failure {
        node: node.to_owned(),
        cause: "node-lost".into(),
        at_ms: runtime::clock::now_ms(),
        message: "the host was restarted while the attempt ran".into(),
        hint: "look for why it was: `last -x reboot`, `journalctl -b -1`".into(),
        ..Failure::default()
    }
}

/// The failure of one process, with the lines that prove it.
#[must_use]
pub(crate) fn of_process(node: &str, process: &Process, exit: &Exit) -> Failure {
    let lines = last_lines(process);
    let who = match process.rank {
        None if process.name == "scheduler" => "the scheduler".to_owned(),
        None => process.name.clone(),
        Some(_) if process.name == "stdout" => "the engine".to_owned(),
        Some(rank) => format!("rank {rank}"),
    };
    let mut failure = Failure {
        node: node.to_owned(),
        rank: process.rank,
        at_ms: exit.wall_ms,
        evidence: evidence::choose(&lines),
        ..Failure::default()
    };
    let said = evidence::sentence(&failure.evidence).map(|s| format!(": {s}")).unwrap_or_default();
    match (&exit.error, exit.code, exit.signal) {
        (Some(error), _, _) => {
            failure.cause = "refused".into();
            failure.message = format!("{who} could not be started: {error}");
            failure.hint = "check that the program runs on this node".into();
        }
        (None, Some(_), _) if process.rank.is_none() && evidence::says_port_taken(&lines) => {
            // Another program was faster: another attempt gets another port.
            failure.cause = "hang".into();
            failure.message = format!("the scheduler's port was taken by another program{said}");
            failure.hint = "nothing to do: the next attempt uses another port".into();
        }
        (None, Some(code), _) => {
            failure.cause = "exit".into();
            failure.code = code;
            let victim = if evidence::is_victims(&failure.evidence) { "; it had lost a peer" } else { "" };
            failure.message = format!("{who} exited with code {code}{said}{victim}");
        }
        (None, None, Some(signal)) => {
            failure.cause = "signal".into();
            failure.code = signal;
            failure.message = format!("{who} was killed by signal {signal} ({})", signal_name(signal));
            failure.hint = signal_hint(signal).to_owned();
        }
        (None, None, None) => {
            failure.cause = "signal".into();
            failure.message = format!("{who} is gone, and how it ended is unknown: its shim was killed");
            failure.hint = "look for who kills qctl-shim, such as the out-of-memory killer: `dmesg`".into();
        }
    }
    failure
}

/// The failure of ranks that returned 0 before their work was done: before
/// `iteration`, if a rank that tells is on this node.
#[must_use]
pub(super) fn stopped_short(node: &str, process: &Process, exit: &Exit, iteration: Option<u64>) -> Failure {
    let rank = process.rank.unwrap_or_default();
    let before = iteration.map_or("before the others were done".to_owned(), |next| format!("before iteration {next}"));
    Failure {
        node: node.to_owned(),
        rank: process.rank,
        cause: "exit".into(),
        code: 0,
        at_ms: exit.wall_ms,
        message: format!("rank {rank} exited {before} with code 0"),
        hint: "look in its log for what made it leave: `--exit-interval`, `--exit-duration-in-mins`, a SIGTERM".into(),
        evidence: evidence::choose(&last_lines(process)),
    }
}

/// The failure of ranks that live and do not move.
#[must_use]
pub(super) fn hangs(node: String, still: Standstill, evidence: Vec<String>) -> Failure {
    Failure {
        node,
        rank: still.rank,
        cause: "hang".into(),
        at_ms: runtime::clock::now_ms(),
        message: still.message,
        hint: still.hint,
        evidence,
        ..Failure::default()
    }
}

/// The last lines of a process's log; its stderr's first where the two differ.
#[must_use]
pub(super) fn last_lines(process: &Process) -> Vec<String> {
    let read = |path: &Path| evidence::last_lines(path).unwrap_or_default();
    let lines = read(&process.stderr);
    if lines.is_empty() && process.stdout != process.stderr { read(&process.stdout) } else { lines }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => "see `kill -l`",
    }
}

fn signal_hint(signal: i32) -> &'static str {
    match signal {
        9 => "somebody killed it, or the host ran out of memory: `dmesg | grep -i oom`",
        7 => "a bus error often means a full /dev/shm: `df /dev/shm`",
        6 | 11 => "a crash in native code: look for a stack in its log, or `ulimit -c unlimited` and run again",
        15 => "somebody terminated it, or its scheduler was lost",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn process(rank: Option<u32>, log: &Path) -> Process {
        Process {
            name: rank.map_or("scheduler".into(), |r| format!("worker_{r}")),
            rank,
            stdout: log.to_owned(),
            stderr: log.to_owned(),
            ..Process::default()
        }
    }

    #[test]
    fn each_end_has_its_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "start\nRuntimeError: boom\n").unwrap();
        let cases: [(Option<u32>, Exit, &str, &str); 4] = [
            (
                Some(3),
                Exit { code: Some(1), ..Exit::default() },
                "exit",
                "rank 3 exited with code 1: RuntimeError: boom",
            ),
            (Some(3), Exit { signal: Some(9), ..Exit::default() }, "signal", "rank 3 was killed by signal 9 (SIGKILL)"),
            (
                None,
                Exit { error: Some("no such file".into()), ..Exit::default() },
                "refused",
                "the scheduler could not be started: no such file",
            ),
            (Some(0), Exit::default(), "signal", "rank 0 is gone, and how it ended is unknown: its shim was killed"),
        ];
        for (rank, exit, cause, message) in cases {
            let failure = of_process("n1", &process(rank, &log), &exit);
            assert_eq!((failure.cause.as_str(), failure.message.as_str()), (cause, message));
            assert_eq!(failure.evidence, ["start", "RuntimeError: boom"]);
        }
    }

    #[test]
    fn a_taken_port_is_worth_another_try() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "RuntimeError: Failed to init the tcp server at 127.0.0.1:1\n").unwrap();
        let exit = Exit { code: Some(1), ..Exit::default() };
        assert_eq!(of_process("n1", &process(None, &log), &exit).cause, "hang");
        assert_eq!(of_process("n1", &process(Some(0), &log), &exit).cause, "exit");
    }
}
