//! What the controller says about itself and its agents.

use std::time::Instant;

use proto::v1;
use runtime::clock::now_ms;

use super::here::told;
use super::{Check, Verdict, disk};
use crate::client::Client;
use crate::failure::START;
use crate::text::{duration, program};

/// Clocks that differ by more are worth a warning.
const SKEW_MS: u64 = 2000;

/// The controller and its nodes; the nodes too, if they could be asked for.
pub(super) async fn all(mut client: Client) -> (Option<Vec<v1::NodeView>>, Vec<Check>) {
    let (began, began_ms) = (Instant::now(), now_ms());
    let status = match client.cluster.status(v1::StatusRequest {}).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return (None, vec![told("controller", status.into(), START)]),
    };
    let took = began.elapsed();
    let mut checks = vec![version(&status, took.as_millis())];
    checks.extend(clock(status.now_ms, began_ms, now_ms()));
    checks.extend(store(&status));
    let nodes = match client.nodes.list(v1::ListNodesRequest {}).await {
        Ok(reply) => reply.into_inner().nodes,
        Err(status) => {
            checks.push(told("nodes", status.into(), START));
            return (None, checks);
        }
    };
    if nodes.is_empty() {
        let none = Check::new(Verdict::Fail, "nodes", "no agent has joined, so nothing can run");
        checks.push(none.next("start an agent on each host: qctl-agent run --help"));
    }
    nodes.iter().for_each(|node| checks.extend(about(node, &status.version)));
    (Some(nodes), checks)
}

fn version(status: &v1::StatusReply, ms: u128) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return Check::ok("controller", format!("version {own}, answers in {ms} ms"));
    }
    let told = format!("it has version {}, this program {own}", status.version);
    Check::new(Verdict::Warn, "controller", told).next("install the same version on all computers")
}

/// Where the controller remembers, and what is wrong with that.
fn store(status: &v1::StatusReply) -> Vec<Check> {
    // A controller that does not say.
    if status.store.is_empty() {
        return Vec::new();
    }
    if status.alarms.is_empty() {
        return vec![Check::ok("store", status.store.clone())];
    }
    let alarm = |alarm: &v1::Alarm| {
        Check::new(Verdict::Fail, "store", alarm.message.clone()).of(&alarm.code).next(alarm.hint.clone())
    };
    status.alarms.iter().map(alarm).collect()
}

/// Compares the controller's clock with this computer's before and after the question.
fn clock(theirs: u64, before: u64, after: u64) -> Option<Check> {
    // A controller that does not tell its time.
    let theirs = Some(theirs).filter(|ms| *ms > 0)?;
    let off = before.saturating_sub(theirs).max(theirs.saturating_sub(after));
    if off <= SKEW_MS {
        return Some(Check::ok("clock", "this computer and the controller agree"));
    }
    let told = format!("this computer and the controller differ by {}", duration(off));
    Some(
        Check::new(Verdict::Warn, "clock", told).next("set both by NTP: times in logs and events are the controller's"),
    )
}

/// Compares the clock of a node that speaks with the controller's, by its newest beat.
fn clock_of(node: &v1::NodeView) -> Option<Check> {
    if node.phase != "ready" {
        return None;
    }
    let Some(ahead) = node.clock_ahead_ms else {
        let untold = Check::new(Verdict::Unknown, "clock", "its agent does not tell its time").of(&node.id);
        return Some(untold.next("install the same version on all computers"));
    };
    let off = ahead.unsigned_abs();
    if off <= SKEW_MS {
        return Some(Check::ok("clock", "agrees with the controller's").of(&node.id));
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let told = Check::new(Verdict::Warn, "clock", format!("it is {} {way} the controller's", duration(off)));
    Some(told.of(&node.id).next("set both by NTP: certificates, checkpoints and logs need clocks that agree"))
}

fn about(node: &v1::NodeView, version: &str) -> Vec<Check> {
    let heard = || duration(now_ms().saturating_sub(node.last_heard_ms));
    let see = format!("look at its agent's log on host {}, and at the network between", node.hostname);
    let phase = match node.phase.as_str() {
        "ready" => Check::ok("node", format!("ready, {} {} slots", node.slots, crate::view::device(node))),
        "unheard" => Check::new(Verdict::Unknown, "node", "not heard since the controller started").next(see),
        "suspect" => {
            Check::new(Verdict::Warn, "node", format!("silent for {}: it gets no new work", heard())).next(see)
        }
        other => Check::new(Verdict::Fail, "node", format!("{other}, silent for {}", heard())).next(see),
    };
    let mut checks = vec![phase.of(&node.id)];
    if let Some(cordon) = &node.cordon {
        let why = if cordon.reason.is_empty() { String::new() } else { format!(": {}", cordon.reason) };
        let aside =
            Check::new(Verdict::Warn, "cordon", format!("set aside by {}{why}; it gets no new work", cordon.by));
        checks.push(aside.of(&node.id).next(format!("when it may work again: {} uncordon {}", program(), node.id)));
    }
    if node.version != version {
        let told = format!("it has version {}, the controller {version}", node.version);
        let other = Check::new(Verdict::Warn, "agent", told).of(&node.id);
        checks.push(other.next("install the same version on all computers"));
    }
    checks.extend(clock_of(node));
    checks.push(match &node.health {
        Some(health) => disk(node.id.clone(), health.disk_free),
        None => Check::new(Verdict::Unknown, "disk", "its agent has not said how much is free").of(&node.id),
    });
    checks.extend(npus(node));
    checks.extend(links(node));
    if !node.quarantined.is_empty() {
        let told = format!("runs what the controller does not know: {}", node.quarantined.join(", "));
        let unknown = Check::new(Verdict::Warn, "unknown-attempts", told).of(&node.id);
        checks.push(unknown.next(format!("nothing stops it; see it with: {} nodes -o wide", program())));
    }
    checks
}

/// A host with NPUs is judged by the worst of them.
fn npus(node: &v1::NodeView) -> Option<Check> {
    let health = node.npus.as_ref().filter(|health| !health.npus.is_empty() || !health.error.is_empty())?;
    let worst = health.npus.iter().map(|npu| match npu.health.as_str() {
        "OK" => Verdict::Ok,
        "Warning" => Verdict::Warn,
        "Alarm" | "Critical" => Verdict::Fail,
        _ => Verdict::Unknown,
    });
    let verdict = worst.max().unwrap_or(Verdict::Unknown);
    let told = if health.npus.is_empty() { health.error.clone() } else { crate::command::npus::summary(node) };
    let check = Check::new(verdict, "npus", told).of(&node.id);
    if verdict == Verdict::Ok {
        return Some(check);
    }
    Some(check.next(format!("see each NPU and its error codes: {} nodes {}", program(), node.id)))
}

/// Faults of an NPU's network, in `hccn_tool`'s words; that no address to probe is configured is none.
const FAULTS: [&str; 6] = ["Socket fail", "Receive timeout", "Unreachable", "Time exceeded", "Fault", "Thread error"];

/// The network ports of a host's NPUs, where somebody says how they fare.
fn links(node: &v1::NodeView) -> Option<Check> {
    let all = &node.npus.as_ref()?.npus;
    let asked = all.iter().filter(|npu| !npu.link.is_empty() || !npu.network.is_empty()).count();
    if asked == 0 {
        return None;
    }
    let mut told = Vec::new();
    let mut worst = Verdict::Ok;
    for npu in all {
        let (verdict, what) = match (npu.link.as_str(), npu.network.as_str()) {
            ("DOWN", _) => (Verdict::Fail, "link DOWN".to_owned()),
            (_, network) if FAULTS.contains(&network) => (Verdict::Warn, format!("network: {network}")),
            ("UNKNOWN", _) => (Verdict::Unknown, "link UNKNOWN".to_owned()),
            (_, "UNKNOWN") => (Verdict::Unknown, "network UNKNOWN".to_owned()),
            _ => continue,
        };
        worst = worst.max(verdict);
        let id = npu.phy_id.or(npu.id).map_or_else(|| "?".to_owned(), |id| id.to_string());
        told.push(format!("NPU {id} {what}"));
    }
    if worst == Verdict::Ok {
        return Some(Check::ok("links", format!("{asked} network ports are up")).of(&node.id));
    }
    let check = Check::new(worst, "links", told.join(", ")).of(&node.id);
    Some(check.next("on that host, as root: hccn_tool -i N -link -g, -net_health -g, -ip -g; look at cable and switch"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn clocks_agree_within_the_time_of_the_question() {
        let verdict = |theirs, before, after| clock(theirs, before, after).map(|check| check.verdict);
        assert_eq!(verdict(0, 1, 2), None);
        assert_eq!(verdict(10_000, 9_000, 11_000), Some(Verdict::Ok));
        assert_eq!(verdict(10_000, 12_001, 12_002), Some(Verdict::Warn));
        assert_eq!(verdict(10_000, 7_000, 7_999), Some(Verdict::Warn));
    }

    #[test]
    fn a_node_s_clock_is_judged_while_it_speaks() {
        let of = |phase: &str, clock_ahead_ms| {
            clock_of(&v1::NodeView { phase: phase.into(), clock_ahead_ms, ..v1::NodeView::default() })
        };
        let verdict = |ahead| of("ready", ahead).map(|check| check.verdict);
        assert_eq!(verdict(None), Some(Verdict::Unknown));
        assert_eq!((verdict(Some(0)), verdict(Some(-2000))), (Some(Verdict::Ok), Some(Verdict::Ok)));
        assert_eq!((verdict(Some(2001)), verdict(Some(i64::MIN))), (Some(Verdict::Warn), Some(Verdict::Warn)));
        assert_eq!(of("ready", Some(-61_000)).unwrap().message, "it is 1 m 1 s behind the controller's");
        assert_eq!(of("lost", Some(9_000)), None, "what it said last says nothing of today");
    }

    #[test]
    fn the_worst_npu_speaks_for_its_host() {
        let npu = |health: &str| v1::Npu { id: Some(3), health: health.into(), ..v1::Npu::default() };
        let of = |npus: Vec<v1::Npu>, error: &str| {
            let npus = Some(v1::NpuHealth { npus, error: error.into(), ..v1::NpuHealth::default() });
            self::npus(&v1::NodeView { npus, ..v1::NodeView::default() })
        };
        let verdict = |words: &[&str]| of(words.iter().map(|word| npu(word)).collect(), "").map(|check| check.verdict);
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&["OK", "OK"]), Some(Verdict::Ok));
        assert_eq!(verdict(&["OK", "Warning"]), Some(Verdict::Warn));
        assert_eq!(verdict(&["Alarm", "Warning"]), Some(Verdict::Fail));
        assert_eq!(verdict(&["OK", "odd"]), Some(Verdict::Unknown));
        let unseen = of(vec![], "npu-smi was not found").unwrap();
        assert_eq!((unseen.verdict, unseen.message.as_str()), (Verdict::Unknown, "npu-smi was not found"));
    }

    #[test]
    fn the_worst_network_port_speaks_for_its_host() {
        let of = |ports: &[(&str, &str)]| {
            let npu = |(link, network): &(&str, &str)| v1::Npu {
                id: Some(3),
                link: (*link).into(),
                network: (*network).into(),
                ..v1::Npu::default()
            };
            let npus = Some(v1::NpuHealth { npus: ports.iter().map(npu).collect(), ..v1::NpuHealth::default() });
            links(&v1::NodeView { npus, ..v1::NodeView::default() })
        };
        let verdict = |ports: &[(&str, &str)]| of(ports).map(|check| check.verdict);
        assert_eq!(verdict(&[("", "")]), None, "nobody says");
        assert_eq!(
            verdict(&[("UP", "Success"), ("UP", "Init"), ("UP", "Detect ip set"), ("UP", "")]),
            Some(Verdict::Ok)
        );
        assert_eq!(verdict(&[("UP", "Success"), ("UNKNOWN", "")]), Some(Verdict::Unknown));
        assert_eq!(verdict(&[("UP", "UNKNOWN")]), Some(Verdict::Unknown));
        for fault in FAULTS {
            assert_eq!(verdict(&[("UP", fault)]), Some(Verdict::Warn), "{fault}");
        }
        let down = of(&[("UP", "Fault"), ("DOWN", "Fault")]).unwrap();
        assert_eq!((down.verdict, down.message.as_str()), (Verdict::Fail, "NPU 3 network: Fault, NPU 3 link DOWN"));
        assert!(down.next.is_some());
    }

    #[test]
    fn every_trouble_of_a_node_is_named() {
        let node = v1::NodeView {
            id: "n1".into(),
            phase: "lost".into(),
            version: "0.0.9".into(),
            quarantined: vec!["j9.train.0.1".into()],
            cordon: Some(v1::CordonView::default()),
            ..v1::NodeView::default()
        };
        let told: Vec<(&str, Verdict)> = about(&node, "0.1.0").iter().map(|one| (one.check, one.verdict)).collect();
        let wanted = [
            ("node", Verdict::Fail),
            ("cordon", Verdict::Warn),
            ("agent", Verdict::Warn),
            ("disk", Verdict::Unknown),
            ("unknown-attempts", Verdict::Warn),
        ];
        assert_eq!(told, wanted);
        assert!(about(&node, "0.1.0").iter().filter(|one| one.verdict >= Verdict::Warn).all(|one| one.next.is_some()));
    }
}
