//! A cgroup for a seat's processes, where the host lets us have one.
//!
//! A directory under `/sys/fs/cgroup` proves nothing: on hybrid hosts it may
//! lie on a tmpfs, where writing `cgroup.procs` just makes a file. So the
//! cgroup2 mount is looked up, the file system's magic is checked, and the
//! process number is read back.

use std::fs;
use std::path::{Path, PathBuf};

/// Set to `1`, it makes the shim do without.
pub const SWITCH: &str = "QCTL_NO_CGROUP";
/// Set to `1`, it hides `cgroup.kill`, as kernels before 5.14 do.
pub const KILL_SWITCH: &str = "QCTL_NO_CGROUP_KILL";

const CGROUP2_MAGIC: i128 = 0x6367_7270;

/// A cgroup that this process made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    home: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup named `name` below this process's own, and moves this
    /// process into it: what it starts from here is born inside.
    ///
    /// `None` where that cannot be had or does not verify.
    #[must_use]
    pub fn enter(name: &str) -> Option<Self> {
        if std::env::var(SWITCH).is_ok_and(|v| v == "1") {
            return None;
        }
        let mount = mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let listed = fs::read_to_string("/proc/self/cgroup").ok()?;
        let home = mount.join(own_path(&listed)?.trim_start_matches('/'));
        let magic = rustix::fs::statfs(&home).ok()?.f_type;
        if i128::from(magic) != CGROUP2_MAGIC {
            return None;
        }
        let path = home.join(name);
        fs::create_dir(&path).ok()?;
        let made = Self { path, home };
        let me = std::process::id();
        if fs::write(made.path.join("cgroup.procs"), me.to_string()).is_ok() && holds(&made.path, me) {
            Some(made)
        } else {
            made.leave();
            made.remove();
            None
        }
    }

    /// Moves this process back to where it came from; `false` if it is still
    /// inside (killing the cgroup would then kill it too).
    pub fn leave(&self) -> bool {
        let me = std::process::id();
        fs::write(self.home.join("cgroup.procs"), me.to_string()).is_ok() && !holds(&self.path, me)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it; it must be empty.
    pub fn remove(&self) {
        remove(&self.path);
    }
}

/// Process numbers in the cgroup at `path`.
#[must_use]
pub fn members(path: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![path.to_owned()];
    while let Some(dir) = next.pop() {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        next.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    found
}

/// Removes an empty cgroup. A failure leaves an empty directory, nothing more.
pub fn remove(path: &Path) {
    let _ = fs::remove_dir(path);
}

/// Asks the kernel to kill all members at once; `false` on kernels before 5.14.
#[must_use]
pub fn kill(path: &Path) -> bool {
    let hidden = std::env::var(KILL_SWITCH).is_ok_and(|v| v == "1");
    !hidden && path.join("cgroup.kill").exists() && fs::write(path.join("cgroup.kill"), "1").is_ok()
}

fn holds(path: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().any(|line| line.parse() == Ok(pid))
}

/// The mount point of the first cgroup2 file system.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        (tail.split(' ').next()? == "cgroup2").then(|| head.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// This process's path in the unified hierarchy.
fn own_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_mount_is_found_beside_others() {
        let hybrid = "25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n\
                      27 25 0:24 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n";
        assert_eq!(mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"), None);
        assert_eq!(own_path("12:hugetlb:/\n0::/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!(own_path("12:hugetlb:/\n"), None);
    }
}
