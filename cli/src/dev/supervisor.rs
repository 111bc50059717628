//! The process that holds a controller and its agents.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::v1;
use runtime::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::child::{self, Keeper, Kind};
use super::place::{Place, Record};
use super::process::Process;
use super::{Shape, jobs};
use crate::client::Client;
use crate::context::{self, Context};
use crate::failure::{Exit, Failure};
use crate::output::say;
use crate::text::plural;

/// How long all may take to be ready.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Deaths in a row after which a child will not start.
const DEATHS: u32 = 3;
/// Longest that children take to end, with the margin of their own grace.
const ENDING: Duration = Duration::from_secs(25);

/// Runs all until a signal.
pub(super) async fn run(place: Place, shape: Shape, stop_ranks: bool) -> Result<(), Failure> {
    place.prepare()?;
    let Some(held) = place.hold()? else {
        say(&format!("qctl dev runs already{}", whose(&place)));
        return Ok(());
    };
    let mut signals = Signals::new().map_err(|error| Failure::because("signals cannot be heard", &error))?;
    end_leftovers(&place).await;
    place.forget_controller()?;
    let mut cluster = Cluster::new(place, shape);
    let started = tokio::select! {
        biased; // a signal wins over a slow start
        () = signals.any() => Err(Failure::Said(Exit::Interrupted)),
        started = cluster.start() => started,
    };
    let outcome = match started {
        Ok(context) => {
            cluster.tell_ready(&context);
            signals.any().await;
            say("stopping");
            jobs::settle(&cluster.place, stop_ranks).await;
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    cluster.stop().await;
    cluster.place.forget_controller()?;
    drop(held);
    outcome
}

/// ` (process 42, https://…)` of the one that runs.
pub(super) fn whose(place: &Place) -> String {
    let Some(record) = place.record() else { return String::new() };
    let endpoint = if record.endpoint.is_empty() { String::new() } else { format!(", {}", record.endpoint) };
    format!(" (process {}{endpoint})", record.supervisor.pid)
}

/// Ends children that a killed supervisor left. Ranks are not among them.
pub(super) async fn end_leftovers(place: &Place) {
    let Some(record) = place.record() else { return };
    // Agents first, as in an orderly stop.
    for child in record.children.iter().rev().filter(|child| child.process.lives()) {
        say(&format!("ending {} (process {}), left by an earlier `qctl dev`", child.name, child.process.pid));
        child.process.end(Duration::from_secs(15)).await;
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

struct Cluster {
    place: Place,
    shape: Shape,
    record: Arc<Mutex<Record>>,
    controller: Tasks,
    agents: Tasks,
    /// Early deaths in a row, by name.
    deaths: Vec<(String, Arc<AtomicU32>)>,
}

impl Cluster {
    fn new(place: Place, shape: Shape) -> Self {
        let record = Record {
            supervisor: Process::own(),
            agents: shape.agents,
            slots: shape.slots,
            device: shape.device.name().to_owned(),
            ..Record::default()
        };
        Self {
            place,
            shape,
            record: Arc::new(Mutex::new(record)),
            controller: Tasks::new(),
            agents: Tasks::new(),
            deaths: Vec::new(),
        }
    }

    /// Starts the controller, then the agents, and waits until all are ready.
    async fn start(&mut self) -> Result<Context, Failure> {
        self.change(|_| {})?;
        let user = child::user();
        let ca_digest = child::init(&self.place, &user).await?;
        let controller = self.controller.clone();
        self.keep(&controller, "controller", Kind::Controller);
        let endpoint = format!("https://{}", self.listening().await?);
        let context = Context { endpoint: endpoint.clone(), identity: child::identity(&self.place, &user) };
        self.change(|record| record.endpoint.clone_from(&endpoint))?;
        let agents = self.agents.clone();
        for number in 1..=self.shape.agents {
            let node = format!("node-{number}");
            let kind = Kind::Agent { node, endpoint: endpoint.clone(), ca_digest: ca_digest.clone() };
            self.keep(&agents, "agent", kind);
        }
        self.all_ready(&context).await?;
        context::save(self.place.root(), &context)
            .map_err(|error| Failure::because("the context could not be written", &error))?;
        self.change(|record| record.ready = true)?;
        Ok(context)
    }

    fn keep(&mut self, owner: &Tasks, task: &'static str, kind: Kind) {
        let deaths = Arc::new(AtomicU32::new(0));
        self.deaths.push((kind.name().to_owned(), deaths.clone()));
        let keeper =
            Keeper { kind, place: self.place.clone(), shape: self.shape.clone(), record: self.record.clone(), deaths };
        owner.spawn(task, keeper.run(owner.stop_token()));
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        self.place.save(&record).map_err(|error| Failure::because("what runs could not be recorded", &error))
    }

    async fn listening(&self) -> Result<String, Failure> {
        let began = Instant::now();
        loop {
            if let Some(address) = child::address(&self.place) {
                return Ok(address);
            }
            self.check(began, "the controller does not listen")?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn all_ready(&self, context: &Context) -> Result<(), Failure> {
        let mut client = Client::of(context)?;
        let began = Instant::now();
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(5), client.nodes.list(v1::ListNodesRequest {})).await;
            let nodes = match asked {
                Ok(Ok(reply)) => reply.into_inner().nodes,
                // The controller may be starting again.
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            let ready = |number: &u32| {
                let id = format!("node-{number}");
                nodes.iter().any(|node| node.id == id && node.phase == "ready")
            };
            let missing: Vec<String> =
                (1..=self.shape.agents).filter(|n| !ready(n)).map(|n| format!("node-{n}")).collect();
            if missing.is_empty() {
                return Ok(());
            }
            self.check(began, &format!("not ready: {}", missing.join(", ")))?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fails if a child keeps dying, or if it takes too long.
    fn check(&self, began: Instant, what: &str) -> Result<(), Failure> {
        let dying = self.deaths.iter().find(|(_, deaths)| deaths.load(Ordering::Relaxed) >= DEATHS);
        if let Some((name, _)) = dying {
            let mut message = format!("{name} does not start; the end of its log:");
            for line in self.place.log_tail(name, 8) {
                message.push_str(&format!("\n  {line}"));
            }
            let hint = format!("the whole log: {}", self.place.log(name).display());
            return Err(Failure::new(Exit::Failed, message).hint(hint));
        }
        if began.elapsed() >= PATIENCE {
            let logs = self.place.root().join("logs");
            let failure = Failure::new(Exit::Failed, format!("{what} after {} s", PATIENCE.as_secs()));
            return Err(failure.hint(format!("see the logs in {}", logs.display())));
        }
        Ok(())
    }

    fn tell_ready(&self, context: &Context) {
        let agents = plural(usize::try_from(self.shape.agents).unwrap_or(0), "agent");
        let slots = plural(usize::try_from(self.shape.slots).unwrap_or(0), "slot");
        say(&format!("ready: {agents} of {slots} ({}), controller at {}", self.shape.device.name(), context.endpoint));
        say(&format!("logs: {}", self.place.root().join("logs").display()));
        say("Ctrl-C stops it; ranks that run are left alive");
    }

    /// Agents first: they report to a controller that still listens.
    async fn stop(&self) {
        if !self.agents.shutdown(ENDING).await || !self.controller.shutdown(ENDING).await {
            say("warning: not all processes ended in time");
        }
    }
}
