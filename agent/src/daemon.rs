//! The whole agent: built, run, and ended in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use runtime::channel::ChannelError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::config::Config;
use crate::fence::Fence;
use crate::host::{Board, Host};
use crate::join::{self, JoinError};
use crate::launch::ports;
use crate::probe::Probe;
use crate::push::{self, Logs};
use crate::renew::Renewal;
use crate::seats::Seats;
use crate::session::{Introduction, Session};
use crate::spool::{Spool, SpoolError};

/// How long the tasks may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent uses the state directory.
    #[error("`{}` is in use by another agent", .0.display())]
    InUse(PathBuf),
    /// The state directory cannot be used.
    #[error("the state directory `{}` cannot be used", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// There is no certificate.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The controller's address cannot be used.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Error {
    /// The next thing to try.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse(_) => Some("give each agent a `--state-dir` of its own"),
            Self::State { .. } | Self::Spool(_) => Some("check space and permissions of `--state-dir`"),
            Self::Join(error) => error.hint(),
            Self::Channel(_) => Some("give `--controller https://host:port`"),
        }
    }
}

/// Runs the agent until `stop`. What it has started goes on without it.
///
/// # Errors
///
/// [`Error`] if it cannot begin.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let state = |source| Error::State { path: config.state_dir.clone(), source };
    std::fs::create_dir_all(&config.state_dir).map_err(state)?;
    let _lock = lock(&config.state_dir).map_err(state)?.ok_or_else(|| Error::InUse(config.state_dir.clone()))?;
    let identity = join::identity(&config).await?;
    let (channels, channel) = watch::channel(runtime::channel(&config.controller, &identity)?);
    let (controller, pki) = (config.controller.clone(), config.pki.clone());
    let tasks = Tasks::under(&stop);
    tasks.spawn("renewal", Renewal { controller, pki, identity, channels }.run(tasks.stop_token()));
    let served = serve(&config, channel, stop).await;
    tasks.shutdown(GRACE).await;
    served
}

/// Gets the node's certificate, unless it is there.
///
/// # Errors
///
/// [`Error::Join`] if there is none in the end.
pub async fn join(config: &Config) -> Result<(), Error> {
    join::identity(config).await?;
    Ok(())
}

/// Runs the agent over given channels, of which the newest counts, until `stop`.
///
/// # Errors
///
/// [`Error`] if it cannot begin.
pub async fn serve(config: &Config, channel: watch::Receiver<Channel>, stop: CancellationToken) -> Result<(), Error> {
    let state = |source| Error::State { path: config.state_dir.clone(), source };
    let (spool, writer) = Spool::open(&config.state_dir.join("spool"))?;
    let fence = Fence::open(&config.state_dir.join("epoch.json")).map_err(state)?;
    let logs = Logs::default();
    let host = Arc::new(Host {
        node: config.node.to_string(),
        address: config.address.clone(),
        bin_dir: config.bin_dir.clone(),
        attempts: config.state_dir.join("attempts"),
        ports: ports::shared_dir(),
        spool,
        progress: Board::default(),
        logs: logs.clone(),
        probe: Probe::new(config.probe.clone(), config.slots),
    });
    let tasks = Tasks::under(&stop);
    let seats = Seats::adopt(Arc::clone(&host), tasks.clone()).map_err(state)?;
    let introduction = Introduction {
        address: config.address.clone(),
        device: config.device,
        slots: config.slots,
        labels: config.labels.clone(),
        spare: config.spare,
        slot_groups: config.slot_groups.clone(),
        state_dir: config.state_dir.clone(),
    };
    let session = Session::new(Arc::clone(&host), seats, fence, introduction, tasks.clone());
    let (probing, period, over) = (Arc::clone(&host), config.probe_period, tasks.stop_token());
    tasks.spawn("probe", async move { probing.probe.run(period, over).await });
    tasks.spawn("push", push::run(logs, channel.clone(), tasks.stop_token()));
    tasks.spawn("session", session.run(channel, tasks.stop_token()));
    tracing::info!(node = %config.node, controller = %config.controller, "the agent is up");
    stop.cancelled().await;
    if !tasks.shutdown(GRACE).await {
        tracing::warn!("some tasks did not end in time");
    }
    drop(host);
    // What is handed in is durable before this returns.
    if tokio::task::spawn_blocking(move || writer.join()).await.is_err() {
        tracing::warn!("the spool's thread failed");
    }
    Ok(())
}

/// Keeps a second agent out of the state directory while it is held.
fn lock(state_dir: &Path) -> io::Result<Option<std::fs::File>> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(state_dir.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(held.is_some());
        assert!(lock(dir.path()).unwrap().is_none());
        drop(held);
        assert!(lock(dir.path()).unwrap().is_some());
    }
}
