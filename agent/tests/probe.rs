//! What is understood of recordings, as the program prints it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qctl-agent")).arg("probe").args(args).output().unwrap()
}

/// A directory of the project's own.
fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

fn probed(dir: &Path) -> Value {
    let output = program(&["--recording", dir.to_str().unwrap(), "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A recording with the one output that a fixture is; none without fixtures.
fn of_fixture(name: &str) -> Option<tempfile::TempDir> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("QCTL_REFERENCE_DATA").map_or(default, PathBuf::from);
    let file = root.join("fixtures/ascend").join(name);
    if !file.is_file() {
        println!("skipped: no reference data at {} (set QCTL_REFERENCE_DATA)", root.display());
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(file, dir.path().join("npu-smi_info.txt")).unwrap();
    Some(dir)
}

/// The fields of `npus[at]` that `wanted` names.
fn assert_npu(report: &Value, at: usize, wanted: &Value) {
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&report["npus"][at][name], value, "npus[{at}].{name}");
    }
}

#[test]
fn every_known_layout_is_understood() {
    let table = [
        (
            "npu-smi-info.910B3.24.1.rc1.txt",
            8,
            7,
            json!({ "id": 7, "chip": 0, "phy_id": null, "name": "910B3", "health": "OK", "power_w": 98.2,
                "temperature_c": 44, "bus_id": "0000:42:00.0", "aicore_percent": 0, "memory_used_mib": 0,
                "memory_total_mib": 0, "hbm_used_mib": 3315, "hbm_total_mib": 65536, "error_codes": [] }),
        ),
        (
            "npu-smi-info.A3.25.2.0.two-cards.procs.txt",
            4,
            3,
            json!({ "id": 1, "chip": 1, "phy_id": 3, "name": "Ascend910", "health": "OK", "power_w": null,
                "temperature_c": 38, "bus_id": "0000:39:00.0", "hbm_used_mib": 10568, "hbm_total_mib": 65536 }),
        ),
        (
            "npu-smi-info.A3.warning.zstack-test.rows.txt",
            4,
            1,
            json!({ "id": 0, "chip": 1, "phy_id": 1, "health": "Warning", "power_w": null, "hbm_used_mib": 2887 }),
        ),
        (
            "npu-smi-info.310P3.25.3.rc1.txt",
            1,
            0,
            json!({ "id": 6, "chip": 0, "phy_id": null, "logic_id": 0, "name": "310P3", "power_w": null,
                "temperature_c": 50, "memory_used_mib": 1839, "memory_total_mib": 21525, "hbm_used_mib": null,
                "hbm_total_mib": null }),
        ),
        (
            "npu-smi-info.310P3.old-narrow.txt",
            2,
            1,
            json!({ "id": 1, "chip": 0, "phy_id": null, "logic_id": 1, "power_w": 15.4, "memory_used_mib": 1070 }),
        ),
        ("npu-smi-info.310.23.0.0.txt", 1, 0, json!({ "id": 0, "name": "310", "memory_total_mib": 7759 })),
        (
            "npu-smi-info.910A.23.0.procs.doc.txt",
            8,
            3,
            json!({ "id": 3, "memory_used_mib": 3845, "memory_total_mib": 15039, "hbm_used_mib": 30709 }),
        ),
        ("npu-smi-info.910B2C.23.0.2.1.procs.txt", 2, 0, json!({ "name": "910B2C", "hbm_used_mib": 20701 })),
        (
            "npu-smi-info.950.doc.txt",
            1,
            0,
            json!({ "id": 0, "chip": null, "health": "OK", "power_w": 204.4, "aicore_percent": null,
                "npu_percent": 0, "hbm_used_mib": 4439, "hbm_total_mib": 86016 }),
        ),
    ];
    for (name, chips, at, wanted) in table {
        let Some(dir) = of_fixture(name) else { return };
        let report = probed(dir.path());
        assert_eq!(report["npus"].as_array().unwrap().len(), chips, "{name}");
        assert_npu(&report, at, &wanted);
        assert_eq!(report["notes"], json!([]), "{name}");
    }
}

#[test]
fn processes_are_listed_and_idle_cards_have_none() {
    for (name, count, first) in [
        (
            "npu-smi-info.A3.25.2.0.two-cards.procs.txt",
            1,
            json!({ "npu": 1, "chip": 1, "pid": 990_711, "name": "python", "memory_mib": 7746 }),
        ),
        (
            "npu-smi-info.910A.23.0.procs.doc.txt",
            8,
            json!({ "npu": 0, "chip": 0, "pid": 139_667, "name": "python", "memory_mib": 30780 }),
        ),
        ("npu-smi-info.310.23.0.0.txt", 0, json!({})),
    ] {
        let Some(dir) = of_fixture(name) else { return };
        let report = probed(dir.path());
        assert_eq!(report["processes"].as_array().unwrap().len(), count, "{name}");
        for (field, value) in first.as_object().unwrap() {
            assert_eq!(&report["processes"][0][field], value, "{name} {field}");
        }
    }
}

#[test]
fn the_worst_of_all_answers_counts() {
    let report = probed(&recording("910b-alarm"));
    let healths: Vec<&str> = report["npus"].as_array().unwrap().iter().map(|n| n["health"].as_str().unwrap()).collect();
    assert_eq!(healths, ["OK", "OK", "OK", "Alarm", "OK", "UNKNOWN", "Warning", "OK"]);
    let codes = json!(["80E01801", "81078603"]);
    assert_npu(&report, 3, &json!({ "health_text": "OK", "health_confirmed": true, "error_codes": codes }));
    assert_npu(&report, 0, &json!({ "health_confirmed": true, "logic_id": 0 }));
    assert_npu(&report, 1, &json!({ "health_confirmed": false, "logic_id": 1, "link": null, "network": null }));
    // A dead link is no fault of the chip.
    assert_npu(&report, 0, &json!({ "link": "UP", "network": "Success", "health": "OK" }));
    assert_npu(&report, 3, &json!({ "link": "DOWN", "network": "Unreachable" }));
    // No first line: everything that stands there is not known, the rest is.
    assert_npu(&report, 5, &json!({ "id": 5, "chip": 0, "health_text": null, "power_w": null, "hbm_used_mib": 3315 }));
    let versions = (&report["driver"], &report["firmware"], &report["cann"]);
    assert_eq!(versions, (&json!("25.2.0"), &json!("25.2.0"), &json!("8.2.RC1")));
}

#[test]
fn a_wide_table_with_a_column_for_containers_is_understood() {
    let report = probed(&recording("a3-critical"));
    assert_npu(&report, 0, &json!({ "name": "9392", "phy_id": 0, "power_w": 160.9, "hbm_used_mib": 3101 }));
    assert_npu(&report, 3, &json!({ "id": 1, "chip": 1, "phy_id": 3, "health": "Critical", "power_w": null }));
    let processes = json!([
        { "npu": 0, "chip": 1, "pid": 990_711, "container_pid": 17, "name": "python", "memory_mib": 7746 },
        { "npu": 0, "chip": 1, "pid": 990_712, "container_pid": null, "name": null, "memory_mib": 112 },
    ]);
    assert_eq!(report["processes"], processes);
}

#[test]
fn without_a_table_the_other_answers_stand() {
    let report = probed(&recording("no-table"));
    assert_npu(&report, 0, &json!({ "phy_id": 4, "health": "UNKNOWN", "power_w": null }));
    assert_npu(&report, 1, &json!({ "phy_id": 5, "logic_id": 1, "health": "OK", "health_confirmed": true }));
    assert_eq!(report["notes"][0]["file"], "npu-smi_info.txt");
}

#[test]
fn an_error_is_an_error_and_is_told() {
    let dir = recording("no-driver");
    let output = program(&["--recording", dir.to_str().unwrap(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["npus"], json!([]));
    assert!(report["error"].as_str().unwrap().contains("-8005"), "{report}");
    let gone = program(&["--recording", "/nowhere/at/all"]);
    assert_eq!(gone.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("hint: "));
    assert_eq!(program(&["--recording"]).status.code(), Some(2));
}

#[test]
fn garbage_is_noted_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut garbage = Vec::new();
    let mut state = 1_u64;
    while garbage.len() < 2 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        garbage.extend_from_slice(&state.to_be_bytes());
        garbage.extend_from_slice(b"| 99999999999999999999 | OK | 1 / 2\0|\n+");
    }
    std::fs::write(dir.path().join("npu-smi_info.txt"), &garbage).unwrap();
    std::fs::write(dir.path().join("npu-smi_info_-t_health_-i_0_-c_0.txt"), &garbage).unwrap();
    let output = program(&["--recording", dir.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["npus"], json!([]));
    assert!(output.stdout.len() < 200_000 && report["notes"].as_array().unwrap().len() <= 201);
}

#[cfg(unix)]
#[test]
fn a_host_s_tool_is_asked_and_its_answers_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("npu-smi");
    // Answers from a recording, and fails where that has no file.
    let answers = recording("910b-alarm");
    let script =
        format!("#!/bin/sh\nIFS=_\ntest \"$LC_ALL\" = C && exec cat \"{}/npu-smi_$*.txt\"\n", answers.display());
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let network = dir.path().join("hccn_tool");
    let script = format!("#!/bin/sh\nIFS=_\nexec cat \"{}/hccn_tool_$*.txt\"\n", answers.display());
    std::fs::write(&network, script).unwrap();
    std::fs::set_permissions(&network, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let kept = dir.path().join("kept");
    let probe = |record: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qctl-agent"));
        command.args(["probe", "-o", "json", "--record", record.to_str().unwrap()]).env("PATH", &path).output().unwrap()
    };
    let output = probe(&kept);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let live: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_npu(&live, 3, &json!({ "health": "Alarm", "link": "DOWN", "network": "Unreachable" }));
    assert_npu(&live, 1, &json!({ "link": null, "network": null }));
    let again = probed(&kept);
    assert_eq!((&again["npus"], &again["processes"]), (&live["npus"], &live["processes"]));
    assert!(std::fs::read_dir(&kept).unwrap().all(|f| !f.unwrap().file_name().to_string_lossy().starts_with('.')));
    let refused = probe(&kept);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not empty"));
}

#[test]
fn every_recorded_word_of_a_network_port_is_understood() {
    let Some(dir) = of_fixture("npu-smi-info.910B3.24.1.rc1.txt") else { return };
    let root = std::env::var_os("QCTL_REFERENCE_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let mut read = 0;
    for entry in std::fs::read_dir(root.join("fixtures/ascend")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((what, word)) = name.strip_prefix("hccn_tool-").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let key = match what {
            "link" => "link",
            "net_health" => "network",
            _ => continue,
        };
        let word = word.trim_end_matches(".txt").replace('_', " ");
        let wanted = if word == "Unknown" { "UNKNOWN".to_owned() } else { word };
        let output = dir.path().join(format!("hccn_tool_-i_2_-{what}_-g.txt"));
        std::fs::copy(root.join("fixtures/ascend").join(&name), output).unwrap();
        assert_eq!(probed(dir.path())["npus"][2][key], json!(wanted), "{name}");
        read += 1;
    }
    assert!(read >= 12, "{read} recordings");
}
