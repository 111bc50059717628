//! One node's NPUs, for people.

use proto::v1;

use crate::failure::Failure;
use crate::output::{print_line, say};
use crate::table::print_table;
use crate::text::one_line;

/// `8 OK`, or `7/8 OK: NPU 3 Alarm`; empty where nothing is known.
pub(super) fn summary(node: &v1::NodeView) -> String {
    let Some(health) = &node.npus else { return String::new() };
    if health.npus.is_empty() {
        return if health.error.is_empty() { "none".to_owned() } else { "not seen".to_owned() };
    }
    let bad: Vec<String> = health.npus.iter().filter(|npu| npu.health != "OK").map(named).collect();
    let all = health.npus.len();
    match bad.len() {
        0 => format!("{all} OK"),
        count => format!("{}/{all} OK: {}", all - count, bad.join(", ")),
    }
}

fn named(npu: &v1::Npu) -> String {
    let id = npu.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    match npu.chip {
        Some(chip) if chip > 0 => format!("NPU {id} chip {chip} {}", npu.health),
        Some(_) | None => format!("NPU {id} {}", npu.health),
    }
}

/// Prints a node, its NPUs, and the processes on them.
pub(super) fn show(node: &v1::NodeView) -> Result<(), Failure> {
    print_table(super::nodes::HEADER, vec![super::nodes::line(node)])?;
    let Some(health) = &node.npus else {
        say("no probe of this node's NPUs is known");
        return Ok(());
    };
    for (what, version) in [("driver", &health.driver), ("firmware", &health.firmware), ("cann", &health.cann)] {
        if !version.is_empty() {
            print_line(&one_line(&format!("{what} {version}")))?;
        }
    }
    if !health.error.is_empty() {
        say(&one_line(&format!("its NPUs cannot be seen: {}", health.error)));
    }
    if !health.npus.is_empty() {
        print_line("")?;
        let header =
            ["SLOT", "NPU", "CHIP", "PHY", "NAME", "HEALTH", "POWER", "TEMP", "AICORE", "HBM", "LINK", "CODES"];
        print_table(header, health.npus.iter().map(line).collect())?;
    }
    if !health.processes.is_empty() {
        print_line("")?;
        let of = |process: &v1::NpuProcess| {
            let memory = process.memory_mib.map_or_else(|| "-".to_owned(), |memory| format!("{memory} MiB"));
            [shown(process.npu), shown(process.chip), shown(process.pid), process.name.clone(), memory]
        };
        print_table(["NPU", "CHIP", "PID", "PROCESS", "MEMORY"], health.processes.iter().map(of).collect())?;
    }
    Ok(())
}

fn line(npu: &v1::Npu) -> [String; 12] {
    let measured = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value} {unit}"));
    let hbm = match (npu.hbm_used_mib, npu.hbm_total_mib) {
        (None, None) => "-".to_owned(),
        (used, total) => format!("{}/{} MiB", shown(used), shown(total)),
    };
    [
        shown(npu.slot),
        shown(npu.id),
        shown(npu.chip),
        shown(npu.phy_id),
        npu.name.clone(),
        npu.health.clone(),
        measured(npu.power_w, "W"),
        measured(npu.temperature_c, "C"),
        measured(npu.aicore_percent, "%"),
        hbm,
        port(npu),
        npu.error_codes.join(" "),
    ]
}

/// `UP`, or `UP, Unreachable`.
fn port(npu: &v1::Npu) -> String {
    let said = [&npu.link, &npu.network].into_iter().filter(|word| !word.is_empty() && *word != "Success");
    let said: Vec<&str> = said.map(String::as_str).collect();
    if said.is_empty() { "-".to_owned() } else { said.join(", ") }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_is_not_well() {
        let npu = |id, chip, health: &str| v1::Npu { id: Some(id), chip, health: health.into(), ..v1::Npu::default() };
        let of = |npus, error: &str| {
            let npus = Some(v1::NpuHealth { npus, error: error.into(), ..v1::NpuHealth::default() });
            summary(&v1::NodeView { npus, ..v1::NodeView::default() })
        };
        assert_eq!(summary(&v1::NodeView::default()), "");
        assert_eq!(of(vec![npu(0, Some(0), "OK"), npu(1, None, "OK")], ""), "2 OK");
        let bad = vec![npu(0, Some(0), "OK"), npu(0, Some(1), "Alarm"), npu(1, Some(0), "UNKNOWN")];
        assert_eq!(of(bad, ""), "1/3 OK: NPU 0 chip 1 Alarm, NPU 1 UNKNOWN");
        assert_eq!((of(Vec::new(), ""), of(Vec::new(), "x")), ("none".to_owned(), "not seen".to_owned()));
    }
}
