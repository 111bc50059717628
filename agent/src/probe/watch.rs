//! The probe of a running agent: a look at the NPUs every so often.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Versions;
use super::outputs::Outputs;
use super::report::{Npu, Report};
use super::source::{self, Source};
use super::tool::{self, Tool};
use super::topology::Topology;

/// Every so many looks everything is asked; between them the table, and the
/// chips that were not well.
const FULL: u32 = 10;
/// Most chips, and most processes, that are told.
const MOST: usize = 64;
/// Most codes of a chip that are told.
const CODES: usize = 16;

/// The probe of a running agent.
#[derive(Debug)]
pub struct Probe {
    source: Option<Source>,
    slots: u32,
    newest: watch::Sender<Option<Arc<v1::NpuHealth>>>,
}

impl Probe {
    /// A probe that has not looked yet; without a source it never does.
    #[must_use]
    pub fn new(source: Option<Source>, slots: u32) -> Self {
        Self { source, slots, newest: watch::Sender::new(None) }
    }

    /// The node's number of slots.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// What the last look saw; never waits.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<v1::NpuHealth>> {
        self.newest.borrow().clone()
    }

    /// Looks at once, for who cannot go by what the last look saw. `homes`: where
    /// CANN is said to be. Versions are known also without NPUs.
    pub async fn look(&self, homes: &[PathBuf]) -> (Option<Report>, Versions) {
        let report = match &self.source {
            Some(source) => Some(source.report().await),
            None => None,
        };
        let mut versions = match &self.source {
            Some(Source::Recording(_)) => Versions::default(),
            Some(Source::Host) | None => tool::versions(Path::new("/"), homes),
        };
        if let Some(report) = &report {
            versions.driver = versions.driver.or_else(|| report.driver.clone());
            versions.firmware = versions.firmware.or_else(|| report.firmware.clone());
            versions.cann = versions.cann.or_else(|| report.cann.clone());
        }
        (report, versions)
    }

    /// Looks again and again until `stop`.
    pub async fn run(&self, period: Duration, stop: CancellationToken) {
        let Some(source) = &self.source else { return };
        let mut kept: Option<Outputs> = None;
        let mut count = 0;
        loop {
            let report = tokio::select! {
                biased; // stop wins: a stuck tool does not hold the agent
                () = stop.cancelled() => return,
                report = turn(source, &mut kept, count) => report,
            };
            count = (count + 1) % FULL;
            let health = self.health(&report);
            if differs(self.newest().as_deref(), Some(&health)) {
                tell(&report);
            }
            self.newest.send_replace(Some(Arc::new(health)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    fn health(&self, report: &Report) -> v1::NpuHealth {
        let slot = |npu: &Npu| (0..self.slots).find(|slot| report.slot(*slot).is_some_and(|of| std::ptr::eq(of, npu)));
        let groups = report.topology.as_ref().map(Topology::groups).unwrap_or_default();
        let group = |npu: &Npu| {
            let name = npu.phy_id.map(|phy| format!("Phy-ID{phy}"));
            let card = npu.id.map(|id| format!("NPU{id}"));
            [name, card].into_iter().flatten().find_map(|name| groups.get(name.as_str()).copied())
        };
        let npu = |npu: &Npu| v1::Npu {
            group: group(npu),
            id: npu.id,
            chip: npu.chip,
            phy_id: npu.phy_id,
            slot: slot(npu),
            name: npu.name.clone().unwrap_or_default(),
            health: npu.health.word().to_owned(),
            confirmed: npu.health_confirmed,
            power_w: npu.power_w.map(|power| power.0),
            temperature_c: npu.temperature_c.map(|degrees| degrees.0),
            bus_id: npu.bus_id.clone().unwrap_or_default(),
            aicore_percent: npu.aicore_percent.map(|rate| rate.0),
            memory_used_mib: npu.memory_used_mib,
            memory_total_mib: npu.memory_total_mib,
            hbm_used_mib: npu.hbm_used_mib,
            hbm_total_mib: npu.hbm_total_mib,
            error_codes: npu.error_codes.iter().take(CODES).cloned().collect(),
            link: npu.link.clone().unwrap_or_default(),
            network: npu.network.clone().unwrap_or_default(),
        };
        let process = |process: &super::Process| v1::NpuProcess {
            npu: process.npu,
            chip: process.chip,
            pid: process.pid,
            name: process.name.clone().unwrap_or_default(),
            memory_mib: process.memory_mib,
        };
        v1::NpuHealth {
            at_ms: runtime::clock::now_ms(),
            npus: report.npus.iter().take(MOST).map(npu).collect(),
            processes: report.processes.iter().take(MOST).map(process).collect(),
            driver: report.driver.clone().unwrap_or_default(),
            firmware: report.firmware.clone().unwrap_or_default(),
            cann: report.cann.clone().unwrap_or_default(),
            error: report.error.clone().unwrap_or_default(),
        }
    }
}

/// One look. A host's tool is slow and disturbs: between full looks only what
/// matters is asked again.
async fn turn(source: &Source, kept: &mut Option<Outputs>, count: u32) -> Report {
    let tool = match source {
        Source::Recording(_) => return source.report().await,
        Source::Host => Tool::find(),
    };
    match (tool, kept.as_mut()) {
        (Some(tool), Some(outputs)) if count > 0 => {
            let seen = super::report(outputs);
            let unwell = seen.npus.iter().filter(|npu| npu.health != super::Health::Ok);
            let unwell: Vec<(u32, Option<u32>)> = unwell.filter_map(|npu| Some((npu.id?, npu.chip))).collect();
            tool.ask_again(outputs, &unwell).await;
            super::report(outputs)
        }
        (Some(_), _) => match source.outputs().await {
            Ok(outputs) => super::report(kept.insert(outputs)),
            Err(error) => Report::failed(error.to_string()),
        },
        (None, _) => super::report(&source::no_tool()),
    }
}

fn tell(report: &Report) {
    if let Some(error) = &report.error {
        tracing::warn!(%error, "the NPUs cannot be seen");
    }
    for npu in report.npus.iter().filter(|npu| !npu.health.is_usable()) {
        tracing::warn!(npu = npu.label(), health = npu.health.word(), codes = npu.error_codes.join(" "), "not well");
    }
}

/// Whether two looks differ in more than what is measured.
#[must_use]
pub fn differs(old: Option<&v1::NpuHealth>, new: Option<&v1::NpuHealth>) -> bool {
    old.map(gist) != new.map(gist)
}

fn gist(health: &v1::NpuHealth) -> v1::NpuHealth {
    let mut gist = v1::NpuHealth { at_ms: 0, ..health.clone() };
    for npu in &mut gist.npus {
        (npu.power_w, npu.temperature_c, npu.aicore_percent) = (None, None, None);
        (npu.memory_used_mib, npu.hbm_used_mib) = (None, None);
    }
    gist.processes.iter_mut().for_each(|process| process.memory_mib = None);
    gist
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recording_is_looked_at_again_and_told_where_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let put = |health: &str, power: &str| {
            let said = format!("| 0 910B3 | {health} | {power} 43 0 / 0 |\n| 0 | 0000:C1:00.0 | 0 0 / 0 1 / 9 |\n");
            std::fs::write(dir.path().join("npu-smi_info.txt"), said).unwrap();
        };
        put("OK", "90.0");
        let probe = Arc::new(Probe::new(Some(Source::Recording(dir.path().to_owned())), 1));
        let mut newest = probe.newest.subscribe();
        let (stop, tasks) = (CancellationToken::new(), runtime::Tasks::new());
        let (run, over) = (Arc::clone(&probe), stop.clone());
        tasks.spawn("probe", async move { run.run(Duration::from_millis(5), over).await });
        newest.wait_for(Option::is_some).await.unwrap();
        let first = probe.newest().unwrap();
        assert_eq!((first.npus[0].health.as_str(), first.npus[0].slot), ("OK", Some(0)));
        put("OK", "95.0");
        newest.wait_for(|h| h.as_ref().is_some_and(|h| h.npus[0].power_w == Some(95.0))).await.unwrap();
        assert!(!differs(Some(&first), probe.newest().as_deref()));
        put("Alarm", "95.0");
        newest.wait_for(|h| h.as_ref().is_some_and(|h| h.npus[0].health == "Alarm")).await.unwrap();
        assert!(differs(Some(&first), probe.newest().as_deref()) && differs(None, Some(&first)));
        stop.cancel();
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
