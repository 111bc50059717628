//! A running installation of its own, and a client to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use proto::v1::jobs_client::JobsClient;
use proto::v1::nodes_client::NodesClient;
use proto::v1::{GetJobRequest, JobView, ListNodesRequest, SubmitRequest};
use runtime::tls::Identity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{Args, processes};

/// How long anything may take to come about.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Agents, and slots of each: together as many as the largest gang has ranks.
const SHAPE: [(&str, &str); 2] = [("--agents", "2"), ("--slots", "32")];

/// `qctl dev` in a directory of its own.
#[derive(Debug)]
pub(crate) struct Lab {
    directory: TempDir,
    dev: i32,
    pub(crate) jobs: JobsClient<Channel>,
    submitted: u32,
}

impl Lab {
    /// Starts it and waits until both agents are there.
    pub(crate) async fn start(args: &Args) -> anyhow::Result<Self> {
        let bin_dir = args.bin_dir()?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&args.directory)?;
        let state = directory.path().canonicalize()?.join("state");
        let log = File::create(directory.path().join("dev.log"))?;
        let mut command = Command::new(bin_dir.join("qctl"));
        command.arg("--state-dir").arg(&state).arg("dev").args(SHAPE.iter().flat_map(|(flag, value)| [flag, value]));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QCTL_")) {
            // A user's own settings must not lead the measurement elsewhere.
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let dev = command.spawn().with_context(|| format!("`{}` could not be started", bin_dir.display()))?;
        let dev = i32::try_from(dev.id())?;
        fs::create_dir(directory.path().join("work"))?;
        let channel = channel(&state).await?;
        let lab = Self {
            dev,
            jobs: JobsClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            directory,
            submitted: 0,
        };
        lab.wait_for_agents(NodesClient::new(channel)).await?;
        Ok(lab)
    }

    async fn wait_for_agents(&self, mut nodes: NodesClient<Channel>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ready = match nodes.list(ListNodesRequest {}).await {
                Ok(reply) => reply.into_inner().nodes.iter().filter(|node| node.phase == "ready").count(),
                Err(_) => 0,
            };
            if ready == 2 {
                return Ok(());
            }
            ensure!(begun.elapsed() < LIMIT, "the agents did not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where tasks work.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap_or_default().join("work")
    }

    /// A file of one stage.
    pub(crate) fn spec(&mut self, stage: &Value) -> Value {
        self.submitted += 1;
        json!({
            "name": format!("bench-{}", self.submitted),
            "workdir": self.work(),
            "storage": "shared",
            "runtime": {"device": "cpu"},
            "stages": {"work": stage},
        })
    }

    /// Submits a file; returns the job's id.
    pub(crate) async fn submit(&mut self, spec: &Value) -> anyhow::Result<String> {
        let request = SubmitRequest { spec: spec.to_string(), source_name: "bench".into(), ..SubmitRequest::default() };
        Ok(self.jobs.submit(request).await?.into_inner().id)
    }

    /// The job as it is.
    pub(crate) async fn job(&mut self, id: &str) -> anyhow::Result<JobView> {
        Ok(self.jobs.get(GetJobRequest { job: id.to_owned() }).await?.into_inner())
    }

    /// Waits until the job has ended, without asking all the time.
    pub(crate) async fn ended(&mut self, id: &str) -> anyhow::Result<JobView> {
        let mut views = self.jobs.watch(GetJobRequest { job: id.to_owned() }).await?.into_inner();
        while let Some(view) = tokio::time::timeout(LIMIT, views.message()).await.context("the job does not end")?? {
            if view.ended_ms > 0 {
                return Ok(view);
            }
        }
        bail!("the job is no longer shown")
    }

    /// Ends everything in its order.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        signal(self.dev, Signal::TERM);
        let begun = Instant::now();
        while processes::living().contains(&self.dev) {
            ensure!(begun.elapsed() < LIMIT, "qctl dev does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // After an error everything is still there; ranks outlive their agents.
        for pid in processes::living() {
            signal(pid, Signal::KILL);
        }
    }
}

/// Sends a process that this one started a signal.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// A channel to the controller whose address the state directory names.
async fn channel(state: &Path) -> anyhow::Result<Channel> {
    let begun = Instant::now();
    loop {
        if let Ok(bytes) = fs::read(state.join("context.json")) {
            let context: Value = serde_json::from_slice(&bytes)?;
            let text = |name: &str| {
                context[name].as_str().map(str::to_owned).context("a context without endpoint or identity")
            };
            let identity = Identity::load(Path::new(&text("identity")?))?;
            return Ok(runtime::channel(&text("endpoint")?, &identity)?);
        }
        ensure!(begun.elapsed() < LIMIT, "the controller did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
