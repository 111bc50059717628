//! Processes by pid and birth, so that a pid that was given to another is not mistaken.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks from the system's boot to the process's start (field 22 of `/proc/<pid>/stat`).
    born: u64,
}

impl Process {
    /// The living process with this pid.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, born: born(pid)? })
    }

    /// This process itself.
    pub(super) fn own() -> Self {
        let pid = std::process::id();
        Self { pid, born: born(pid).unwrap_or(0) }
    }

    /// Whether it lives; one that waits to be reaped does not.
    pub(super) fn lives(self) -> bool {
        self.pid != 0 && born(self.pid) == Some(self.born)
    }

    /// Sends `signal`, if it lives.
    pub(super) fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.lives()) {
            // It may end meanwhile, which is what a signal is for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, and after `grace` makes it; returns once it is gone.
    pub(super) async fn end(self, grace: Duration) {
        self.signal(Signal::TERM);
        if !self.gone_within(grace).await {
            self.signal(Signal::KILL);
            self.gone_within(Duration::from_secs(5)).await;
        }
    }

    /// Waits until it is gone, at most `limit`.
    pub(super) async fn gone_within(self, limit: Duration) -> bool {
        let began = Instant::now();
        while self.lives() {
            if began.elapsed() >= limit {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&stat)
}

/// The name in parentheses may hold anything, so fields are counted behind its end.
fn parse(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(parse(&format!("42 (a) b) {rest}")), Some(777));
        assert_eq!(parse(&format!("42 (a) {}", rest.replacen('S', "Z", 1))), None);
        assert_eq!(parse("42 (a"), None);
    }

    #[tokio::test]
    async fn a_process_is_told_from_a_later_one_with_its_pid() {
        assert!(Process::own().lives());
        let own = Process::own();
        assert!(!Process { born: own.born + 1, ..own }.lives());
        assert!(!Process::default().lives());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        process.end(Duration::from_secs(5)).await;
        assert!(!process.lives());
        child.wait().unwrap();
    }
}
