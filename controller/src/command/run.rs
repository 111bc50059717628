//! `qctl-controller run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use controller::driver;
use controller::lock::Lock;
use controller::server::{Config, Controller};
use runtime::files::write_durably;
use runtime::pki::Authority;
use runtime::tls::Identity;
use runtime::trace;
use store::{Embedded, Memory, Store};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// How long each part may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long a submission waits for the first agent.
const AGENT_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Where the store, logs and tokens lie
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7400", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the CA and the controller's identity lie, as `init` makes them [default: STATE_DIR/pki]
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Write the address that is listened on to this file once serving
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Where jobs and nodes are remembered
    #[arg(long, value_enum, default_value_t = Make::Embedded)]
    store: Make,
    /// Traces as JSON lines
    #[arg(long)]
    log_json: bool,
    /// Ended jobs that are kept
    #[arg(long, default_value_t = 1000, value_name = "N")]
    keep_ended_jobs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Make {
    /// One file in the state directory
    Embedded,
    /// Nothing outlives the process
    Memory,
    /// An etcd cluster
    Etcd,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        trace::init("qctl-controller", self.log_json);
        std::fs::create_dir_all(&self.state_dir)
            .with_context(|| format!("`{}` cannot be made", self.state_dir.display()))?;
        let lock = Lock::take(&self.state_dir).map_err(|error| {
            let hint = error.hint();
            Failure::hinted(error, hint)
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = match self.store {
            Make::Embedded => {
                let store = Embedded::open(&self.state_dir.join("store.redb")).map_err(|error| {
                    let hint = error.hint().map(str::to_owned);
                    Failure::hinted(error, hint)
                })?;
                runtime.block_on(self.serve(store))
            }
            Make::Memory => runtime.block_on(self.serve(Memory::new())),
            Make::Etcd => Err(Failure::hinted(
                anyhow!("the store `etcd` is not supported by this version"),
                Some("use --store embedded".to_owned()),
            )),
        };
        // Blocking reads of log files may be under way; nothing depends on their end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        drop(lock);
        outcome
    }

    async fn serve(self, store: impl Store) -> Result<(), Failure> {
        let pki = self.pki.unwrap_or_else(|| self.state_dir.join("pki"));
        let identity = Identity::load(&pki.join("controller")).map_err(|error| {
            let hint = format!("make it: qctl-controller init --state-dir {}", self.state_dir.display());
            Failure::hinted(error, Some(hint))
        })?;
        let authority = if pki.join("ca.key").exists() { Some(Authority::load(&pki)?) } else { None };
        let mut driver = driver::Config::default();
        driver.policy.keep_ended_jobs = self.keep_ended_jobs;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let config = Config {
            state_dir: self.state_dir,
            listen: self.listen,
            identity,
            authority,
            driver,
            agent_wait: AGENT_WAIT,
        };
        let mut controller = Controller::start(config, store).await?;
        if let Some(path) = &self.port_file {
            let text = format!("{}\n", controller.address());
            write_durably(path, text.as_bytes()).with_context(|| format!("`{}` cannot be written", path.display()))?;
        }
        let failed = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            error = controller.failed() => Some(error),
        };
        tracing::info!("stops");
        if !controller.shutdown(GRACE).await {
            tracing::warn!("some parts did not end in time");
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
