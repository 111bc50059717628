//! A controller that is only a wire, and an agent's real binary on the other end.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_in_result,
    dead_code,
    unreachable_pub,
    missing_debug_implementations
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::shim::pool::{RECORDS, Reader, Record};
use agent::shim::proc;
use agent::shim::record::{self, Started};
use proto::v1::agents_server::{Agents, AgentsServer};
use proto::v1::controller_message::Kind as Say;
use proto::v1::{
    AgentMessage, BeatAck, ControllerMessage, Epoch, Hello, LogChunk, LogHeld, Progress, Report, ReportAck,
    SurveyAnswer, Welcome, agent_message::Kind, report::What,
};
use runtime::Tasks;
use runtime::pki::Authority;
use runtime::tls::{ClientAuth, Role, server_tls};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Everything is expected to happen well within this, on a loaded machine too.
pub const SOON: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Seen {
    pub hellos: Vec<Hello>,
    pub reports: Vec<Report>,
    /// When each report came.
    pub at: Vec<Instant>,
    pub progress: Vec<Progress>,
    pub surveys: Vec<SurveyAnswer>,
    pub logs: BTreeMap<(String, String), Vec<u8>>,
    pub done: BTreeSet<(String, String)>,
    pub live: Vec<String>,
    pub beats: u64,
    out: Option<mpsc::Sender<Result<ControllerMessage, Status>>>,
    /// Reports are taken but not acknowledged.
    pub deaf: bool,
    pub term: u64,
}

#[derive(Clone, Default)]
pub struct Controller(pub Arc<Mutex<Seen>>);

impl Controller {
    pub fn epoch(&self) -> Option<Epoch> {
        Some(Epoch { incarnation: 1, term: self.0.lock().unwrap().term })
    }

    /// Says something to the agent, once it is connected.
    pub async fn say(&self, kind: Say) {
        let begun = Instant::now();
        loop {
            let out = self.0.lock().unwrap().out.clone();
            if let Some(out) = out
                && out.send(Ok(ControllerMessage { kind: Some(kind.clone()) })).await.is_ok()
            {
                return;
            }
            assert!(begun.elapsed() < SOON, "the agent is not connected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the session from this side.
    pub fn hang_up(&self) {
        self.0.lock().unwrap().out = None;
    }

    /// Waits until `find` finds something in what was seen.
    pub async fn wait<T>(&self, what: &str, mut find: impl FnMut(&Seen) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(&self.0.lock().unwrap()) {
                return found;
            }
            if begun.elapsed() > SOON {
                let seen = self.0.lock().unwrap();
                panic!("no {what}; reports: {:#?}; live: {:?}", seen.reports, seen.live);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a report of `attempt` that `find` likes.
    pub async fn report<T>(&self, attempt: &str, what: &str, mut find: impl FnMut(&What) -> Option<T>) -> T {
        self.wait(&format!("report `{what}` of {attempt}"), |seen| {
            seen.reports.iter().filter(|r| r.attempt == attempt).find_map(|r| find(r.what.as_ref()?))
        })
        .await
    }

    pub async fn ended(&self, attempt: &str) -> proto::v1::Ended {
        self.report(attempt, "ended", |what| match what {
            What::Ended(ended) => Some(ended.clone()),
            _ => None,
        })
        .await
    }

    pub async fn failed(&self, attempt: &str) -> proto::v1::Failure {
        self.report(attempt, "failed", |what| match what {
            What::Failed(failure) => Some(failure.clone()),
            _ => None,
        })
        .await
    }

    pub async fn port(&self, attempt: &str) -> u32 {
        self.report(attempt, "prepared", |what| match what {
            What::Prepared(prepared) => Some(prepared.port),
            _ => None,
        })
        .await
    }

    pub async fn started(&self, attempt: &str) {
        self.report(attempt, "started", |what| matches!(what, What::Started(_)).then_some(())).await;
    }

    pub fn count(&self, attempt: &str, is: impl Fn(&What) -> bool) -> usize {
        let seen = self.0.lock().unwrap();
        let distinct: BTreeSet<u64> = seen
            .reports
            .iter()
            .filter(|r| r.attempt == attempt && r.what.as_ref().is_some_and(&is))
            .map(|r| r.seq)
            .collect();
        distinct.len()
    }
}

#[tonic::async_trait]
impl Agents for Controller {
    type SessionStream = ReceiverStream<Result<ControllerMessage, Status>>;
    type PushLogsStream = ReceiverStream<Result<LogHeld, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::channel(64);
        let this = self.clone();
        Tasks::new().spawn("session", async move {
            while let Ok(Some(message)) = inbound.message().await {
                let answer = this.hear(message.kind.unwrap(), &out);
                if let Some(kind) = answer
                    && out.send(Ok(ControllerMessage { kind: Some(kind) })).await.is_err()
                {
                    return;
                }
                let gone = this.0.lock().unwrap().out.as_ref().is_none_or(|o| !o.same_channel(&out));
                if gone {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn push_logs(&self, request: Request<Streaming<LogChunk>>) -> Result<Response<Self::PushLogsStream>, Status> {
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::channel(64);
        let this = self.clone();
        Tasks::new().spawn("logs", async move {
            while let Ok(Some(chunk)) = inbound.message().await {
                let offset = this.keep(&chunk);
                let held = LogHeld { attempt: chunk.attempt, source: chunk.source, offset };
                if out.send(Ok(held)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

impl Controller {
    fn hear(&self, kind: Kind, out: &mpsc::Sender<Result<ControllerMessage, Status>>) -> Option<Say> {
        let epoch = self.epoch();
        let mut seen = self.0.lock().unwrap();
        match kind {
            Kind::Hello(hello) => {
                seen.hellos.push(hello);
                seen.out = Some(out.clone());
                Some(Say::Welcome(Welcome { epoch, beat_interval_ms: 200 }))
            }
            Kind::Beat(beat) => {
                seen.live = beat.live.into_iter().map(|l| l.attempt).collect();
                seen.beats += 1;
                Some(Say::BeatAck(BeatAck { seq: beat.seq, epoch }))
            }
            Kind::Report(report) => {
                let seq = report.seq;
                seen.reports.push(report);
                seen.at.push(Instant::now());
                (!seen.deaf).then_some(Say::ReportAck(ReportAck { seq }))
            }
            Kind::Progress(progress) => {
                seen.progress.push(progress);
                None
            }
            Kind::Survey(answer) => {
                seen.surveys.push(answer);
                None
            }
            Kind::Checkpoint(_) => None,
        }
    }

    fn keep(&self, chunk: &LogChunk) -> u64 {
        let mut seen = self.0.lock().unwrap();
        let key = (chunk.attempt.clone(), chunk.source.clone());
        if chunk.done {
            seen.done.insert(key.clone());
        }
        let held = seen.logs.entry(key).or_default();
        if usize::try_from(chunk.offset).unwrap() == held.len() {
            held.extend_from_slice(&chunk.data);
        }
        u64::try_from(held.len()).unwrap()
    }
}

/// A controller, an agent, and a directory for all they need.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub controller: Controller,
    pub address: SocketAddr,
    agent: Option<Child>,
    tasks: Tasks,
    env: Vec<(&'static str, &'static str)>,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with_env(&[]).await
    }

    /// An agent with more variables.
    pub async fn with_env(env: &[(&'static str, &'static str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let authority = Authority::create(&dir.path().join("ca")).unwrap();
        authority.issue(Role::Agent, "n1", &[], 1).unwrap().save(&pki).unwrap();
        let identity = authority.issue(Role::Controller, "c1", &["127.0.0.1".parse().unwrap()], 1).unwrap();
        let controller = Controller::default();
        controller.0.lock().unwrap().term = 1;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let server = Server::builder()
            .tls_config(server_tls(&identity, ClientAuth::Required))
            .unwrap()
            .add_service(AgentsServer::new(controller.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tasks.spawn("server", server);
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_qctl-shim"), bin.join("qctl-shim")).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let mut rig = Self { dir, controller, address, agent: None, tasks, env: env.to_vec() };
        rig.start_agent();
        rig
    }

    pub fn start_agent(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_qctl-agent"))
            .args(["run", "--node", "n1", "--address", "127.0.0.1", "--device", "cpu", "--slots", "4"])
            .args(["--controller", &format!("https://{}", self.address)])
            .arg("--pki")
            .arg(path("pki"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--bin-dir")
            .arg(path("bin"))
            .env("QCTL_LOG", "info")
            .envs(self.env.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    /// SIGKILL, as a crash would.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// SIGTERM, as a service manager would; how it ended.
    pub fn terminate_agent(&mut self) -> std::process::ExitStatus {
        let mut agent = self.agent.take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        agent.wait().unwrap()
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn seat(&self, attempt: &str) -> PathBuf {
        self.dir.path().join("state/attempts").join(attempt)
    }

    /// Makes an executable script.
    pub fn script(&self, path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn tool(&self, name: &str, body: &str) {
        self.script(&self.dir.path().join("bin").join(name), &format!("#!/bin/sh\n{body}\n"));
    }

    /// The directory of a job's newest pool.
    pub fn pool(&self, attempt: &str) -> Option<PathBuf> {
        let job = attempt.split('.').next().unwrap();
        let pools = std::fs::read_dir(self.dir.path().join("state/pools")).into_iter().flatten().flatten();
        let of_job = |p: &PathBuf| p.file_stem().is_some_and(|stem| stem == job);
        let mut found: Vec<PathBuf> = pools.map(|entry| entry.path()).filter(of_job).collect();
        found.sort();
        found.pop()
    }

    /// What the shims of a job's pool have written.
    pub fn records(&self, attempt: &str) -> Vec<Record> {
        let Some(pool) = self.pool(attempt) else { return Vec::new() };
        Reader::open(&pool.join(RECORDS)).and_then(|mut reader| reader.turn()).unwrap_or_default()
    }

    /// Process numbers of an attempt's children, in launch order.
    pub fn children(&self, attempt: &str) -> Vec<i32> {
        let pooled = self.records(attempt).into_iter().find_map(|record| match record {
            Record::Started { attempt: of, id, .. } if of == attempt => Some(id.pid),
            _ => None,
        });
        let started: Option<Started> = record::read(&self.seat(attempt).join(record::STARTED)).unwrap();
        let seated = started.map(|s| s.children.iter().map(|c| c.id.pid).collect()).unwrap_or_default();
        pooled.map_or(seated, |pid| vec![pid])
    }

    pub fn shim(&self, attempt: &str) -> i32 {
        let dir = self.pool(attempt).unwrap_or_else(|| self.seat(attempt));
        let shim: Option<record::Shim> = record::read(&dir.join(record::SHIM)).unwrap();
        shim.unwrap().id.pid
    }

    pub fn kill(&self, pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

pub fn lives(pid: i32) -> bool {
    proc::stat(pid).is_some_and(|s| !s.is_dead())
}

/// Waits for a condition on this host.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill_agent();
        for entry in std::fs::read_dir(self.dir.path().join("state/attempts")).into_iter().flatten().flatten() {
            let shim: Option<record::Shim> = record::read(&entry.path().join(record::SHIM)).ok().flatten();
            let Some(shim) = shim else { continue };
            let started: Started = record::read(&entry.path().join(record::STARTED)).ok().flatten().unwrap_or_default();
            let mut all: Vec<_> = started.children.iter().map(|c| c.id).collect();
            all.push(shim.id);
            for id in all.into_iter().filter(|id| proc::lives(*id)) {
                agent::shim::descend::signal(id.pid, rustix::process::Signal::KILL);
            }
            if let Some(path) = shim.cgroup {
                let empty = || agent::shim::cgroup::members(&path).is_empty();
                let begun = Instant::now();
                while !empty() && begun.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                agent::shim::cgroup::remove(&path);
            }
        }
        for entry in std::fs::read_dir(self.dir.path().join("state/pools")).into_iter().flatten().flatten() {
            let shim: Option<record::Shim> = record::read(&entry.path().join(record::SHIM)).ok().flatten();
            let mut all: Vec<_> = shim.map(|shim| shim.id).into_iter().collect();
            let records = Reader::open(&entry.path().join(RECORDS)).and_then(|mut reader| reader.turn());
            all.extend(records.unwrap_or_default().into_iter().filter_map(|record| match record {
                Record::Started { id, .. } => Some(id),
                _ => None,
            }));
            for id in all.into_iter().filter(|id| proc::lives(*id)) {
                agent::shim::descend::signal(id.pid, rustix::process::Signal::KILL);
            }
        }
        self.tasks.stop_token().cancel();
    }
}
