//! A report for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{Npu, Report};
use super::value::Quantity;

/// Version of the contract.
const VERSION: &str = "qctl/v1";

#[derive(Serialize)]
struct Document<'a> {
    api_version: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// The report as indented JSON.
///
/// # Errors
///
/// None that is known: the report holds nothing that JSON does not.
pub fn json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Document { api_version: VERSION, report })
}

/// The report as tables.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    if report.npus.is_empty() {
        text.push_str("no NPU was seen\n");
    } else {
        let header =
            ["NPU", "CHIP", "PHY", "NAME", "HEALTH", "POWER", "TEMP", "AICORE", "MEMORY", "HBM", "BUS", "CODES"];
        rows(&mut text, &header.map(str::to_owned), report.npus.iter().map(line).collect());
    }
    if !report.processes.is_empty() {
        text.push('\n');
        let of = |process: &super::Process| {
            let name = process.name.clone().unwrap_or_default();
            [shown(process.npu), shown(process.chip), shown(process.pid), name, unit(process.memory_mib, "MiB")]
        };
        let header = ["NPU", "CHIP", "PID", "NAME", "MEMORY"].map(str::to_owned);
        rows(&mut text, &header, report.processes.iter().map(of).collect());
    }
    for (what, version) in [("driver", &report.driver), ("firmware", &report.firmware), ("cann", &report.cann)] {
        if let Some(version) = version {
            let _ = writeln!(text, "{what} {version}");
        }
    }
    text
}

/// What was not understood, one line each.
#[must_use]
pub fn notes(report: &Report) -> Vec<String> {
    let place = |file: &str, line: usize| match (file, line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    report.notes.iter().map(|note| format!("note: {}{}", place(&note.file, note.line), note.text)).collect()
}

fn line(npu: &Npu) -> [String; 12] {
    let quantity = |value: Option<Quantity>, unit: &str| value.map_or("-".to_owned(), |q| format!("{} {unit}", q.0));
    let usage = |used: Option<u64>, total: Option<u64>| match (used, total) {
        (None, None) => "-".to_owned(),
        (used, total) => format!("{}/{} MiB", shown(used), shown(total)),
    };
    let health =
        if npu.health.word() == "OK" && !npu.health_confirmed { "OK (by the table)" } else { npu.health.word() };
    [
        shown(npu.id),
        shown(npu.chip),
        shown(npu.phy_id),
        npu.name.clone().unwrap_or_else(|| "-".to_owned()),
        health.to_owned(),
        quantity(npu.power_w, "W"),
        quantity(npu.temperature_c, "C"),
        quantity(npu.aicore_percent, "%"),
        usage(npu.memory_used_mib, npu.memory_total_mib),
        usage(npu.hbm_used_mib, npu.hbm_total_mib),
        npu.bus_id.clone().unwrap_or_else(|| "-".to_owned()),
        npu.error_codes.join(" "),
    ]
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn unit(value: Option<impl ToString>, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{} {unit}", value.to_string()))
}

fn rows<const N: usize>(text: &mut String, header: &[String; N], lines: Vec<[String; N]>) {
    let width = |at: usize| lines.iter().chain([header]).map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for line in std::iter::once(header).chain(&lines) {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}
