//! A child process that is started again when it dies.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::v1;
use runtime::backoff::Backoff;
use runtime::files::write_durably;
use tokio::process::{Child as Running, Command};
use tokio_util::sync::CancellationToken;

use super::Shape;
use super::place::{Child, Place, Record};
use super::process::Process;
use super::supervisor::{LOOK, PATIENCE};
use crate::client::Client;
use crate::command::{beside, own};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::say;

/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(15);
/// Longest pause before a child is started again: somebody sits in front of this computer and waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long an agent's token is good for, in milliseconds: it joins at once.
const TTL: u64 = 600_000;
/// A child that lived this long has started well.
const STEADY: Duration = Duration::from_secs(30);

/// What a child is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The controller.
    Controller,
    /// The agent of a node.
    Agent {
        node: String,
        endpoint: String,
        /// Digest of the cluster's CA.
        ca_digest: String,
    },
}

impl Kind {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Controller => "controller",
            Self::Agent { node, .. } => node,
        }
    }
}

/// Keeps one child running until it is told to stop.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) shape: Shape,
    pub(super) record: Arc<Mutex<Record>>,
    /// How often it died early in a row.
    pub(super) deaths: Arc<AtomicU32>,
}

impl Keeper {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), LONGEST_PAUSE);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = match self.start().await {
                Ok(running) => self.watch(running, &stop).await,
                Err(failure) => Some(told(failure)),
            };
            let Some(why) = ended else { return };
            if began.elapsed() >= STEADY {
                backoff.reset();
                self.deaths.store(0, Ordering::Relaxed);
            }
            self.deaths.fetch_add(1, Ordering::Relaxed);
            let pause = backoff.pause();
            say(&format!("{} {why}; it is started again in {:.1} s", self.kind.name(), pause.as_secs_f64()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits until it ends, and why; `None` if it was told to.
    async fn watch(&self, mut running: Running, stop: &CancellationToken) -> Option<String> {
        tokio::select! {
            biased; // a child that ends because all ends has not died
            () = stop.cancelled() => {}
            ended = running.wait() => return Some(ended.map_or_else(|e| e.to_string(), |status| how(&status))),
        }
        if let Some(process) = running.id().and_then(Process::of) {
            process.signal(rustix::process::Signal::TERM);
            if tokio::time::timeout(GRACE, running.wait()).await.is_err() {
                say(&format!("{} did not end in {} s and is killed", self.kind.name(), GRACE.as_secs()));
                process.signal(rustix::process::Signal::KILL);
            }
        }
        // Reaped here, so that no one finds a zombie.
        let _ = running.wait().await;
        None
    }

    async fn start(&self) -> Result<Running, Failure> {
        let name = self.kind.name().to_owned();
        let mut command = Command::new(own()?);
        match &self.kind {
            Kind::Controller => self.controller(&mut command)?,
            Kind::Agent { node, endpoint, ca_digest } => self.agent(&mut command, node, endpoint, ca_digest).await?,
        }
        let log = |error: std::io::Error| Failure::because(format!("the log of {name} could not be opened"), &error);
        let errors = self.place.open_log(&name).map_err(log)?;
        let out = errors.try_clone().map_err(log)?;
        command.stdin(Stdio::null()).stdout(out).stderr(errors).current_dir(self.place.root());
        let running = command.spawn().map_err(|error| Failure::because("it could not be started", &error))?;
        self.remember(running.id().and_then(Process::of));
        Ok(running)
    }

    fn controller(&self, command: &mut Command) -> Result<(), Failure> {
        let state = self.place.controller();
        // On the port that it had, which the agents know.
        let listen = address(&self.place).unwrap_or_else(|| "127.0.0.1:0".to_owned());
        command.arg("session").arg(beside("qctl-controller")?).arg("run").arg("--state-dir").arg(&state);
        command.arg("--pki").arg(state.join("pki")).args(["--listen", &listen]);
        command.arg("--port-file").arg(self.place.address());
        Ok(())
    }

    async fn agent(&self, command: &mut Command, node: &str, endpoint: &str, digest: &str) -> Result<(), Failure> {
        let dir = self.place.agent(node);
        let pki = dir.join("pki");
        command.arg("session").arg(beside("qctl-agent")?).args(["run", "--node", node, "--controller", endpoint]);
        command.arg("--pki").arg(&pki).arg("--state-dir").arg(dir.join("state"));
        command.args(["--address", "127.0.0.1", "--device", self.shape.device.name()]);
        command.args(["--slots", &self.shape.slots.to_string()]);
        if !pki.join("cert.pem").exists() {
            // The CA is here: the agent need not ask the controller for it.
            let known = self.place.controller().join("pki/ca.pem");
            let copied = std::fs::create_dir_all(&pki)
                .and_then(|()| std::fs::read(&known))
                .and_then(|ca| write_durably(&pki.join("ca.pem"), &ca));
            copied.map_err(|error| Failure::because("the CA could not be copied", &error))?;
            // By the environment: command lines can be read by everybody.
            command.env("QCTL_JOIN_TOKEN", token(&self.context(endpoint), node).await?).env("QCTL_CA_DIGEST", digest);
        }
        Ok(())
    }

    /// As whom the agents are let in.
    fn context(&self, endpoint: &str) -> Context {
        Context { endpoint: endpoint.to_owned(), identity: identity(&self.place, &user()) }
    }

    fn remember(&self, process: Option<Process>) {
        let Some(process) = process else { return };
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.kind.name().to_owned();
        record.children.retain(|child| child.name != name);
        record.children.push(Child { name, process });
        if let Err(error) = self.place.save(&record) {
            say(&format!("warning: what runs could not be recorded: {error}"));
        }
    }
}

/// Makes the controller's identities, or finds them; returns the CA's digest.
pub(super) async fn init(place: &Place, user: &str) -> Result<String, Failure> {
    let state = place.controller();
    let args = ["init".as_ref(), "--state-dir".as_ref(), state.as_os_str(), "--user".as_ref(), user.as_ref()];
    ask_controller(&args).await?;
    let path = state.join("pki/ca.pem");
    let ca = std::fs::read_to_string(&path)
        .map_err(|error| Failure::because(format!("`{}` could not be read", path.display()), &error))?;
    Ok(runtime::pki::digest(&ca))
}

async fn token(context: &Context, node: &str) -> Result<String, Failure> {
    let mut client = Client::of(context)?;
    let began = Instant::now();
    let request = v1::CreateTokenRequest { role: "agent".to_owned(), name: node.to_owned(), ttl_ms: TTL };
    loop {
        match client.cluster.create_token(request.clone()).await {
            Ok(made) => return Ok(made.into_inner().token),
            // The controller may be starting again.
            Err(status) if status.code() == tonic::Code::Unavailable && began.elapsed() < PATIENCE => {
                tokio::time::sleep(LOOK).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

async fn ask_controller(args: &[&std::ffi::OsStr]) -> Result<String, Failure> {
    let program: PathBuf = beside("qctl-controller")?;
    let output = Command::new(&program).args(args).stdin(Stdio::null()).output().await;
    let output =
        output.map_err(|error| Failure::because(format!("`{}` could not be run", program.display()), &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    Err(Failure::new(Exit::Failed, format!("qctl-controller {}: {said}", how(&output.status))))
}

/// The address that the controller wrote.
pub(super) fn address(place: &Place) -> Option<String> {
    let text = std::fs::read_to_string(place.address()).ok()?;
    let address: std::net::SocketAddr = text.trim().parse().ok()?;
    Some(address.to_string())
}

fn how(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn told(failure: Failure) -> String {
    match failure {
        Failure::Told { message, .. } => format!("could not be started: {message}"),
        Failure::Said(_) | Failure::ReaderGone => "could not be started".to_owned(),
    }
}

/// The user's name as it may stand in a certificate.
pub(super) fn user() -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = std::env::var("USER").unwrap_or_default();
    let usable = !name.is_empty() && name.len() <= 63 && name.chars().all(fits) && !name.starts_with('.');
    if usable { name } else { "dev".to_owned() }
}

/// The identity that the context names.
pub(super) fn identity(place: &Place, user: &str) -> PathBuf {
    place.controller().join("pki/users").join(Path::new(user))
}
