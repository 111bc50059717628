//! The conversation with the controller: the agent dials, greets, beats,
//! reports, and obeys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Epoch, Labels};
use proto::v1::agents_client::AgentsClient;
use proto::v1::controller_message::Kind as Heard;
use proto::v1::{
    AgentMessage, Beat, CheckpointOrder, ControllerMessage, DeviceKind, Hello, NodeHealth, NpuHealth,
    agent_message::Kind,
};
use runtime::Tasks;
use runtime::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::fence::{Fence, FenceError};
use crate::health;
use crate::host::Host;
use crate::keeping::Turns;
use crate::probe;
use crate::seat::dir::Wanted;
use crate::seats::Seats;
use crate::survey;

/// How long the controller may take to answer the greeting.
const GREETING: Duration = Duration::from_secs(10);
/// Without any word from the controller for so long the session is given up.
const SILENCE: Duration = Duration::from_secs(15);
/// How often progress is sent.
const PROGRESS: Duration = Duration::from_millis(200);
/// Reports sent in one go.
const BATCH: usize = 256;
/// Every so many beats the health is told anyway.
const HEALTH_BEATS: u64 = 30;
/// Messages that may be under way inside of the agent.
const QUEUE: usize = 256;
/// Largest message that is taken.
const LARGEST: usize = 32 << 20;

/// What the agent says about itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Address at which other nodes reach this one.
    pub address: String,
    /// What a slot stands for.
    pub device: DeviceKind,
    /// Number of slots.
    pub slots: u32,
    /// What jobs may choose it by.
    pub labels: Labels,
    /// Whether it takes only replacements of lost or failed seats.
    pub spare: bool,
    /// Per slot the group of slots that are near to each other; empty = as the probe sees it.
    pub slot_groups: Vec<u32>,
    /// Whose disk space counts.
    pub state_dir: PathBuf,
}

/// One agent's side of all its sessions.
#[derive(Debug)]
pub struct Session {
    host: Arc<Host>,
    seats: Seats,
    fence: Fence,
    introduction: Introduction,
    tasks: Tasks,
    /// Answers to questions that take their time.
    answers: (mpsc::Sender<Kind>, mpsc::Receiver<Kind>),
    keeping: Turns,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the controller ended it: {}", whole(.0))]
    Status(#[from] Status),
    #[error("the node has a new certificate")]
    Renewed,
    #[error("the controller closed it")]
    Closed,
    #[error("the controller was silent for too long")]
    Silent,
    #[error("{0}")]
    Fenced(#[from] FenceError),
}

/// What a status says, down to what the operating system said.
fn whole(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}

/// One connected stream.
struct Line {
    out: mpsc::Sender<AgentMessage>,
    inbound: Streaming<ControllerMessage>,
    newest: watch::Receiver<u64>,
    /// Reports up to here were sent on this stream.
    sent: u64,
    beats: u64,
    told: Option<NodeHealth>,
    told_npus: Option<Arc<NpuHealth>>,
    heard: Instant,
    /// Cancelled once nobody hears an answer to what was asked on this stream.
    over: CancellationToken,
}

impl Session {
    /// A session that has not dialled yet.
    #[must_use]
    pub fn new(host: Arc<Host>, seats: Seats, fence: Fence, introduction: Introduction, tasks: Tasks) -> Self {
        let (answers, keeping) = (mpsc::channel(16), Turns::default());
        Self { host, seats, fence, introduction, tasks, answers, keeping }
    }

    /// Dials again and again until `stop`.
    pub async fn run(mut self, mut channels: watch::Receiver<Channel>, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let ended = tokio::select! {
                biased; // stop wins: ranks outlive the session
                () = stop.cancelled() => return,
                ended = self.once(&mut channels, &mut backoff) => ended,
            };
            if let Err(Ended::Renewed) = ended {
                tracing::info!("the session begins anew, with the new certificate");
            } else if let Err(reason) = ended {
                tracing::warn!(%reason, "no session with the controller; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    async fn once(&mut self, channels: &mut watch::Receiver<Channel>, backoff: &mut Backoff) -> Result<(), Ended> {
        let channel = channels.borrow_and_update().clone();
        let (out, queue) = mpsc::channel(QUEUE);
        let newest = self.host.spool.newest();
        let hello = AgentMessage { kind: Some(Kind::Hello(self.hello())) };
        out.send(hello).await.map_err(|_| Ended::Closed)?;
        let mut client = AgentsClient::new(channel).max_decoding_message_size(LARGEST);
        let opening = client.session(ReceiverStream::new(queue));
        let inbound = tokio::time::timeout(GREETING, opening).await.map_err(|_| Ended::Silent)??.into_inner();
        let (sent, beats, told, told_npus) = (0, 0, None, None);
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let mut line = Line { out, inbound, newest, sent, beats, told, told_npus, heard: Instant::now(), over };
        let first = tokio::time::timeout(GREETING, line.inbound.message()).await.map_err(|_| Ended::Silent)??;
        let Some(Heard::Welcome(welcome)) = first.and_then(|m| m.kind) else { return Err(Ended::Closed) };
        self.fence.admit(welcome.epoch.unwrap_or_default().into())?;
        backoff.reset();
        tracing::info!(epoch = %self.fence.highest(), "in session with the controller");
        let pause = u64::from(welcome.beat_interval_ms.clamp(100, 60_000));
        tokio::select! {
            ended = self.talk(&mut line, Duration::from_millis(pause)) => ended,
            Ok(()) = channels.changed() => Err(Ended::Renewed),
        }
    }

    async fn talk(&mut self, line: &mut Line, pause: Duration) -> Result<(), Ended> {
        let mut beat = tokio::time::interval(pause);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = tokio::time::interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.send_reports(line).await?;
        loop {
            tokio::select! {
                biased; // commands first: a stop must not wait behind reports
                message = line.inbound.message() => self.take(line, message?).await?,
                changed = line.newest.changed() => {
                    changed.map_err(|_| Ended::Closed)?;
                    self.send_reports(line).await?;
                }
                _ = beat.tick() => self.beat(line, pause).await?,
                Some(answer) = self.answers.1.recv() => line.send(answer).await?,
                _ = progress.tick() => self.send_progress(line).await?,
            }
        }
    }

    fn hello(&mut self) -> Hello {
        self.seats.sweep();
        let epoch = self.fence.highest();
        Hello {
            node: self.host.node.clone(),
            boot_id: crate::shim::proc::boot_id(),
            hostname: health::hostname(),
            address: self.introduction.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.introduction.device.into(),
            slots: self.introduction.slots,
            cpus: health::cpus(),
            memory: health::memory(),
            epoch: Some(epoch.into()),
            live: self.seats.live(),
            capabilities: vec!["launcher-ranks".to_owned()],
            labels: self.introduction.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            slot_groups: self.introduction.slot_groups.clone(),
            spare: self.introduction.spare,
        }
    }

    async fn take(&mut self, line: &mut Line, message: Option<ControllerMessage>) -> Result<(), Ended> {
        line.heard = Instant::now();
        let Some(message) = message else { return Err(Ended::Closed) };
        let refused = match message.kind {
            Some(Heard::ReportAck(ack)) => {
                self.host.spool.acknowledge(ack.seq);
                Ok(())
            }
            Some(Heard::BeatAck(ack)) => {
                // A heartbeat of an older controller ends the session.
                self.fence.admit(ack.epoch.unwrap_or_default().into())?;
                Ok(())
            }
            Some(Heard::Prepare(assignment)) if self.obeys(assignment.epoch)? => {
                self.seats.assign(Wanted::Prepare, assignment).await
            }
            Some(Heard::Start(assignment)) if self.obeys(assignment.epoch)? => {
                self.seats.assign(Wanted::Start, assignment).await
            }
            Some(Heard::Stop(stop)) if self.obeys(stop.epoch)? => {
                self.seats.stop(&stop.attempt, Duration::from_millis(stop.grace_ms)).await
            }
            Some(Heard::Recall(recall)) if self.obeys(recall.epoch)? => self.seats.recall(&recall.attempt),
            Some(Heard::Forget(forget)) if self.obeys(forget.epoch)? => self.seats.forget(&forget.attempt),
            Some(Heard::Survey(request)) => {
                let (bin_dir, answers) = (self.host.bin_dir.clone(), self.answers.0.clone());
                self.tasks.spawn("survey", async move {
                    let answer = survey::answer(&bin_dir, request).await;
                    // Nobody waits for it once the agent ends.
                    let _ = answers.send(Kind::Survey(answer)).await;
                });
                Ok(())
            }
            Some(Heard::Checkpoint(order)) if self.obeys(order.epoch)? => {
                self.keep(order, line.over.clone());
                Ok(())
            }
            Some(
                Heard::Prepare(_)
                | Heard::Start(_)
                | Heard::Stop(_)
                | Heard::Recall(_)
                | Heard::Forget(_)
                | Heard::Welcome(_)
                | Heard::Checkpoint(_),
            )
            | None => Ok(()),
        };
        if let Err(refusal) = refused {
            tracing::warn!("a command was refused: {refusal}");
        }
        Ok(())
    }

    /// Does something with a checkpoint, unless the session is `over` before its turn comes.
    fn keep(&self, order: CheckpointOrder, over: CancellationToken) {
        let (host, answers, turns) = (Arc::clone(&self.host), self.answers.0.clone(), self.keeping.clone());
        let work = async move {
            if let Some(answer) = turns.answer(&host.bin_dir, &host.node, order, &over).await {
                // Nobody waits for it once the agent ends.
                let _ = answers.send(Kind::Checkpoint(answer)).await;
            }
        };
        let stop = self.tasks.stop_token();
        self.tasks.spawn("checkpoint", async move { stop.run_until_cancelled(work).await });
    }

    /// Whether a command is to be obeyed. One of an older controller is passed
    /// over: its session may still be open when a newer one has taken over.
    fn obeys(&mut self, epoch: Option<proto::v1::Epoch>) -> Result<bool, Ended> {
        match self.fence.admit(Epoch::from(epoch.unwrap_or_default())) {
            Ok(()) => Ok(true),
            Err(error @ FenceError::Older { .. }) => {
                tracing::warn!(%error, "a command was refused");
                Ok(false)
            }
            Err(error @ FenceError::Disk(_)) => Err(error.into()),
        }
    }

    async fn send_reports(&self, line: &mut Line) -> Result<(), Ended> {
        loop {
            let reports = self.host.spool.after(line.sent, BATCH);
            if reports.is_empty() {
                return Ok(());
            }
            // How far a seat came is known before its end is.
            self.send_progress(line).await?;
            for report in reports {
                line.sent = report.seq;
                line.send(Kind::Report(report)).await?;
            }
        }
    }

    async fn beat(&mut self, line: &mut Line, pause: Duration) -> Result<(), Ended> {
        if line.heard.elapsed() > SILENCE.max(pause * 5) {
            return Err(Ended::Silent);
        }
        // The list first: what ends after it is then reported before it is left out.
        self.seats.sweep();
        let live = self.seats.live();
        self.send_reports(line).await?;
        let health = health::now(&self.introduction.state_dir);
        let due = line.beats.is_multiple_of(HEALTH_BEATS) || line.told.is_none_or(|old| health::differs(&old, &health));
        let health = due.then_some(health);
        line.told = health.or(line.told);
        // The probe has a task of its own: here only its newest word is looked at.
        let npus = self.host.probe.newest();
        let due = line.beats.is_multiple_of(HEALTH_BEATS) || probe::differs(line.told_npus.as_deref(), npus.as_deref());
        let npus = npus.filter(|_| due);
        line.told_npus = npus.clone().or(line.told_npus.take());
        line.beats += 1;
        let npus = npus.map(|npus| (*npus).clone());
        line.send(Kind::Beat(Beat { seq: line.beats, live, health, npus, at_ms: runtime::clock::now_ms() })).await
    }

    async fn send_progress(&self, line: &mut Line) -> Result<(), Ended> {
        for progress in self.host.progress.take() {
            line.send(Kind::Progress(progress)).await?;
        }
        Ok(())
    }
}

impl Line {
    async fn send(&mut self, kind: Kind) -> Result<(), Ended> {
        self.out.send(AgentMessage { kind: Some(kind) }).await.map_err(|_| Ended::Closed)
    }
}
