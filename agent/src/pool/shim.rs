//! The agent's side of a pooled shim: started, found again, woken.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use tokio::net::unix::pipe;

use crate::refusal::Refusal;
use crate::seat::shimctl;
use crate::shim::pool::{FLAG, NEWS, WAKE};
use crate::shim::{proc, record};

/// How long a shim may take to take its pool.
const LIMIT: Duration = Duration::from_secs(20);

/// The shim of one pool.
#[derive(Debug)]
pub(super) struct PooledShim {
    wake: File,
    news: pipe::Receiver,
    known: Option<record::Shim>,
    started: Option<Instant>,
}

impl PooledShim {
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let wake = File::from(open(dir.join(WAKE), flags, Mode::empty())?);
        let news = pipe::OpenOptions::new().read_write(true).open_receiver(dir.join(NEWS))?;
        Ok(Self { wake, news, known: None, started: None })
    }

    /// Says that there are orders.
    pub(super) fn wake(&self) {
        // A full pipe has told already.
        let _ = rustix::io::write(&self.wake, b"o");
    }

    /// Waits until there are records.
    pub(super) async fn news(&self) {
        if self.news.readable().await.is_err() {
            return tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut buffer = [0; 4096];
        while self.news.try_read(&mut buffer).is_ok_and(|read| read == buffer.len()) {}
    }

    /// Whether a shim lives, or is about to.
    pub(super) fn lives(&mut self, dir: &Path) -> bool {
        if self.known.as_ref().is_none_or(|known| !proc::lives(known.id)) {
            let found: Option<record::Shim> = record::read(&dir.join(record::SHIM)).ok().flatten();
            // A process of an earlier boot may have the same number and start.
            self.known = found.filter(|shim| shim.boot_id == proc::boot_id() && proc::lives(shim.id));
        }
        if self.known.is_some() {
            self.started = None;
        }
        self.known.is_some() || self.started.is_some_and(|at| at.elapsed() < LIMIT)
    }

    /// Starts one. Of two that are started, one ends at once.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot be started.
    pub(super) async fn start(&mut self, bin_dir: &Path, dir: &Path) -> Result<(), Refusal> {
        shimctl::start_with(bin_dir, &[FLAG.as_ref(), dir.as_os_str()], dir).await?;
        self.started = Some(Instant::now());
        Ok(())
    }
}
