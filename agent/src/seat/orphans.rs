//! A seat whose shim was killed: its processes go on, and the agent does what
//! the shim would have done.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::watch::Watching;
use super::{failure, shimctl};
use crate::launch;
use crate::shim::proc;
use crate::shim::record::{self, Child, Ended, Exit, Process};

/// What a launcher gets to say which of its processes it saw fail.
const LAUNCHER_TIME: Duration = Duration::from_millis(500);
/// How long the remains of a seat without a shim are hunted.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

impl Watching<'_> {
    /// As a shim would: the ranks first, their scheduler with what is left.
    pub(super) fn terminate_orphans(&mut self, grace: Duration) {
        let ranks: Vec<Child> = self.children().into_iter().filter(|c| self.is_rank(c.index)).collect();
        shimctl::terminate_orphans(&ranks);
        self.orphan_deadline = Some(Instant::now() + grace);
    }

    /// Whether the shim is gone without a last word.
    pub(super) fn is_orphaned(&self) -> bool {
        self.orphan_deadline.is_some()
            || self.shim.as_ref().is_some_and(|s| !proc::lives(s.id) && !self.ended_file().exists())
    }

    fn ended_file(&self) -> PathBuf {
        self.seat.dir.path().join(record::ENDED)
    }

    pub(super) fn children(&self) -> Vec<Child> {
        self.started.as_ref().map(|s| s.children.clone()).unwrap_or_default()
    }

    /// Living or not, who has ended without a word.
    fn gone_unsaid(&mut self, which: impl Fn(&Process) -> bool) -> Vec<usize> {
        let mut gone = self.children();
        gone.retain(|c| self.launch.processes.get(c.index).is_some_and(&which) && !proc::lives(c.id));
        // Read behind the look: who ended by itself has said so before.
        if let Ok(exits) = record::exits(self.seat.dir.path()) {
            self.exits = exits;
        }
        gone.retain(|c| self.exits.iter().all(|e| e.index != c.index));
        gone.into_iter().map(|c| c.index).collect()
    }

    /// Notes processes that another one of the seat started and whose stand-in
    /// was killed, as msrun does with its ranks when one of them has failed.
    pub(super) fn note_lost(&mut self) {
        if self.launch.processes.iter().all(|p| !p.nested) || self.failure.is_some() {
            return;
        }
        let mut gone = self.gone_unsaid(|p| p.nested);
        if gone.is_empty() {
            return;
        }
        let told = self.told_by_launcher().filter(|exit| gone.contains(&exit.index));
        let since = *self.lost.get_or_insert_with(Instant::now);
        if told.is_none() && since.elapsed() < LAUNCHER_TIME {
            return;
        }
        if let Some(exit) = &told {
            // The one that it saw fail comes before those that it killed.
            gone.retain(|index| *index != exit.index);
        }
        let unknown = gone.into_iter().map(|index| Exit { index, ..Exit::default() });
        for exit in told.into_iter().chain(unknown) {
            tracing::warn!(attempt = %self.seat.name, index = exit.index, "a process ended whose stand-in was killed");
            let now = Exit::at_present();
            let stopping = self.stop_passed.is_some();
            let exit = Exit { stopping, mono_us: now.mono_us, wall_ms: now.wall_ms, ..exit };
            if let Err(error) = record::append_exit(self.seat.dir.path(), &exit) {
                tracing::error!(attempt = %self.seat.name, %error, "an end cannot be noted; trying again");
                return;
            }
        }
    }

    /// The failure that a launcher says that it saw.
    fn told_by_launcher(&self) -> Option<Exit> {
        let nested = self.launch.processes.iter().position(|p| p.nested)?;
        let launcher = self.launch.processes[..nested].last()?;
        let (pid, code) = launch::worker_failure(&failure::last_lines(launcher))?;
        let child = self.children().into_iter().find(|c| c.id.pid == pid)?;
        let (code, signal) = if code < 0 { (None, code.checked_neg()) } else { (Some(code), None) };
        Some(Exit { index: child.index, code, signal, ..Exit::default() })
    }

    /// Does the work of a shim that was killed: notes ends, kills after the
    /// grace, and writes the last word.
    pub(super) async fn tend_orphans(&mut self) {
        let Some(shim) = self.shim.clone() else { return };
        let children = self.children();
        if let (Some(grace), None) = (self.stop_passed, self.orphan_deadline) {
            // It died while it was stopping them.
            self.terminate_orphans(grace);
        }
        let gone = self.gone_unsaid(|_| true);
        // Read once more: what has ended before this moment has said so by it.
        self.listen().await;
        for index in gone {
            let code = self.readers.proves_done().then_some(0);
            let stopping = self.stop_passed.is_some();
            let exit = Exit { index, code, stopping, ..Exit::at_present() };
            tracing::warn!(attempt = %self.seat.name, index, "a process ended whose shim was killed");
            if let Err(error) = record::append_exit(self.seat.dir.path(), &exit) {
                tracing::error!(attempt = %self.seat.name, %error, "an end cannot be noted; trying again");
                return;
            }
            self.exits.push(exit);
        }
        self.judge().await;
        let all_gone = children.iter().all(|c| self.exits.iter().any(|e| e.index == c.index));
        let ranks_gone = children.iter().all(|c| !self.is_rank(c.index) || !proc::lives(c.id));
        let overdue = self.orphan_deadline.is_some_and(|d| ranks_gone || Instant::now() >= d);
        if !all_gone && !overdue {
            return;
        }
        let stopped = self.stop_passed.is_some();
        let clear = tokio::task::spawn_blocking(move || shimctl::kill_orphans(&shim, &children, ORPHAN_LIMIT)).await;
        if all_gone && clear.unwrap_or(false) {
            let ended = Ended { wall_ms: runtime::clock::now_ms(), stopped, ..Ended::default() };
            if let Err(error) = record::write(&self.ended_file(), &ended) {
                tracing::error!(attempt = %self.seat.name, %error, "the end of a seat cannot be noted; trying again");
            }
        }
    }
}
