//! NPUs, their driver, and CANN.

use std::path::PathBuf;

use proto::v1::{Assignment, PreflightBody};

use super::Finding;
use crate::launch::Environment;
use crate::probe::{Health, Npu, Probe, Process, Report, Versions, versions};
use crate::refusal::Refusal;
use crate::shim::proc;

/// What can be required by a version that packages leave in files.
pub(super) const VERSIONS: [&str; 3] = ["cann", "driver", "firmware"];
/// Variables of a job that say where CANN is.
const CANN: [&str; 2] = ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"];
/// Which CANN a MindSpore is released for, by its installation guide.
const PAIRS: [(&str, &str); 4] = [("2.6.0", "8.1.RC1"), ("2.7.0", "8.2.RC1"), ("2.7.1", "8.3.RC1"), ("2.7.2", "8.5.0")];
/// Most ancestors of a process that are looked at.
const ANCESTORS: usize = 64;

/// What a look at this node's NPUs and packages saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    report: Option<Report>,
    versions: Versions,
}

impl Seen {
    /// Looks at once, with the job's own variables.
    pub(super) async fn look(probe: &Probe, env: &Environment) -> Self {
        let homes: Vec<PathBuf> = CANN.iter().filter_map(|name| env.get(*name)).map(PathBuf::from).collect();
        let (report, versions) = probe.look(&homes).await;
        Self { report, versions }
    }

    /// Whether what is required by version is there.
    pub(super) fn version(&self, name: &str, body: &PreflightBody) -> Vec<Finding> {
        let required = body.require.get(name).map(String::as_str).unwrap_or_default();
        let found = match name {
            "cann" => &self.versions.cann,
            "driver" => &self.versions.driver,
            _ => &self.versions.firmware,
        };
        let Some(found) = found else {
            return vec![Finding::Fail(Refusal::new(
                format!("the version of {name} is not known on this node, {required} is required"),
                match name {
                    "cann" => "install CANN, or name its set_env.sh in `runtime.source`, so that it is found",
                    _ => "install the Ascend driver and firmware below /usr/local/Ascend",
                },
            ))];
        };
        let mut findings = Vec::new();
        if versions::fits(found, required) {
            findings.push(Finding::Ok(format!("{name} {found}")));
        } else {
            findings.push(Finding::Fail(Refusal::new(
                format!("{name} is {found}, {required} is required"),
                format!("install {name} {required} on this node, or correct `preflight.require`"),
            )));
        }
        let mindspore = body.require.get("mindspore").map(String::as_str).unwrap_or_default();
        let pair = PAIRS.iter().find(|(version, _)| *version == mindspore).filter(|_| name == "cann");
        if let Some((_, cann)) = pair.filter(|(_, cann)| !versions::fits(found, cann)) {
            findings.push(Finding::Note(format!("MindSpore {mindspore} is released for CANN {cann}, not {found}")));
        }
        findings
    }

    /// Whether the NPUs that work may be put on are there, healthy and free.
    pub(super) fn devices(&self, assignment: &Assignment, slots: u32) -> Vec<Finding> {
        let fail = |message: String, hint: &str| Finding::Fail(Refusal::new(message, hint));
        let install = "install the Ascend driver and put `npu-smi` in PATH, or set `runtime.device: cpu`";
        let Some(report) = &self.report else {
            return vec![fail("this node has no NPUs: its agent runs with `device: cpu`".to_owned(), install)];
        };
        if report.npus.is_empty() {
            let why = report.error.as_deref().unwrap_or("`npu-smi info` lists none");
            return vec![fail(format!("this node shows no NPU: {why}"), install)];
        }
        let all: Vec<u32> = (0..slots).collect();
        let wanted = if assignment.slots.is_empty() { &all } else { &assignment.slots };
        let mut findings = Vec::new();
        let (mut good, mut by_table) = (0_usize, 0_usize);
        for slot in wanted {
            let Some(npu) = report.slot(*slot) else {
                let message = format!("slot {slot} of this node has no NPU: `npu-smi` shows {}", report.npus.len());
                findings.push(fail(message, "correct the agent's `slots`, or see why an NPU is gone"));
                continue;
            };
            let before = findings.len();
            findings.extend(health(npu));
            findings.extend(others(report, npu));
            good += usize::from(findings.len() == before);
            by_table += usize::from(!npu.health_confirmed);
        }
        if good > 0 {
            findings.insert(0, Finding::Ok(format!("{good} of {} NPUs are healthy and free", wanted.len())));
        }
        if by_table > 0 {
            findings.push(Finding::Note(format!("of {by_table} NPUs only the table speaks, not `-t health`")));
        }
        findings
    }
}

fn health(npu: &Npu) -> Option<Finding> {
    let codes = if npu.error_codes.is_empty() { String::new() } else { format!(" ({})", npu.error_codes.join(" ")) };
    let message = format!("{} is {}{codes}", npu.label(), npu.health.word());
    if npu.health == Health::Ok {
        return None;
    }
    if npu.health.is_usable() {
        return Some(Finding::Note(message));
    }
    let hint = format!("see `npu-smi info -t health -i {}` on this node", npu.id.unwrap_or_default());
    Some(Finding::Fail(Refusal::new(message, hint)))
}

/// Processes on an NPU that no shim started.
fn others(report: &Report, npu: &Npu) -> Vec<Finding> {
    let on = |process: &&Process| {
        let same = process.chip.is_none() || npu.chip.is_none() || process.chip == npu.chip;
        process.npu == npu.id && same
    };
    let on_it: Vec<&Process> = report.processes.iter().filter(on).collect();
    if on_it.is_empty() {
        let (Some(used), Some(total)) = (npu.hbm_used_mib, npu.hbm_total_mib) else { return Vec::new() };
        // An idle chip uses about a twentieth for itself.
        let note = format!("{} lists no process and has {used} of {total} MiB of HBM in use", npu.label());
        return if used > total / 8 { vec![Finding::Note(note)] } else { Vec::new() };
    }
    let strange = on_it.into_iter().filter(|process| !process.pid.is_some_and(is_ours));
    let finding = |process: &Process| {
        let pid = process.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let name = process.name.as_deref().unwrap_or("no name");
        Finding::Fail(Refusal::new(
            format!("{} is used by process {pid} ({name}), which qctl did not start", npu.label()),
            "end that process, or wait for it",
        ))
    };
    strange.map(finding).collect()
}

/// Whether a shim is an ancestor of the process, or leads its session.
fn is_ours(pid: u64) -> bool {
    let is_shim = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "qctl-shim")
    };
    let mut at = i32::try_from(pid).ok().and_then(proc::stat);
    for _ in 0..ANCESTORS {
        let Some(stat) = at else { return false };
        if is_shim(stat.pid) || is_shim(stat.session) {
            return true;
        }
        at = proc::stat(stat.ppid).filter(|parent| parent.pid > 1);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::probe::Source;

    async fn seen(recording: &str) -> Seen {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(recording);
        Seen::look(&Probe::new(Some(Source::Recording(dir)), 8), &Environment::new()).await
    }

    fn failures(findings: &[Finding]) -> Vec<String> {
        let text = |finding: &Finding| match finding {
            Finding::Fail(refusal) => Some(refusal.message.clone()),
            Finding::Ok(_) | Finding::Note(_) => None,
        };
        findings.iter().filter_map(text).collect()
    }

    #[tokio::test]
    async fn npus_must_be_there_healthy_and_free() {
        let slots = |slots: &[u32]| Assignment { slots: slots.to_vec(), ..Assignment::default() };
        let bad = seen("910b-alarm").await;
        let wanted = [
            "NPU 2 is used by process 4242 (python3.10), which qctl did not start",
            "NPU 3 is Alarm (80E01801 81078603)",
            "NPU 5 is UNKNOWN",
        ];
        assert_eq!(failures(&bad.devices(&Assignment::default(), 8)), wanted);
        // Only the slots that are meant count; a warning is no obstacle.
        let some = bad.devices(&slots(&[0, 6]), 8);
        assert!(failures(&some).is_empty());
        assert!(some.contains(&Finding::Ok("1 of 2 NPUs are healthy and free".into())), "{some:?}");
        assert!(some.contains(&Finding::Note("NPU 6 is Warning".into())), "{some:?}");
        let good = seen("910b-healthy").await;
        assert_eq!(good.devices(&Assignment::default(), 2), [Finding::Ok("2 of 2 NPUs are healthy and free".into())]);
        let three = good.devices(&Assignment::default(), 3);
        assert_eq!(failures(&three), ["slot 2 of this node has no NPU: `npu-smi` shows 2"]);
        let none = seen("no-driver").await.devices(&Assignment::default(), 8);
        assert!(failures(&none)[0].contains("-8005"), "{none:?}");
        assert_eq!(failures(&Seen::default().devices(&Assignment::default(), 1)).len(), 1);
    }

    #[tokio::test]
    async fn versions_are_compared_with_what_packages_say() {
        let require = [("cann", "8.2.RC1"), ("driver", "25.2.RC1"), ("mindspore", "2.7.1")];
        let require = require.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        let body = PreflightBody { require, ..PreflightBody::default() };
        let seen = seen("910b-healthy").await;
        let note = "MindSpore 2.7.1 is released for CANN 8.3.RC1, not 8.2.RC1";
        assert_eq!(seen.version("cann", &body), [Finding::Ok("cann 8.2.RC1".into()), Finding::Note(note.into())]);
        assert_eq!(failures(&seen.version("driver", &body)), ["driver is 25.2.0, 25.2.RC1 is required"]);
        let nothing = Seen::default().version("cann", &body);
        assert_eq!(failures(&nothing), ["the version of cann is not known on this node, 8.2.RC1 is required"]);
    }

    #[test]
    fn a_process_that_no_shim_started_is_another_s() {
        assert!(!is_ours(u64::from(std::process::id())));
        assert!(!is_ours(u64::MAX) && !is_ours(0));
    }
}
