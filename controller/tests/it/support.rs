//! A controller in this process, its clients, and an agent played by hand.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use controller::driver;
use controller::server::{Config, Controller, Listening};
use model::{
    Body, DeviceKind, History, Job, JobId, JobName, Output, Retries, Runtime, Stage, StageKind, StageName, Task,
    TaskShape, TaskState, Timestamp,
};
use proto::v1;
use proto::v1::agents_client::AgentsClient;
use proto::v1::checkpoints_client::CheckpointsClient;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::jobs_client::JobsClient;
use proto::v1::nodes_client::NodesClient;
use runtime::pki::Authority;
use runtime::tls::Role;
use store::{Memory, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use v1::agent_message::Kind as Said;
use v1::controller_message::Kind as Told;

/// How long anything may take; far beyond what it does.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits for `future`, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) controller: Controller,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), Memory::new()).await
    }

    /// One that waits for agents as long as a test may take.
    pub(crate) async fn patient() -> Self {
        Self::start_waiting(tempfile::tempdir().unwrap(), Memory::new(), LIMIT).await
    }

    pub(crate) async fn start_on(dir: tempfile::TempDir, store: impl Store) -> Self {
        Self::start_waiting(dir, store, Duration::from_millis(50)).await
    }

    async fn start_waiting(dir: tempfile::TempDir, store: impl Store, agent_wait: Duration) -> Self {
        let pki = dir.path().join("pki");
        let authority = if pki.exists() { Authority::load(&pki).unwrap() } else { Authority::create(&pki).unwrap() };
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let config = Config {
            state_dir: dir.path().to_owned(),
            identity: authority.issue(Role::Controller, "c", &local, 1).unwrap(),
            identity_dir: None,
            authority: Some(Authority::load(&pki).unwrap()),
            driver: driver::Config::default(),
            agent_wait,
            memory: controller::memory::Memory::Alone("memory"),
        };
        let listening = Listening::on("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let controller = Controller::start(config, listening, store).await.unwrap();
        Self { dir, authority, controller }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.controller.address())
    }

    pub(crate) fn channel(&self, role: Role, name: &str) -> Channel {
        let identity = self.authority.issue(role, name, &[], 1).unwrap();
        runtime::channel(&self.url(), &identity).unwrap()
    }

    pub(crate) fn user(&self) -> Channel {
        self.channel(Role::User, "ada")
    }

    pub(crate) fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.user())
    }

    pub(crate) fn nodes(&self) -> NodesClient<Channel> {
        NodesClient::new(self.channel(Role::Operator, "ada"))
    }

    pub(crate) fn checkpoints(&self) -> CheckpointsClient<Channel> {
        CheckpointsClient::new(self.user())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.user())
    }

    /// A token, as an admin makes it.
    pub(crate) async fn token(&self, role: &str, name: &str) -> String {
        let mut admin = ClusterClient::new(self.channel(Role::Admin, "root"));
        let request = v1::CreateTokenRequest { role: role.into(), name: name.into(), ttl_ms: 60_000 };
        admin.create_token(request).await.unwrap().into_inner().token
    }

    pub(crate) fn agents(&self, node: &str) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel(Role::Agent, node))
    }

    /// Stops the controller and keeps what it saved.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        assert!(self.controller.shutdown(LIMIT).await, "something did not stop");
        self.dir
    }
}

/// An agent played by hand.
pub(crate) struct Agent {
    pub(crate) out: mpsc::Sender<v1::AgentMessage>,
    pub(crate) inbound: Streaming<v1::ControllerMessage>,
    seq: u64,
    /// Told while something else was waited for.
    backlog: VecDeque<Told>,
}

pub(crate) fn hello(node: &str) -> v1::Hello {
    v1::Hello {
        node: node.into(),
        boot_id: format!("boot of {node}"),
        hostname: node.into(),
        address: "127.0.0.1".into(),
        version: "0".into(),
        device: v1::DeviceKind::Cpu.into(),
        slots: 4,
        cpus: 2,
        memory: 1 << 30,
        ..Default::default()
    }
}

impl Agent {
    /// Greets and waits for the welcome.
    pub(crate) async fn join(cluster: &Cluster, node: &str) -> Self {
        Self::greet(cluster, node, hello(node)).await.unwrap()
    }

    pub(crate) async fn greet(cluster: &Cluster, node: &str, hello: v1::Hello) -> Result<Self, tonic::Status> {
        let (out, outbound) = mpsc::channel(64);
        let inbound = cluster.agents(node).session(ReceiverStream::new(outbound)).await?.into_inner();
        let mut agent = Self { out, inbound, seq: 0, backlog: VecDeque::new() };
        agent.say(Said::Hello(hello)).await;
        match within(agent.inbound.message()).await?.and_then(|message| message.kind) {
            Some(Told::Welcome(welcome)) => assert!(welcome.epoch.is_some()),
            other => panic!("no welcome but {other:?}"),
        }
        // A beat's answer shows that the greeting was saved.
        let others = agent.beat(&[]).await;
        agent.backlog.extend(others);
        Ok(agent)
    }

    pub(crate) async fn say(&self, kind: Said) {
        self.out.send(v1::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Told {
        within(self.inbound.message()).await.unwrap().expect("the session ended").kind.unwrap()
    }

    /// Beats and waits for the answer; what else comes meanwhile is returned.
    pub(crate) async fn beat(&mut self, live: &[&str]) -> Vec<Told> {
        self.seq += 1;
        let live = live.iter().map(|id| v1::LiveAttempt { attempt: (*id).into(), state: "running".into() }).collect();
        self.say(Said::Beat(v1::Beat { seq: self.seq, live, ..Default::default() })).await;
        let mut others = Vec::new();
        loop {
            match self.next().await {
                Told::BeatAck(ack) if ack.seq == self.seq => return others,
                other => others.push(other),
            }
        }
    }

    /// Reports and waits for the acknowledgement; what else comes meanwhile is returned.
    pub(crate) async fn report(&mut self, attempt: &str, what: v1::report::What) -> Vec<Told> {
        self.seq += 1;
        let report = v1::Report { seq: self.seq, attempt: attempt.into(), what: Some(what) };
        self.say(Said::Report(report)).await;
        let mut others = Vec::new();
        loop {
            match self.next().await {
                Told::ReportAck(ack) if ack.seq == self.seq => return others,
                other => others.push(other),
            }
        }
    }

    async fn told(&mut self) -> Told {
        match self.backlog.pop_front() {
            Some(told) => told,
            None => self.next().await,
        }
    }

    /// Waits for work and says that it runs.
    pub(crate) async fn start_next(&mut self) -> v1::Assignment {
        loop {
            match self.told().await {
                Told::Prepare(assignment) => {
                    let others = self.report(&assignment.attempt, prepared(4000)).await;
                    self.backlog.extend(others);
                }
                Told::Start(assignment) => {
                    let others = self.report(&assignment.attempt, started()).await;
                    self.backlog.extend(others);
                    return assignment;
                }
                Told::Forget(_) => {}
                other => panic!("no work but {other:?}"),
            }
        }
    }

    /// Waits for something to do with a checkpoint.
    pub(crate) async fn next_errand(&mut self) -> v1::CheckpointOrder {
        loop {
            if let Told::Checkpoint(order) = self.told().await {
                return order;
            }
        }
    }

    /// Reports, and keeps what else comes meanwhile for later.
    pub(crate) async fn tell(&mut self, attempt: &str, what: v1::report::What) {
        let others = self.report(attempt, what).await;
        self.backlog.extend(others);
    }

    /// Waits for a survey and answers it.
    pub(crate) async fn answer_survey(&mut self, answer: impl FnOnce(&v1::SurveyRequest) -> v1::SurveyAnswer) {
        loop {
            if let Told::Survey(request) = self.told().await {
                let mut answer = answer(&request);
                answer.id = request.id;
                return self.say(Said::Survey(answer)).await;
            }
        }
    }
}

pub(crate) fn prepared(port: u32) -> v1::report::What {
    v1::report::What::Prepared(v1::Prepared { port })
}

pub(crate) fn started() -> v1::report::What {
    v1::report::What::Started(v1::Started {})
}

pub(crate) fn ended(path: &str, files: Vec<v1::FileRecord>) -> v1::report::What {
    let output = Some(v1::Output { path: path.into(), files, summary: "done".into() });
    v1::report::What::Ended(v1::Ended { ok: true, output, ..Default::default() })
}

pub(crate) fn submit(spec: &str) -> v1::SubmitRequest {
    v1::SubmitRequest { spec: spec.into(), source_name: "test.yaml".into(), ..Default::default() }
}

/// A file with one `run` stage.
pub(crate) fn run_spec(name: &str) -> String {
    format!("name: {name}\nruntime: {{ device: cpu }}\nstages:\n  hello: {{ run: {{ argv: [echo, hello] }} }}\n")
}

pub(crate) fn hint(status: &tonic::Status) -> String {
    status.metadata().get("qctl-hint").map(|hint| hint.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// A job of one task, which is done already if `done`.
pub(crate) fn job(name: &str, done: bool) -> Job {
    let state = if done {
        TaskState::Done { attempt: 1, at: Timestamp(1), output: Output::default() }
    } else {
        TaskState::Waiting { not_before: None }
    };
    let task = Task {
        label: "run".into(),
        closing: false,
        shape: TaskShape { nodes: 1, ranks_per_node: 1, slots_per_rank: 0, pinned: None },
        body: Body::Run { argv: vec!["true".into()] },
        retries: Retries::new(0),
        limit_ms: None,
        state,
        history: History::default(),
    };
    Job {
        id: JobId::new("j").unwrap(),
        name: JobName::new(name).unwrap(),
        owner: "ada".into(),
        priority: 0,
        submitted: Timestamp(0),
        ended: None,
        idempotency_key: None,
        spec_text: String::new(),
        runtime: Runtime { workdir: "/".into(), device: DeviceKind::Cpu, ..Runtime::default() },
        placement: Default::default(),
        stages: vec![Stage {
            name: StageName::new("run").unwrap(),
            kind: StageKind::Run,
            after: Vec::new(),
            digest: None,
            reused: None,
            tasks: vec![task],
            checkpoints: BTreeMap::new(),
        }],
        cancel: None,
        restarts: Vec::new(),
        last_event: 0,
    }
}

/// Whether a file below `dir` ends with `name`.
pub(crate) fn holds(dir: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().ends_with(name) || holds(&entry.path(), name))
}

/// Whether a file below `dir` contains `what`.
pub(crate) fn mentions(dir: &Path, what: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        let text = std::fs::read(&path).unwrap_or_default();
        text.windows(what.len()).any(|window| window == what) || mentions(&path, what)
    })
}
