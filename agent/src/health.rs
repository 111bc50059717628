//! What this node is, and how it is.

use std::path::Path;

use proto::v1::NodeHealth;

use crate::preflight::free_bytes;

/// Logical processors that this process may use.
#[must_use]
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Bytes of memory.
#[must_use]
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// The host's own name.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How the node is; `state_dir` tells which disk matters.
#[must_use]
pub fn now(state_dir: &Path) -> NodeHealth {
    NodeHealth {
        disk_free: free_bytes(state_dir).unwrap_or(0),
        memory_free: available_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        load_percent: load(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default()),
    }
}

/// Whether a health is different enough to be told before its turn.
#[must_use]
pub fn differs(old: &NodeHealth, new: &NodeHealth) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) > a.max(b) / 10;
    far(old.disk_free, new.disk_free)
        || far(old.memory_free, new.memory_free)
        || old.load_percent.abs_diff(new.load_percent) > 50
}

fn available_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// `0.42 …` is 42.
fn load(loadavg: &str) -> u32 {
    let minute = loadavg.split(' ').next().unwrap_or_default();
    let (whole, part) = minute.split_once('.').unwrap_or((minute, "0"));
    let whole: u32 = whole.parse().unwrap_or(0);
    let part: u32 = part.get(..2).unwrap_or("0").parse().unwrap_or(0);
    whole.saturating_mul(100).saturating_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        assert_eq!(load("5.33 4.46 2.48 3/200 1234\n"), 533);
        assert_eq!(load(""), 0);
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), 2 << 20);
        assert!(cpus() > 0 && memory() > 0 && !hostname().is_empty());
        let health = now(Path::new("/"));
        assert!(health.disk_free > 0 && health.memory_free > 0);
        assert!(!differs(&health, &health));
        assert!(differs(&health, &NodeHealth { disk_free: health.disk_free / 2, ..health }));
    }
}
