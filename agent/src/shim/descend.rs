//! Everything that a seat's processes have started, and its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::cgroup;
use super::proc::{self, Stat};
use super::record::ProcId;

/// How a seat's processes can be recognised.
#[derive(Clone, Debug, Default)]
pub struct Family<'a> {
    /// Session of the shim, and with it of its children.
    pub session: Option<ProcId>,
    /// Known members; their descendants belong to it.
    pub roots: &'a [ProcId],
    /// Their cgroup.
    pub cgroup: Option<&'a Path>,
    /// The shim while it lives: it is no member, what it adopted is. Else 0.
    pub except: i32,
}

impl Family<'_> {
    /// The members that live.
    #[must_use]
    pub fn members(&self) -> Vec<ProcId> {
        let seen = proc::all();
        let inside = self.cgroup.map(cgroup::members).unwrap_or_default();
        select(&seen, self, &inside)
    }

    /// Kills all members until none is left; gives up after `limit`.
    ///
    /// `reap` collects the caller's children between two rounds. Returns how
    /// many were killed, and whether none is left.
    #[must_use]
    pub fn kill(&self, limit: Duration, mut reap: impl FnMut()) -> (u32, bool) {
        let begun = Instant::now();
        let mut killed = BTreeSet::new();
        loop {
            let members = self.members();
            if members.is_empty() {
                break;
            }
            if begun.elapsed() > limit {
                return (count(&killed), false);
            }
            if let Some(path) = self.cgroup {
                // Members outside of the cgroup are killed below all the same.
                let _ = cgroup::kill(path);
            }
            for id in &members {
                signal(id.pid, Signal::KILL);
            }
            killed.extend(members.iter().map(|id| (id.pid, id.start)));
            reap();
            // The kernel needs a moment to take a process down.
            std::thread::sleep(Duration::from_millis(5));
        }
        (count(&killed), true)
    }
}

fn count(killed: &BTreeSet<(i32, u64)>) -> u32 {
    u32::try_from(killed.len()).unwrap_or(u32::MAX)
}

/// Sends `signal` to one process; one that is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends `signal` to a process group; one that is gone is no error.
pub fn signal_group(pgid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pgid) {
        let _ = kill_process_group(pid, signal);
    }
}

fn select(seen: &[Stat], family: &Family<'_>, inside: &[i32]) -> Vec<ProcId> {
    let mut ours: BTreeSet<i32> = BTreeSet::new();
    for stat in seen {
        let in_session = family.session.is_some_and(|s| stat.session == s.pid && stat.start >= s.start);
        if in_session || inside.contains(&stat.pid) || family.roots.contains(&stat.id()) {
            ours.insert(stat.pid);
        }
    }
    // A child of the shim that is none of those was adopted by it: a
    // descendant that left the session and lost its parent.
    let adopted = |s: &Stat| family.except != 0 && s.ppid == family.except;
    loop {
        let more: Vec<i32> = seen
            .iter()
            .filter(|s| !ours.contains(&s.pid) && (ours.contains(&s.ppid) || adopted(s)))
            .map(|s| s.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    seen.iter().filter(|s| ours.contains(&s.pid) && s.pid != family.except && !s.is_dead()).map(Stat::id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, ppid: i32, session: i32) -> Stat {
        Stat { pid, ppid, session, state: b'S', start: 100 + u64::try_from(pid).unwrap() }
    }

    fn picked(family: &Family<'_>, inside: &[i32]) -> Vec<i32> {
        // 2 = a kernel thread, 10 = shim, 11 = rank, 12 = its child, 13 = a grandchild that left
        // the session, 14 = adopted by the shim, 20 = a stranger.
        let seen = [
            stat(1, 0, 1),
            stat(2, 0, 0),
            stat(10, 1, 10),
            stat(11, 10, 10),
            stat(12, 11, 10),
            stat(13, 12, 13),
            stat(14, 10, 14),
            stat(20, 1, 20),
            Stat { state: b'Z', ..stat(15, 10, 10) },
        ];
        select(&seen, family, inside).iter().map(|id| id.pid).collect()
    }

    #[test]
    fn a_family_is_its_session_its_descendants_and_its_cgroup() {
        let session = Some(ProcId { pid: 10, start: 110 });
        assert_eq!(picked(&Family { session, except: 10, ..Family::default() }, &[]), [11, 12, 13, 14]);
        assert_eq!(picked(&Family { session, except: 10, ..Family::default() }, &[20]), [11, 12, 13, 14, 20]);
        let rank = [ProcId { pid: 11, start: 111 }];
        assert_eq!(picked(&Family { roots: &rank, ..Family::default() }, &[]), [11, 12, 13]);
    }

    #[test]
    fn a_reused_number_is_a_stranger() {
        let rank = [ProcId { pid: 11, start: 5 }];
        assert!(picked(&Family { roots: &rank, ..Family::default() }, &[]).is_empty());
        let later = Some(ProcId { pid: 10, start: 9999 });
        assert!(picked(&Family { session: later, ..Family::default() }, &[]).is_empty());
    }
}
