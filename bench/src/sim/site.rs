//! Controllers of their own, on a file each or on one etcd.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proto::v1::jobs_client::JobsClient;
use proto::v1::{GetJobRequest, JobView, SubmitRequest};
use runtime::tls::Identity;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::certificates::Certificates;
use crate::lab::{self, LIMIT};
use crate::{Args, processes};

/// Where controllers remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// One, on a file.
    Embedded,
    /// So many, on one etcd of one member.
    Etcd(usize),
}

/// Running controllers, and what is needed to speak to them.
#[derive(Debug)]
pub(crate) struct Site {
    directory: TempDir,
    bin_dir: PathBuf,
    etcd: Option<(i32, String)>,
    controllers: Vec<Option<Running>>,
    /// Makes the agents' certificates.
    pub(crate) certificates: Certificates,
}

#[derive(Clone, Debug)]
struct Running {
    pid: i32,
    address: String,
}

impl Site {
    /// Starts it and waits until a controller leads.
    pub(crate) async fn start(args: &Args, make: Make) -> anyhow::Result<Self> {
        let bin_dir = args.bin_dir()?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&args.directory)?;
        let state = directory.path().join("c0");
        let mut init = Command::new(bin_dir.join("qctl-controller"));
        init.arg("init").arg("--state-dir").arg(&state).stdin(Stdio::null()).stdout(Stdio::null());
        gone(i32::try_from(init.spawn()?.id())?)?;
        let certificates = Certificates::load(&state.join("pki"))?;
        let mut site = Self { directory, bin_dir, etcd: None, controllers: Vec::new(), certificates };
        let count = match make {
            Make::Embedded => 1,
            Make::Etcd(count) => {
                site.start_etcd()?;
                count
            }
        };
        for at in 0..count {
            site.controllers.push(None);
            site.start_controller(at)?;
        }
        site.accept("warm up", &mut site.jobs()?).await?;
        Ok(site)
    }

    fn start_etcd(&mut self) -> anyhow::Result<()> {
        let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let ports: Vec<u16> = held.iter().map(|one| Ok(one.local_addr()?.port())).collect::<std::io::Result<_>>()?;
        drop(held);
        let (client, peer) = (format!("http://127.0.0.1:{}", ports[0]), format!("http://127.0.0.1:{}", ports[1]));
        let log_path = self.directory.path().join("etcd.log");
        let log = File::create(&log_path)?;
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.directory.path().join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let pid = command.spawn().context("`etcd` could not be started (Debian: etcd-server)")?.id();
        // Before anything can fail: what is known is ended.
        self.etcd = Some((i32::try_from(pid)?, client));
        let begun = Instant::now();
        while !fs::read_to_string(&log_path)?.contains("ready to serve client requests") {
            ensure!(begun.elapsed() < LIMIT, "etcd did not come: {}", log_path.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts the controller at a place that has none.
    pub(crate) fn start_controller(&mut self, at: usize) -> anyhow::Result<()> {
        let path = |name: &str| self.directory.path().join(name);
        let (state, port_file) = (path(&format!("c{at}")), path(&format!("port-{at}")));
        let log = File::options().create(true).append(true).open(path(&format!("controller-{at}.log")))?;
        let mut command = Command::new(self.bin_dir.join("qctl-controller"));
        command.arg("run").arg("--state-dir").arg(&state).arg("--pki").arg(path("c0").join("pki"));
        command.args(["--listen", "127.0.0.1:0"]).arg("--port-file").arg(&port_file);
        if let Some((_, etcd)) = &self.etcd {
            command.args(["--store", "etcd", "--etcd", etcd]);
        }
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // An earlier life's address is not this one's.
        let _ = fs::remove_file(&port_file);
        let pid = i32::try_from(command.spawn()?.id())?;
        self.controllers[at] = Some(Running { pid, address: String::new() });
        let address = format!("https://{}", read_when_there(&port_file)?.trim());
        self.controllers[at] = Some(Running { pid, address });
        Ok(())
    }

    /// Sends the controller at `at` a signal.
    pub(crate) fn tell_controller(&self, at: usize, signal: Signal) {
        if let Some(running) = &self.controllers[at] {
            lab::signal(running.pid, signal);
        }
    }

    /// Ends the controller at `at` by a signal; another may be started in its place.
    pub(crate) fn end_controller(&mut self, at: usize, signal: Signal) -> anyhow::Result<()> {
        if let Some(running) = self.controllers[at].take() {
            lab::signal(running.pid, signal);
            gone(running.pid)?;
        }
        Ok(())
    }

    /// Addresses of all controllers that run.
    pub(crate) fn addresses(&self) -> String {
        self.controllers.iter().flatten().map(|one| one.address.clone()).collect::<Vec<_>>().join(",")
    }

    /// Which controller leads, by its own word.
    pub(crate) async fn leader(&self) -> anyhow::Result<usize> {
        let user = self.user()?;
        let begun = Instant::now();
        loop {
            for (at, running) in self.controllers.iter().enumerate() {
                let Some(running) = running else { continue };
                let mut jobs = JobsClient::new(runtime::channel(&running.address, &user)?);
                if jobs
                    .get(GetJobRequest { job: "0".to_owned() })
                    .await
                    .is_err_and(|s| s.code() == tonic::Code::NotFound)
                {
                    return Ok(at);
                }
            }
            ensure!(begun.elapsed() < LIMIT, "no controller leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn user(&self) -> anyhow::Result<Identity> {
        Ok(Identity::load(&self.directory.path().join("c0/pki/users/admin"))?)
    }

    /// A client to whichever controller leads but the one at `at`.
    pub(crate) fn jobs_of_others(&self, at: usize) -> anyhow::Result<JobsClient<Channel>> {
        let others = self.controllers.iter().enumerate().filter(|(other, _)| *other != at);
        let addresses: Vec<String> = others.filter_map(|(_, one)| Some(one.as_ref()?.address.clone())).collect();
        Ok(JobsClient::new(runtime::channel(&addresses.join(","), &self.user()?)?))
    }

    /// A channel to whichever controller leads.
    pub(crate) fn channel(&self) -> anyhow::Result<Channel> {
        Ok(runtime::channel(&self.addresses(), &self.user()?)?)
    }

    /// A client to whichever controller leads.
    pub(crate) fn jobs(&self) -> anyhow::Result<JobsClient<Channel>> {
        Ok(JobsClient::new(self.channel()?).max_decoding_message_size(256 << 20))
    }

    /// Where the controllers' certificate lies.
    pub(crate) fn controller_identity(&self) -> PathBuf {
        self.directory.path().join("c0/pki/controller")
    }

    /// Where jobs say that they work; nothing does.
    pub(crate) fn work(&self) -> &Path {
        self.directory.path()
    }

    /// Submits a job of one stage until it is accepted; returns its id.
    pub(crate) async fn accept(&self, name: &str, jobs: &mut JobsClient<Channel>) -> anyhow::Result<String> {
        let spec = self.spec(name, &json!({"work": {"run": {"argv": ["true"]}}}));
        let begun = Instant::now();
        loop {
            match submit(jobs, &spec).await {
                Ok(id) => return Ok(id),
                Err(status) => ensure!(begun.elapsed() < LIMIT, "no job is accepted: {}", status.message()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A file of some stages.
    pub(crate) fn spec(&self, name: &str, stages: &Value) -> Value {
        json!({
            "name": name.replace(' ', "-"),
            "workdir": self.work(),
            "storage": "shared",
            "runtime": {"device": "cpu"},
            "stages": stages,
        })
    }

    /// Ends everything in its order.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for at in 0..self.controllers.len() {
            self.end_controller(at, Signal::TERM)?;
        }
        if let Some((pid, _)) = self.etcd.take() {
            lab::signal(pid, Signal::TERM);
            gone(pid)?;
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let running = self.controllers.iter().flatten().map(|one| one.pid);
        running.chain(self.etcd.iter().map(|(pid, _)| *pid)).for_each(|pid| lab::signal(pid, Signal::KILL));
    }
}

/// Submits a file once.
pub(crate) async fn submit(jobs: &mut JobsClient<Channel>, spec: &Value) -> Result<String, tonic::Status> {
    let request = SubmitRequest { spec: spec.to_string(), source_name: "bench".into(), ..SubmitRequest::default() };
    Ok(jobs.submit(request).await?.into_inner().id)
}

/// Waits until the job has ended well.
pub(crate) async fn succeeded(jobs: &mut JobsClient<Channel>, id: &str, limit: Duration) -> anyhow::Result<JobView> {
    let begun = Instant::now();
    loop {
        let view = jobs.get(GetJobRequest { job: id.to_owned() }).await?.into_inner();
        if view.ended_ms > 0 {
            ensure!(view.phase == "succeeded", "job {id} ended as `{}`: {}", view.phase, view.reason);
            return Ok(view);
        }
        ensure!(begun.elapsed() < limit, "job {id} does not end: {}", view.reason);
        // Asked for seldom: the answer names every task.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until a child has ended; the reaper collects it.
fn gone(pid: i32) -> anyhow::Result<()> {
    let begun = Instant::now();
    while processes::living().contains(&pid) {
        ensure!(begun.elapsed() < LIMIT, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The text of a file that another process writes.
pub(crate) fn read_when_there(path: &Path) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return Ok(text);
        }
        ensure!(begun.elapsed() < LIMIT, "`{}` did not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
