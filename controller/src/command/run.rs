//! `qctl-controller run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use controller::driver;
use controller::lock::Lock;
use controller::memory;
use controller::server::{self, Config, Controller, Listening};
use planner::Policy;
use runtime::Tasks;
use runtime::files::write_durably;
use runtime::pki::Authority;
use runtime::tls::Identity;
use runtime::trace;
use store::{Embedded, Memory, Store};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::etcd::{self, EtcdFlags};

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
    /// With an etcd that several controllers share: how agents, users and they reach this one [default: https:// and
    /// the address that is listened on]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    #[command(flatten)]
    etcd: EtcdFlags,
    /// Traces as JSON lines
    #[arg(long)]
    log_json: bool,
    /// Ended jobs that are kept
    #[arg(long, default_value_t = 1000, value_name = "N")]
    keep_ended_jobs: usize,
    #[command(flatten)]
    silence: Silence,
}

/// How long a silent node is waited for, each in seconds.
#[derive(Clone, Debug, Args)]
struct Silence {
    /// Silence after which a node gets no new work, in seconds
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    suspect_after: u64,
    /// Silence after which a node counts as lost, and its work may run elsewhere, in seconds
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(2..=86_400))]
    lost_after: u64,
    /// What a lost node's ranks are given beyond that to finish a save, once their peers have stopped, in seconds
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    fence_margin: u64,
}

impl Silence {
    /// Puts the limits into a policy.
    fn apply(&self, policy: &mut Policy) -> Result<(), Failure> {
        if self.suspect_after >= self.lost_after {
            let (suspect, lost) = (self.suspect_after, self.lost_after);
            let hint =
                "a node is suspect first and lost later: give `--lost-after` more seconds than `--suspect-after`";
            return Err(Failure::hinted(
                anyhow!("a node cannot be suspect after {suspect} s and lost after {lost} s"),
                Some(hint.to_owned()),
            ));
        }
        policy.suspect_after_ms = self.suspect_after * 1_000;
        policy.lost_after_ms = self.lost_after * 1_000;
        policy.fence_margin_ms = self.fence_margin * 1_000;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Make {
    /// One file in the state directory
    Embedded,
    /// Nothing outlives the process
    Memory,
    /// An etcd, which several controllers share: one leads, the others follow
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
        more_files();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = match self.store {
            Make::Embedded => {
                let store = Embedded::open(&self.state_dir.join("store.redb")).map_err(etcd::told)?;
                runtime.block_on(self.alone(store, "a file of this controller"))
            }
            Make::Memory => runtime.block_on(self.alone(Memory::new(), "nowhere: nothing outlives this controller")),
            Make::Etcd => runtime.block_on(self.among_others()),
        };
        // Blocking reads of log files may be under way; nothing depends on their end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        drop(lock);
        outcome
    }

    /// With a store that is this controller's alone.
    async fn alone(self, store: impl Store, told: &'static str) -> Result<(), Failure> {
        let listening = Listening::on(self.listen).await?;
        let driver = driver::Config::default();
        self.serve(listening, driver, store, memory::Memory::Alone(told)).await
    }

    /// With a store that other controllers share.
    async fn among_others(self) -> Result<(), Failure> {
        let listening = Listening::on(self.listen).await?;
        let address = etcd::advertised(self.advertise.clone(), listening.address())?;
        runtime::tls::install_provider();
        let (store, keeper) = self.etcd.open(address)?;
        // So that what is saved together mostly fits one of etcd's transactions.
        let most_writes = 90;
        let driver = driver::Config { leader: Some(store.leader()), most_writes, ..driver::Config::default() };
        let sight = keeper.sight();
        let keeping = Tasks::new();
        keeping.spawn("keeper", keeper.run(keeping.stop_token().cancelled_owned()));
        let served = self.serve(listening, driver, store, memory::Memory::Etcd(sight)).await;
        // Last: until the lead is handed over its lease is kept.
        keeping.shutdown(GRACE).await;
        served
    }

    async fn serve(
        self,
        listening: Listening,
        mut driver: driver::Config,
        store: impl Store,
        memory: memory::Memory,
    ) -> Result<(), Failure> {
        let pki = self.pki.unwrap_or_else(|| self.state_dir.join("pki"));
        let identity = Identity::load(&pki.join("controller")).map_err(|error| {
            let hint = format!("make it: qctl-controller init --state-dir {}", self.state_dir.display());
            Failure::hinted(error, Some(hint))
        })?;
        let authority = if pki.join("ca.key").exists() { Some(Authority::load(&pki)?) } else { None };
        driver.policy.keep_ended_jobs = self.keep_ended_jobs;
        self.silence.apply(&mut driver.policy)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let config = Config {
            state_dir: self.state_dir,
            identity,
            identity_dir: Some(pki.join("controller")),
            authority,
            driver,
            agent_wait: AGENT_WAIT,
            memory,
        };
        let mut controller = Controller::start(config, listening, store).await.map_err(ended)?;
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
            Some(error) => Err(ended(error)),
            None => Ok(()),
        }
    }
}

/// As many open files as the system allows: each connection is one.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    // Not fatal: fewer may connect.
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

fn ended(error: server::Error) -> Failure {
    let hint = error.hint();
    Failure::hinted(error, hint)
}
