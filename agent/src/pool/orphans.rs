//! Tasks whose shim was killed: they go on, and the agent does what the shim
//! would have done. How they end nobody can know.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::shim::descend::{signal, signal_group};
use crate::shim::pool::{log_path, strays};
use crate::shim::proc;
use crate::shim::record::ProcId;

/// How long the remains of one task are hunted in one go.
const HUNT: Duration = Duration::from_secs(2);

/// A task without a shim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orphan {
    /// When it is killed, once it was told to stop.
    deadline: Option<Instant>,
}

/// What became of an orphan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// This is its process.
    Runs(ProcId),
    /// Nothing of it is left.
    Gone,
}

impl Orphan {
    /// Looks after the task once. Blocks for a look at all processes, unless
    /// its known process lives.
    pub(super) fn tend(&mut self, dir: &Path, attempt: &str, root: Option<ProcId>, stop: Option<u64>) -> Fate {
        let now = Instant::now();
        if let (Some(grace_ms), None) = (stop, self.deadline) {
            self.deadline = Some(now + Duration::from_millis(grace_ms));
            if let Some(root) = root.filter(|root| proc::lives(*root)) {
                signal_group(root.pid, Signal::TERM);
            }
        }
        let due = self.deadline.is_some_and(|at| at <= now);
        if let Some(root) = root.filter(|root| proc::lives(*root))
            && !due
        {
            return Fate::Runs(root);
        }
        let members = strays::family(dir, attempt, root);
        let oldest = members.iter().min_by_key(|id| (id.start, id.pid)).copied();
        match (root, oldest) {
            (_, None) => Fate::Gone,
            // Killed between the start and its record: the shim's child is the oldest.
            (None, Some(oldest)) if !due => Fate::Runs(oldest),
            (root, Some(oldest)) => {
                // Its process is gone or has had its grace; what is left must not outlive it.
                if hunt(dir, attempt, root) { Fate::Gone } else { Fate::Runs(root.unwrap_or(oldest)) }
            }
        }
    }
}

/// Kills all that is left of an attempt; whether nothing is.
fn hunt(dir: &Path, attempt: &str, root: Option<ProcId>) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < HUNT {
        let members = strays::family(dir, attempt, root);
        if members.is_empty() {
            return true;
        }
        for member in members.into_iter().filter(|member| proc::lives(*member)) {
            signal(member.pid, Signal::KILL);
        }
        // The kernel needs a moment to take a process down.
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The log that a process writes to, if it is one of the pool in `dir`.
pub(super) fn log_of(dir: &Path, pid: i32) -> Option<u64> {
    let target = std::fs::read_link(format!("/proc/{pid}/fd/1")).ok()?;
    let number = target.file_name()?.to_str()?.parse().ok()?;
    (log_path(dir, number) == target).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::pool::{MARK, mark};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    const DIR: &str = "/pools/j.0";

    fn task(attempt: &str) -> (std::process::Child, ProcId) {
        let child =
            Command::new("sleep").arg("300").env(MARK, mark(Path::new(DIR), attempt)).process_group(0).spawn().unwrap();
        let id = proc::identify(i32::try_from(child.id()).unwrap()).unwrap();
        // `spawn` may return a moment before the kernel shows the new program's environment.
        while strays::attempt_of(Path::new(DIR), id.pid).is_none() {
            std::thread::yield_now();
        }
        (child, id)
    }

    #[test]
    fn an_orphan_is_found_by_its_mark_and_stopped_by_its_group() {
        let attempt = format!("j{}.run.0.1", std::process::id());
        let (mut child, id) = task(&attempt);
        let mut orphan = Orphan::default();
        assert_eq!(orphan.tend(Path::new(DIR), &attempt, Some(id), None), Fate::Runs(id));
        assert_eq!(
            orphan.tend(Path::new(DIR), &attempt, None, None),
            Fate::Runs(id),
            "found without a record of its start"
        );
        assert_eq!(orphan.tend(Path::new(DIR), "j0.run.0.1", None, None), Fate::Gone);
        orphan.tend(Path::new(DIR), &attempt, Some(id), Some(60_000));
        assert!(child.wait().unwrap().code().is_none());
        assert_eq!(orphan.tend(Path::new(DIR), &attempt, Some(id), Some(60_000)), Fate::Gone);
    }

    #[test]
    fn a_later_process_of_the_same_number_is_neither_adopted_nor_signalled() {
        let (mut child, id) = task("j0.run.7.1");
        let stranger = ProcId { start: id.start - 1, ..id };
        let mut orphan = Orphan::default();
        assert_eq!(orphan.tend(Path::new(DIR), "j0.run.8.1", Some(stranger), Some(0)), Fate::Gone);
        assert!(proc::lives(id), "another's process is not touched");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
