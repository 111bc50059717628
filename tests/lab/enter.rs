//! Into namespaces of our own, and out again with nothing left behind.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{WaitOptions, wait};

/// Tells a process of this program which one it is.
const STAGE: &str = "QCTL_LAB_STAGE";

/// User, network, host name, mounts and processes; with the first process everything else ends.
const UNSHARE: [&str; 3] = ["-Urnmupf", "--kill-child", "--mount-proc"];

/// Runs `lab` inside, with this program's own words; none where namespaces cannot be made, and why.
pub(crate) fn main(lab: fn(Result<(), String>, &[String]) -> ExitCode) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match std::env::var(STAGE).as_deref() {
        Ok("first") => first(),
        Ok(_) => lab(Ok(()), &words),
        Err(_) => match possible() {
            Ok(()) => inside(&words),
            Err(why) => lab(Err(why), &words),
        },
    }
}

/// All that a host is made of, in short.
const TRIAL: &str = r#"
set -e
nsenter --version
ip link add lab0 type bridge
ip link add lab1 type veth peer name lab2
unshare -num --propagation private sh -ec '
    hostname name
    mount -t tmpfs tmpfs /tmp
    touch /tmp/boot_id
    mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id'
"#;

/// Whether this machine lets us.
fn possible() -> Result<(), String> {
    let mut tried = Command::new("unshare");
    tried.args(UNSHARE).args(["sh", "-c", TRIAL]);
    let tried = tried.stdin(Stdio::null()).output().map_err(|error| format!("`unshare` does not start: {error}"))?;
    let said = String::from_utf8_lossy(&tried.stderr);
    let said = said.lines().next().unwrap_or("it says nothing");
    if tried.status.success() { Ok(()) } else { Err(format!("no namespaces of our own on this machine: {said}")) }
}

fn inside(words: &[String]) -> ExitCode {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    // In the place of this process: whoever ends it ends all that is inside.
    let error = command.args(UNSHARE).arg(this).args(words).env(STAGE, "first").exec();
    panic!("`unshare` does not start: {error}")
}

#[allow(clippy::zombie_processes, reason = "it is waited for, among all others")]
/// The first process: orphans come to it and are collected, as they would be by any host's.
fn first() -> ExitCode {
    let mut lab = Command::new(std::env::current_exe().unwrap());
    let lab = lab.args(std::env::args().skip(1)).env(STAGE, "lab").spawn().unwrap();
    loop {
        if let Ok(Some((pid, status))) = wait(WaitOptions::empty())
            && u32::try_from(pid.as_raw_nonzero().get()) == Ok(lab.id())
            && (status.exited() || status.signaled())
        {
            return exit(status.exit_status().unwrap_or(1));
        }
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
