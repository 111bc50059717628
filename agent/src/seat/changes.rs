//! Wakes up when a directory changes.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::net::unix::pipe::Receiver;

/// Pause between two looks where the kernel gives no notice.
const POLL: Duration = Duration::from_millis(50);

/// Notices of one directory.
#[derive(Debug)]
pub(super) struct Changes {
    /// An inotify descriptor is read like a pipe.
    notices: Option<Receiver>,
}

impl Changes {
    /// Watches `dir`; polls where that cannot be had (the number of watches
    /// of a user is limited).
    #[must_use]
    pub(super) fn of(dir: &Path) -> Self {
        let watch = || {
            let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok()?;
            let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, dir, what).ok()?;
            Receiver::from_file_unchecked(File::from(fd)).ok()
        };
        Self { notices: watch() }
    }

    /// Returns after a change, or after a pause in which there may have been one.
    pub(super) async fn wait(&mut self) {
        let Some(notices) = &self.notices else { return tokio::time::sleep(POLL).await };
        if notices.readable().await.is_err() {
            return tokio::time::sleep(POLL).await;
        }
        // What changed does not matter: the caller looks at everything.
        let mut buffer = [0; 4096];
        while notices.try_read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_renamed_file_wakes_the_watcher() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = Changes::of(dir.path());
        runtime::files::write_durably(&dir.path().join("a"), b"x").unwrap();
        tokio::time::timeout(Duration::from_secs(5), changes.wait()).await.unwrap();
        let mut polling = Changes { notices: None };
        tokio::time::timeout(Duration::from_secs(5), polling.wait()).await.unwrap();
    }
}
