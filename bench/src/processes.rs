//! Processor time of everything that descends from this process.
//!
//! This process is the reaper of its descendants' orphans, so the time of a
//! process that ended is in the books of its parent or in ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// Clock ticks a second, as `/proc` counts them on x86 and ARM.
const USER_HZ: u64 = 100;

/// One process as `/proc` shows it.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    parent: i32,
    /// Clock ticks of its own, and of its children that it has collected.
    ticks: u64,
}

/// Makes this process inherit its descendants' orphans, and collects them.
///
/// Nobody else in this process may wait for a child.
pub(crate) fn inherit() -> anyhow::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    std::thread::Builder::new().name("reaper".into()).spawn(|| {
        loop {
            match rustix::process::wait(rustix::process::WaitOptions::empty()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    })?;
    Ok(())
}

/// Processor time of all descendants, dead or alive, since this process began.
pub(crate) fn spent() -> Duration {
    let all = entries();
    let alive: u64 = descendants(&all).iter().filter_map(|pid| all.get(pid)).map(|e| e.ticks).sum();
    ticks(alive + collected())
}

/// Processor time of the living descendants of one program.
pub(crate) fn spent_by(program: &str) -> Duration {
    let all = entries();
    let ours = descendants(&all);
    ticks(ours.iter().filter_map(|pid| all.get(pid)).filter(|e| e.name == program).map(|e| e.ticks).sum())
}

/// Resident memory of the living descendants of one program, in KiB.
pub(crate) fn resident_kib(program: &str) -> u64 {
    let all = entries();
    let ours = descendants(&all).into_iter().filter(|pid| all.get(pid).is_some_and(|e| e.name == program));
    ours.map(|pid| resident(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())).sum()
}

fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Living descendants.
pub(crate) fn living() -> Vec<i32> {
    descendants(&entries()).into_iter().collect()
}

/// Ticks of children that this process has collected, with theirs.
fn collected() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    fields(&stat).map_or(0, |f| number(&f, 13) + number(&f, 14))
}

fn ticks(count: u64) -> Duration {
    Duration::from_micros(count.saturating_mul(1_000_000) / USER_HZ)
}

fn entries() -> BTreeMap<i32, Entry> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, entry(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

fn entry(stat: &str) -> Option<Entry> {
    let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?.to_owned();
    let fields = fields(stat)?;
    let ticks = (11..=14).map(|at| number(&fields, at)).sum();
    Some(Entry { name, parent: fields.get(1)?.parse().ok()?, ticks })
}

/// What follows the command's name.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.get(stat.rfind(')')? + 2..)?.split_ascii_whitespace().collect())
}

fn number(fields: &[&str], at: usize) -> u64 {
    fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn descendants(all: &BTreeMap<i32, Entry>) -> BTreeSet<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = BTreeSet::new();
    let mut parents = vec![own];
    while let Some(parent) = parents.pop() {
        for (pid, entry) in all {
            if entry.parent == parent && found.insert(*pid) {
                parents.push(*pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_children_count() {
        let line = "42 (a) b (c) S 7 42 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let entry = entry(line).unwrap();
        assert_eq!((entry.name.as_str(), entry.parent, entry.ticks), ("a) b (c", 7, 5 + 6 + 7 + 8));
    }
}
