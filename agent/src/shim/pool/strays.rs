//! Processes that a task started and left behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{MARK, mark};
use crate::shim::descend::Family;
use crate::shim::proc;
use crate::shim::record::ProcId;

/// Children of this process, adopted ones among them.
#[must_use]
pub fn children() -> Vec<i32> {
    let me = std::process::id();
    if let Ok(text) = fs::read_to_string(format!("/proc/{me}/task/{me}/children")) {
        return text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    // Not every kernel lists them.
    let mine = i32::try_from(me).unwrap_or_default();
    proc::all().into_iter().filter(|stat| stat.ppid == mine).map(|stat| stat.pid).collect()
}

/// Looks at an environment that is empty: 3 ms outlast a replacement.
const LOOKS: u32 = 3;

/// The environment that a process was started with. While the kernel replaces
/// a process's program it shows none, so one that has a program is looked at
/// again; kernel threads have no program.
fn environment(pid: i32) -> Option<Vec<u8>> {
    for _ in 0..LOOKS {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        if !environ.is_empty() || fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            return Some(environ);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The attempt of the pool in `dir` that a process belongs to, by the
/// environment that it was started with; `None` if it has none or may not be
/// looked at.
#[must_use]
pub fn attempt_of(dir: &Path, pid: i32) -> Option<String> {
    let environ = environment(pid)?;
    let begin = format!("{MARK}={}", mark(dir, ""));
    let value = environ.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(begin.as_bytes()))?;
    String::from_utf8(value.to_owned()).ok()
}

/// All living processes of one attempt: its root with all descendants, and
/// whatever carries its mark.
#[must_use]
pub fn family(dir: &Path, attempt: &str, root: Option<ProcId>) -> Vec<ProcId> {
    let roots: Vec<ProcId> = root.into_iter().collect();
    let mut found = Family { roots: &roots, ..Family::default() }.members();
    for stat in proc::all() {
        let known = found.iter().any(|id| id.pid == stat.pid);
        if !known && !stat.is_dead() && attempt_of(dir, stat.pid).is_some_and(|of| of == attempt) {
            found.push(stat.id());
        }
    }
    found
}
