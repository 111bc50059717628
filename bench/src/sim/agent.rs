//! An agent that does everything at once and starts nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::v1;
use proto::v1::agents_client::AgentsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use v1::agent_message::Kind as Said;
use v1::controller_message::Kind as Heard;

/// Messages under way.
const QUEUE: usize = 1024;

/// What all played agents count together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Agents in session.
    pub(crate) here: AtomicU64,
    /// Beats that were answered.
    pub(crate) beats: AtomicU64,
    /// Results that were acknowledged.
    pub(crate) results: AtomicU64,
    /// Ranks that were told to start.
    pub(crate) ranks: AtomicU64,
}

/// What an agent is like.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    /// Its name.
    pub(crate) node: String,
    /// Its slots.
    pub(crate) slots: u32,
    /// NPUs that it tells about in each beat.
    pub(crate) npus: u32,
    /// Until its first beat: agents do not all beat at the same moment.
    pub(crate) offset: Duration,
}

struct Agent<'a> {
    out: mpsc::Sender<v1::AgentMessage>,
    tally: &'a Tally,
    live: BTreeMap<String, &'static str>,
    /// Whether a report, by its number, is a result.
    reports: BTreeMap<u64, bool>,
    seq: u64,
    beats: u64,
}

/// Plays one agent until `stop`; an end of its session is an error.
pub(crate) async fn play(
    channel: Channel,
    nature: Nature,
    tally: &Tally,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (out, queue) = mpsc::channel(QUEUE);
    out.send(v1::AgentMessage { kind: Some(Said::Hello(hello(&nature))) }).await?;
    let mut client = AgentsClient::new(channel);
    let mut inbound = client.session(ReceiverStream::new(queue)).await?.into_inner();
    let welcome = inbound.message().await?.context("no welcome")?;
    let Some(Heard::Welcome(welcome)) = welcome.kind else { bail!("no welcome, but something else") };
    let mut agent = Agent { out, tally, live: BTreeMap::new(), reports: BTreeMap::new(), seq: 0, beats: 0 };
    let pause = Duration::from_millis(u64::from(welcome.beat_interval_ms));
    tally.here.fetch_add(1, Ordering::Relaxed);
    let served = agent.serve(&mut inbound, &nature, pause, stop).await;
    tally.here.fetch_sub(1, Ordering::Relaxed);
    served.with_context(|| format!("agent `{}`", nature.node))
}

impl Agent<'_> {
    async fn serve(
        &mut self,
        inbound: &mut Streaming<v1::ControllerMessage>,
        nature: &Nature,
        pause: Duration,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut beat = tokio::time::interval_at((Instant::now() + nature.offset).into(), pause);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                message = inbound.message() => {
                    let message = message?.context("the controller closed the session")?;
                    self.take(message).await?;
                }
                _ = beat.tick() => self.beat(nature.npus).await?,
            }
        }
    }

    async fn take(&mut self, message: v1::ControllerMessage) -> anyhow::Result<()> {
        match message.kind {
            Some(Heard::BeatAck(_)) => _ = self.tally.beats.fetch_add(1, Ordering::Relaxed),
            Some(Heard::ReportAck(ack)) => {
                if self.reports.remove(&ack.seq) == Some(true) {
                    self.tally.results.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(Heard::Prepare(wanted)) => {
                self.live.insert(wanted.attempt.clone(), "prepared");
                let port = if wanted.seat == 0 { 20_000 } else { 0 };
                self.report(wanted.attempt, v1::report::What::Prepared(v1::Prepared { port })).await?;
            }
            Some(Heard::Start(wanted)) => self.start(wanted).await?,
            Some(Heard::Stop(stop)) => self.end(stop.attempt, false).await?,
            Some(Heard::Forget(forget)) => _ = self.live.remove(&forget.attempt),
            Some(Heard::Survey(asked)) => {
                let digest = |path| v1::FileRecord { path, size: 1, digest: "0".repeat(64) };
                let digests = asked.digest_files.into_iter().map(digest).collect();
                let answer = v1::SurveyAnswer { id: asked.id, digests, ..v1::SurveyAnswer::default() };
                self.say(Said::Survey(answer)).await?;
            }
            Some(Heard::Welcome(_) | Heard::Recall(_) | Heard::Checkpoint(_)) | None => {}
        }
        Ok(())
    }

    async fn start(&mut self, wanted: v1::Assignment) -> anyhow::Result<()> {
        match self.live.get(&wanted.attempt) {
            // Told again: nothing new.
            Some(&"running" | &"ended") => Ok(()),
            Some(_) => {
                self.tally.ranks.fetch_add(u64::from(wanted.ranks), Ordering::Relaxed);
                self.live.insert(wanted.attempt.clone(), "running");
                self.report(wanted.attempt, v1::report::What::Started(v1::Started {})).await
            }
            None => self.end(wanted.attempt, true).await,
        }
    }

    async fn end(&mut self, attempt: String, ok: bool) -> anyhow::Result<()> {
        self.live.insert(attempt.clone(), "ended");
        let ended = v1::Ended { ok, ran_ms: Some(0), ..v1::Ended::default() };
        self.report(attempt, v1::report::What::Ended(ended)).await
    }

    async fn report(&mut self, attempt: String, what: v1::report::What) -> anyhow::Result<()> {
        self.seq += 1;
        self.reports.insert(self.seq, matches!(what, v1::report::What::Ended(_)));
        self.say(Said::Report(v1::Report { seq: self.seq, attempt, what: Some(what) })).await
    }

    async fn beat(&mut self, npus: u32) -> anyhow::Result<()> {
        self.beats += 1;
        let live = self.live.iter();
        let live =
            live.map(|(id, state)| v1::LiveAttempt { attempt: id.clone(), state: (*state).to_owned() }).collect();
        self.say(Said::Beat(beat(self.beats, npus, live))).await
    }

    async fn say(&mut self, kind: Said) -> anyhow::Result<()> {
        Ok(self.out.send(v1::AgentMessage { kind: Some(kind) }).await?)
    }
}

fn hello(nature: &Nature) -> v1::Hello {
    v1::Hello {
        node: nature.node.clone(),
        boot_id: format!("boot of {}", nature.node),
        hostname: nature.node.clone(),
        address: "127.0.0.1".to_owned(),
        version: "0".to_owned(),
        device: v1::DeviceKind::Cpu.into(),
        slots: nature.slots,
        cpus: 64,
        memory: 1 << 40,
        ..v1::Hello::default()
    }
}

/// A beat with the health of so many NPUs, as it changes from one to the next.
pub(crate) fn beat(seq: u64, npus: u32, live: Vec<v1::LiveAttempt>) -> v1::Beat {
    let health = v1::NodeHealth { disk_free: 1 << 40, memory_free: 1 << 38, load_percent: 100 };
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let npu = |slot: u32| v1::Npu {
        id: Some(slot),
        chip: Some(0),
        phy_id: Some(slot),
        slot: Some(slot),
        name: "910B3".to_owned(),
        health: "OK".to_owned(),
        confirmed: true,
        power_w: Some(93.5 + (seq % 7) as f64),
        temperature_c: Some(41.0 + (seq % 5) as f64),
        bus_id: format!("0000:C{slot}:00.0"),
        aicore_percent: Some((seq % 100) as f64),
        memory_used_mib: Some(0),
        memory_total_mib: Some(0),
        hbm_used_mib: Some(3_000 + seq % 1000),
        hbm_total_mib: Some(65_536),
        error_codes: Vec::new(),
        link: "UP".to_owned(),
        network: "Success".to_owned(),
        group: Some(slot / 4),
    };
    let npus = v1::NpuHealth {
        at_ms: seq,
        npus: (0..npus).map(npu).collect(),
        driver: "24.1.rc2".to_owned(),
        firmware: "7.3.0.1.231".to_owned(),
        cann: "8.0.RC3".to_owned(),
        ..v1::NpuHealth::default()
    };
    let npus = (!npus.npus.is_empty()).then_some(npus);
    v1::Beat { seq, live, health: Some(health), npus, at_ms: runtime::clock::now_ms() }
}
