//! Many agents that beat: what a beat costs beside a server that only answers it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use proto::v1::ListNodesRequest;
use proto::v1::nodes_client::NodesClient;
use runtime::tls::Identity;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::sim::agent::{self, Nature, Tally};
use crate::sim::bare;
use crate::sim::site::{Make, Site, read_when_there};
use crate::verdict::{Verdict, tell};
use crate::{Args, lab, processes};

const NPUS: u32 = 8;
/// Agents that shake hands at once.
const AT_ONCE: usize = 64;
const LIMIT: Duration = Duration::from_secs(300);

/// What a server spent.
struct Spent {
    /// Processor time of one beat, in microseconds.
    beat_us: f64,
    /// Resident memory of one agent, in KiB.
    agent_kib: f64,
}

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Vec<Verdict>> {
    let site = Site::start(args, Make::Embedded).await?;
    let identities: Vec<(String, Identity)> = (0..args.agents)
        .map(|at| format!("n{at:04}"))
        .map(|node| Ok((node.clone(), site.certificates.node(&node)?)))
        .collect::<anyhow::Result<_>>()?;
    let bare = bare(args, &site, &identities).await?;
    let mut nodes = NodesClient::new(site.channel()?).max_decoding_message_size(256 << 20);
    let mut lost = 0_usize;
    let (fleet, tally) = Fleet::start(&site.addresses(), &identities, "qctl-controller").await?;
    let before = Mark::now("qctl-controller", &tally);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(args.fleet_seconds) {
        tokio::time::sleep(Duration::from_secs(5).min(Duration::from_secs(args.fleet_seconds))).await;
        let reply = nodes.list(ListNodesRequest {}).await?.into_inner();
        lost += reply.nodes.iter().filter(|node| node.phase != "ready").count();
    }
    let ours = before.until_now("qctl-controller", &tally, fleet.empty_kib, identities.len());
    fleet.stop().await?;
    site.stop()?;
    tell(&format!(
        "{} agents of {NPUS} NPUs, a beat a second for {} s: {:.1} us of processor a beat, {:.1} KiB an agent; \
         a server that only answers: {:.1} us, {:.1} KiB",
        identities.len(),
        args.fleet_seconds,
        ours.beat_us,
        ours.agent_kib,
        bare.beat_us,
        bare.agent_kib
    ));
    #[allow(clippy::cast_precision_loss, reason = "a count")]
    let lost = lost as f64;
    Ok(vec![
        Verdict::below("fleet: processor time of a beat beside a bare server", ours.beat_us / bare.beat_us, 2.0, "x"),
        Verdict::below("fleet: resident memory of an agent", ours.agent_kib, 64.0, " KiB"),
        Verdict::below("fleet: nodes that did not count as ready", lost, 1.0, ""),
    ])
}

/// The same agents against a server that does nothing else.
async fn bare(args: &Args, site: &Site, identities: &[(String, Identity)]) -> anyhow::Result<Spent> {
    let port_file = site.work().join("bare-port");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(bare::SERVER).arg(site.controller_identity()).arg(&port_file);
    let _server = Server(i32::try_from(command.stdin(Stdio::null()).spawn()?.id())?);
    let address = format!("https://{}", read_when_there(Path::new(&port_file))?.trim());
    let (fleet, tally) = Fleet::start(&address, identities, bare::NAME).await?;
    let before = Mark::now(bare::NAME, &tally);
    tokio::time::sleep(Duration::from_secs(args.fleet_seconds.min(30))).await;
    let spent = before.until_now(bare::NAME, &tally, fleet.empty_kib, identities.len());
    fleet.stop().await?;
    Ok(spent)
}

/// A server that is killed when it is no more needed.
struct Server(i32);

impl Drop for Server {
    fn drop(&mut self) {
        lab::signal(self.0, Signal::KILL);
    }
}

/// Agents in session.
struct Fleet {
    agents: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    /// Resident memory of the server before they came.
    empty_kib: u64,
}

impl Fleet {
    async fn start(
        addresses: &str,
        identities: &[(String, Identity)],
        server: &str,
    ) -> anyhow::Result<(Self, Arc<Tally>)> {
        let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
        let mut fleet = Self { agents: JoinSet::new(), stop, empty_kib: processes::resident_kib(server) };
        let begun = Instant::now();
        for (at, (node, identity)) in identities.iter().enumerate() {
            let channel = runtime::channel(addresses, identity)?;
            let offset = Duration::from_millis(u64::try_from(at * 7919 % 1000).unwrap_or_default());
            let nature = Nature { node: node.clone(), slots: NPUS, npus: NPUS, offset };
            let (counted, stop) = (Arc::clone(&tally), fleet.stop.clone());
            fleet.agents.spawn(async move { agent::play(channel, nature, &counted, stop).await });
            while at + 1 > usize::try_from(tally.here.load(Ordering::Relaxed))? + AT_ONCE {
                ensure!(begun.elapsed() < LIMIT, "the agents do not come");
                if let Some(ended) = fleet.agents.try_join_next() {
                    ended??;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let all = u64::try_from(identities.len())?;
        crate::tasks::reached("all agents are here", all, || tally.here.load(Ordering::Relaxed)).await?;
        // Their greetings are answered and their first beats told.
        crate::tasks::reached("all agents beat", all * 2, || tally.beats.load(Ordering::Relaxed)).await?;
        Ok((fleet, tally))
    }

    /// Ends them; one that ended before was lost.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.agents.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// A moment of a server.
struct Mark {
    cpu: Duration,
    beats: u64,
}

impl Mark {
    fn now(server: &str, tally: &Tally) -> Self {
        Self { cpu: processes::spent_by(server), beats: tally.beats.load(Ordering::Relaxed) }
    }

    #[allow(clippy::cast_precision_loss, reason = "counts")]
    fn until_now(&self, server: &str, tally: &Tally, empty_kib: u64, agents: usize) -> Spent {
        let now = Self::now(server, tally);
        let (cpu, beats) = (now.cpu.saturating_sub(self.cpu), now.beats.saturating_sub(self.beats));
        let resident = processes::resident_kib(server).saturating_sub(empty_kib);
        Spent { beat_us: cpu.as_secs_f64() * 1e6 / beats.max(1) as f64, agent_kib: resident as f64 / agents as f64 }
    }
}
