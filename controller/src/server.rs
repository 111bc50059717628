//! All of a controller on one port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::JobId;
use planner::World;
use proto::v1::agents_server::AgentsServer;
use proto::v1::checkpoints_server::CheckpointsServer;
use proto::v1::cluster_server::ClusterServer;
use proto::v1::jobs_server::JobsServer;
use proto::v1::nodes_server::NodesServer;
use runtime::Tasks;
use runtime::clock::now_ms;
use runtime::pki::Authority;
use runtime::shown::{Shown, ShownError};
use runtime::tls::{Identity, install_provider};
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::layer::util::Stack;

use crate::access::GateLayer;
use crate::api::checkpoints::Checkpoints;
use crate::api::cluster::Cluster;
use crate::api::jobs::Jobs;
use crate::api::nodes::Nodes;
use crate::audit::Audit;
use crate::changes::Changes;
use crate::compile::Compiler;
use crate::driver::{self, Driver, Handle};
use crate::lines::{Accepting, Lines};
use crate::logs::Logs;
use crate::memory::Memory;
use crate::renewal::Renewal;
use crate::sessions::{Errands, Progress, Registry, Sessions, Surveys};

/// Largest message that is taken, in bytes.
const MESSAGE: usize = 4 << 20;
/// Streams of one connection.
const STREAMS: u32 = 256;
/// Longest list of headers of a call, in bytes.
const HEADERS: u32 = 16 << 10;
/// Connections that may wait to be served.
const WAITING: usize = 64;
/// How often certificates that have run out are looked for.
const EXPIRY: Duration = Duration::from_secs(15);
/// How often files of forgotten jobs are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// What a controller is made of.
#[derive(Debug)]
pub struct Config {
    /// Where logs and tokens lie.
    pub state_dir: PathBuf,
    /// Who this controller is.
    pub identity: Identity,
    /// Where that identity lies, if it is renewed from there.
    pub identity_dir: Option<PathBuf>,
    /// Signs agents that join.
    pub authority: Option<Authority>,
    /// How the driver batches and leads.
    pub driver: driver::Config,
    /// How long a submission waits for the first agent.
    pub agent_wait: Duration,
    /// What is remembered where, and what is wrong with that.
    pub memory: Memory,
}

/// A port that is listened on, and not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] if it is taken.
    pub async fn on(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address that is really listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Why a controller did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("`{address}` cannot be listened on")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The driver could not start, or ended by itself.
    #[error("the driver stopped")]
    Driver(#[source] driver::Error),
    /// The controller's identity cannot be used.
    #[error("the controller's identity cannot be used")]
    Identity(#[source] ShownError),
    /// The services could not be set up, or ended by themselves.
    #[error("the services stopped")]
    Serve(#[source] tonic::transport::Error),
}

impl Error {
    /// Returns the next thing to try, printed as `hint: …`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Driver(error) => error.hint(),
            Self::Identity(_) => Some("make it anew: qctl-controller init --help".to_owned()),
            Self::Listen { .. } | Self::Serve(_) => None,
        }
    }
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    address: SocketAddr,
    driver: Handle,
    driving: Tasks,
    serving: Tasks,
    streams: Tasks,
    auditing: Tasks,
    drives: JoinHandle<Result<(), driver::Error>>,
    serves: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Controller {
    /// Leads the store, or follows who does, and serves.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store cannot be led or the services cannot be set up.
    pub async fn start<S: Store>(config: Config, listening: Listening, store: S) -> Result<Self, Error> {
        let (agents, changes) = (Arc::new(Registry::default()), Arc::new(Changes::default()));
        let opened = Driver::open(config.driver.clone(), store, agents.clone(), changes.clone()).await;
        let (driver, handle) = opened.map_err(Error::Driver)?;
        let Listening { listener, address } = listening;
        let (driving, serving, streams) = (Tasks::new(), Tasks::new(), Tasks::new());
        let drives = driving.spawn("driver", driver.run(driving.stop_token()));
        let logs = Arc::new(Logs::new(config.state_dir.join("logs")));
        streams.spawn("sweep", sweep(logs.clone(), handle.clone(), streams.clone()));
        let (auditing, (audit, writer)) = (Tasks::new(), Audit::open(&config.state_dir.join("audit")));
        auditing.spawn("audit", writer.run(auditing.stop_token()));
        let rim = Rim { driver: handle.clone(), agents, changes, logs, streams: streams.clone(), audit: audit.clone() };
        let (health, healthy) = tonic_health::server::health_reporter();
        install_provider();
        let shown = Shown::new(&config.identity).map_err(Error::Identity)?;
        let tls = shown.server(&config.identity.ca).map_err(Error::Identity)?;
        let (config_dir, authority) = (config.identity_dir.clone(), config.authority.map(Arc::new));
        let config = Config { authority: None, ..config };
        let router = rim.router(config, authority.clone(), healthy);
        let (lines, (out, accepted)) = (Lines::default(), mpsc::channel(WAITING));
        let accepting = Accepting { listener, tls, lines: lines.clone(), audit, tasks: serving.clone(), out };
        if let Some(dir) = config_dir {
            let renewal = Renewal { dir, authority, shown };
            serving.spawn("renewal", renewal.run(serving.stop_token()));
        }
        serving.spawn("accept", accepting.run(serving.stop_token()));
        let incoming = ReceiverStream::new(accepted);
        streams.spawn("expiry", expiry(handle.clone(), lines.clone(), streams.stop_token()));
        streams.spawn("standing", standing(handle.clone(), health, lines, streams.stop_token()));
        let stopped = serving.stop_token().cancelled_owned();
        let serves = serving.spawn("serve", router.serve_with_incoming_shutdown(incoming, stopped));
        tracing::info!(%address, "serves");
        Ok(Self { address, driver: handle, driving, serving, streams, auditing, drives, serves })
    }

    /// The address that is really listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The driver, for looking at the world.
    #[must_use]
    pub fn driver(&self) -> &Handle {
        &self.driver
    }

    /// Waits until something ends by itself.
    pub async fn failed(&mut self) -> Error {
        let died = || driver::Error::Stopped;
        tokio::select! {
            ended = &mut self.drives => match ended {
                Ok(Err(error)) => Error::Driver(error),
                Ok(Ok(())) | Err(_) => Error::Driver(died()),
            },
            ended = &mut self.serves => match ended {
                Ok(Err(error)) => Error::Serve(error),
                Ok(Ok(())) | Err(_) => Error::Driver(died()),
            },
        }
    }

    /// Ends in order: no new calls, then the streams, then the driver.
    ///
    /// Returns whether all had ended within `grace`.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.serving.stop_token().cancel();
        let streams = self.streams.shutdown(grace).await;
        let serving = self.serving.shutdown(grace).await;
        let driving = self.driving.shutdown(grace).await;
        let auditing = self.auditing.shutdown(grace).await;
        streams && serving && driving && auditing
    }
}

/// What the services share.
struct Rim {
    driver: Handle,
    agents: Arc<Registry>,
    changes: Arc<Changes>,
    logs: Arc<Logs>,
    streams: Tasks,
    audit: Audit,
}

/// All services, behind the gate.
type Gated = Router<Stack<GateLayer, tower::layer::util::Identity>>;

impl Rim {
    fn router(self, config: Config, authority: Option<Arc<Authority>>, healthy: HealthServer<impl Health>) -> Gated {
        let progress = Arc::new(Progress::default());
        let surveys = Surveys::new(self.agents.clone());
        let errands = Errands::new(self.agents.clone());
        let sessions = Sessions {
            driver: self.driver.clone(),
            agents: self.agents.clone(),
            progress: progress.clone(),
            surveys: surveys.clone(),
            errands: errands.clone(),
            changes: self.changes.clone(),
            logs: self.logs.clone(),
            tasks: self.streams.clone(),
        };
        let jobs = Jobs {
            driver: self.driver.clone(),
            compiler: Compiler::new(self.driver.clone(), self.agents, surveys, config.agent_wait),
            progress: progress.clone(),
            changes: self.changes,
            logs: self.logs,
            tasks: self.streams,
        };
        let cluster = Cluster {
            driver: self.driver.clone(),
            authority,
            started_ms: now_ms(),
            memory: config.memory,
            audit: self.audit.clone(),
        };
        let described = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
            .build_v1();
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(Some(STREAMS))
            .initial_stream_window_size(Some(4 << 20))
            .initial_connection_window_size(Some(8 << 20))
            .http2_max_header_list_size(Some(HEADERS))
            .layer(GateLayer::new(self.driver.clone(), self.audit));
        let mut router = server
            .add_service(healthy)
            .add_service(AgentsServer::new(sessions).max_decoding_message_size(MESSAGE))
            .add_service(JobsServer::new(jobs).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
            .add_service(NodesServer::new(Nodes { driver: self.driver.clone(), progress }))
            .add_service(CheckpointsServer::new(Checkpoints { driver: self.driver, errands }))
            .add_service(ClusterServer::new(cluster).max_decoding_message_size(64 << 10));
        match described {
            Ok(reflection) => router = router.add_service(reflection),
            Err(error) => tracing::warn!(%error, "the reflection service is off"),
        }
        router
    }
}

/// Ends the connections of certificates that were taken back, at once, and of those that have run out.
async fn expiry(driver: Handle, lines: Lines, stop: CancellationToken) {
    let mut changes = driver.board().changes();
    loop {
        let seconds = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
        lines.cut_holders(|peer| seconds > peer.valid.1 || driver.board().revoked(peer));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRY) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Says whether this controller leads to whoever looks for the one that does; and once it does no more, ends all
/// connections, so that their other ends look for the new one.
async fn standing(driver: Handle, health: HealthReporter, lines: Lines, stop: CancellationToken) {
    let mut epochs = driver.epochs();
    loop {
        epochs.borrow_and_update();
        if driver.leads().is_ok() {
            health.set_serving::<JobsServer<Jobs>>().await;
        } else {
            health.set_not_serving::<JobsServer<Jobs>>().await;
            lines.cut();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = epochs.changed() => if changed.is_err() { return },
        }
    }
}

/// Jobs whose logs are wanted: also those of which something runs that this controller does not know.
fn known(world: &World) -> BTreeSet<JobId> {
    let strangers = world.quarantined.iter().map(|(_, attempt)| attempt.task.job.clone());
    world.jobs.keys().cloned().chain(strangers).collect()
}

/// Removes log files of forgotten jobs, now and then.
async fn sweep(logs: Arc<Logs>, driver: Handle, streams: Tasks) {
    let stop = streams.stop_token();
    loop {
        if let Ok(known) = driver.read(known).await {
            let logs = logs.clone();
            let sweep = move || logs.sweep(|job| known.contains(job), SystemTime::now());
            let swept = tokio::task::spawn_blocking(sweep).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!(%error, "some old logs could not be removed");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
