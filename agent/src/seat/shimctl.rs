//! Starting a shim and telling it to stop.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::refusal::Refusal;
use crate::shim::record::{self, Child, ProcId, Shim, Stop};
use crate::shim::{cgroup, descend, proc};

/// Starts the shim of the seat in `dir`. A second one on the same seat ends
/// at once, so this may be repeated.
///
/// # Errors
///
/// [`Refusal`] if it cannot be started.
pub(super) async fn start(bin_dir: &Path, dir: &Path) -> Result<(), Refusal> {
    start_with(bin_dir, &[dir.as_os_str()], dir).await
}

/// Starts a shim with any arguments; its complaints go to `shim.log` in `dir`.
///
/// # Errors
///
/// [`Refusal`] if it cannot be started.
pub(crate) async fn start_with(bin_dir: &Path, args: &[&OsStr], dir: &Path) -> Result<(), Refusal> {
    let program = bin_dir.join("qctl-shim");
    let failed = |error: io::Error| {
        Refusal::new(
            format!("the shim `{}` could not be started: {error}", program.display()),
            "install it beside qctl-agent, or set QCTL_BIN_DIR",
        )
    };
    let log = OpenOptions::new().create(true).append(true).open(dir.join(record::SHIM_LOG)).map_err(failed)?;
    let mut command = tokio::process::Command::new(&program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // It returns once the process that stays has been started.
    let status = command.status().await.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(failed(io::Error::other(status.to_string())))
}

/// Tells the shim to stop its processes. Nothing happens if it is gone.
///
/// # Errors
///
/// Whatever the file system says about the stop record.
pub(super) fn stop(dir: &Path, shim: Option<&Shim>, grace: Duration) -> io::Result<()> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    record::write(&dir.join(record::STOP), &Stop { grace_ms })?;
    if let Some(shim) = shim {
        signal_exactly(shim.id, Signal::TERM);
    }
    Ok(())
}

/// Signals this very process and never a later one of the same number.
fn signal_exactly(id: ProcId, signal: Signal) {
    let Some(pid) = Pid::from_raw(id.pid) else { return };
    let hidden = std::env::var(proc::PIDFD_SWITCH).is_ok_and(|v| v == "1");
    let opened = if hidden { Err(rustix::io::Errno::NOSYS) } else { pidfd_open(pid, PidfdFlags::empty()) };
    match opened {
        // Looked at after the descriptor holds it, so it cannot change any more.
        Ok(fd) if proc::lives(id) => drop(pidfd_send_signal(fd, signal)),
        Ok(_) => {}
        // Kernels before 5.3 have no descriptor for processes.
        Err(rustix::io::Errno::NOSYS) if proc::lives(id) => descend::signal(id.pid, signal),
        Err(_) => {}
    }
}

/// Sends SIGTERM to the groups of children whose shim is gone.
pub(super) fn terminate_orphans(children: &[Child]) {
    for child in children.iter().filter(|c| proc::lives(c.id)) {
        descend::signal_group(child.id.pid, Signal::TERM);
    }
}

/// Kills whatever a dead shim's processes have left; whether nothing is left.
///
/// Blocks for up to `limit`.
#[must_use]
pub(super) fn kill_orphans(shim: &Shim, children: &[Child], limit: Duration) -> bool {
    let roots: Vec<ProcId> = children.iter().map(|c| c.id).collect();
    let family = descend::Family { session: Some(shim.id), roots: &roots, cgroup: shim.cgroup.as_deref(), except: 0 };
    let (_, clear) = family.kill(limit, || {});
    if let Some(path) = &shim.cgroup
        && clear
    {
        cgroup::remove(path);
    }
    clear
}
