//! Processes as `/proc` shows them.

use std::fs;

use super::record::ProcId;

/// Set to `1`, it hides descriptors for processes, as kernels before 5.3 do.
pub const PIDFD_SWITCH: &str = "QCTL_NO_PIDFD";

/// One line of `/proc/PID/stat`, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process number.
    pub pid: i32,
    /// State letter; `Z` and `X` are dead.
    pub state: u8,
    /// Parent.
    pub ppid: i32,
    /// Session.
    pub session: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    /// Whether it only waits to be reaped.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> ProcId {
        ProcId { pid: self.pid, start: self.start }
    }
}

/// Reads one process; `None` if there is none of this number.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `pid (comm) state ppid pgrp session …`; the command may hold
/// blanks and parentheses itself, so the last `)` ends it.
fn parse(line: &str) -> Option<Stat> {
    let (pid, _) = line.split_once(' ')?;
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        pid: pid.parse().ok()?,
        state: *fields.first()?.as_bytes().first()?,
        ppid: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// All processes that can be seen.
#[must_use]
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// Who process `pid` is; `None` if it is not there.
#[must_use]
pub fn identify(pid: i32) -> Option<ProcId> {
    stat(pid).map(|s| s.id())
}

/// Whether this very process lives (a zombie does not).
#[must_use]
pub fn lives(id: ProcId) -> bool {
    stat(id.pid).is_some_and(|s| s.start == id.start && !s.is_dead())
}

/// The kernel's name for this boot; empty if it has none.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_blanks_and_parentheses() {
        let line = "42 (a) b (c) S 7 42 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = parse(line).unwrap();
        assert_eq!((stat.pid, stat.state, stat.ppid, stat.session, stat.start), (42, b'S', 7, 9, 987_654));
        for bad in ["", "42", "42 (a", "42 (a) S 7"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn this_process_lives_and_a_reused_number_is_another() {
        let me = identify(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(lives(me));
        assert!(!lives(ProcId { start: me.start + 1, ..me }));
        assert!(all().iter().any(|s| s.id() == me));
    }
}
