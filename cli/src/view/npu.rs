//! A node's NPUs in the JSON contract. `null` = the tool does not say.

use proto::v1;
use serde::Serialize;

use super::{given, known};

/// What a node's newest probe says.
#[derive(Debug, Serialize)]
pub(crate) struct Npus {
    at_ms: Option<u64>,
    driver: Option<String>,
    firmware: Option<String>,
    cann: Option<String>,
    error: Option<String>,
    npus: Vec<Npu>,
    processes: Vec<Process>,
}

#[derive(Debug, Serialize)]
struct Npu {
    id: Option<u32>,
    chip: Option<u32>,
    phy_id: Option<u32>,
    slot: Option<u32>,
    name: Option<String>,
    health: String,
    confirmed: bool,
    power_w: Option<f64>,
    temperature_c: Option<f64>,
    bus_id: Option<String>,
    aicore_percent: Option<f64>,
    memory_used_mib: Option<u64>,
    memory_total_mib: Option<u64>,
    hbm_used_mib: Option<u64>,
    hbm_total_mib: Option<u64>,
    error_codes: Vec<String>,
    link: Option<String>,
    network: Option<String>,
}

#[derive(Debug, Serialize)]
struct Process {
    npu: Option<u32>,
    chip: Option<u32>,
    pid: Option<u64>,
    name: Option<String>,
    memory_mib: Option<u64>,
}

impl From<v1::NpuHealth> for Npus {
    fn from(health: v1::NpuHealth) -> Self {
        let npu = |npu: v1::Npu| Npu {
            id: npu.id,
            chip: npu.chip,
            phy_id: npu.phy_id,
            slot: npu.slot,
            name: given(npu.name),
            health: npu.health,
            confirmed: npu.confirmed,
            power_w: npu.power_w,
            temperature_c: npu.temperature_c,
            bus_id: given(npu.bus_id),
            aicore_percent: npu.aicore_percent,
            memory_used_mib: npu.memory_used_mib,
            memory_total_mib: npu.memory_total_mib,
            hbm_used_mib: npu.hbm_used_mib,
            hbm_total_mib: npu.hbm_total_mib,
            error_codes: npu.error_codes,
            link: given(npu.link),
            network: given(npu.network),
        };
        let process = |process: v1::NpuProcess| Process {
            npu: process.npu,
            chip: process.chip,
            pid: process.pid,
            name: given(process.name),
            memory_mib: process.memory_mib,
        };
        Self {
            at_ms: known(health.at_ms),
            driver: given(health.driver),
            firmware: given(health.firmware),
            cann: given(health.cann),
            error: given(health.error),
            npus: health.npus.into_iter().map(npu).collect(),
            processes: health.processes.into_iter().map(process).collect(),
        }
    }
}
