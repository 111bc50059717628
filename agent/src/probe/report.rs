//! What was understood of a host's NPUs: the JSON contract of `qctl-agent probe`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::health::Health;
use super::text::Note;
use super::topology::Topology;
use super::value::Quantity;

/// What was understood of a host's NPUs. `None` = the tool does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Chips, by card and chip.
    pub npus: Vec<Npu>,
    /// Processes on them.
    pub processes: Vec<Process>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Version of CANN.
    pub cann: Option<String>,
    /// Version of the firmware.
    pub firmware: Option<String>,
    /// Version of the tool.
    pub npu_smi: Option<String>,
    /// Links between NPUs.
    pub topology: Option<Topology>,
    /// Why nothing could be told of any NPU.
    pub error: Option<String>,
    /// What was not understood, and what is odd.
    pub notes: Vec<Note>,
}

/// One chip: a device that ranks run on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Npu {
    /// Id of its card.
    pub id: Option<u32>,
    /// Its number on the card.
    pub chip: Option<u32>,
    /// Number of its device file.
    pub phy_id: Option<u32>,
    /// Number that processes know it by.
    pub logic_id: Option<u32>,
    /// Model.
    pub name: Option<String>,
    /// The worst of all that is said about it.
    pub health: Health,
    /// The table's own word.
    pub health_text: Option<String>,
    /// Whether more than the table says so: the table says OK too where the
    /// tool failed to ask the chip.
    pub health_confirmed: bool,
    /// Watts.
    pub power_w: Option<Quantity>,
    /// Degrees Celsius.
    pub temperature_c: Option<Quantity>,
    /// PCI address.
    pub bus_id: Option<String>,
    /// Use of its AI cores.
    pub aicore_percent: Option<Quantity>,
    /// Use of the whole of it.
    pub npu_percent: Option<Quantity>,
    /// Memory other than HBM, used.
    pub memory_used_mib: Option<u64>,
    /// Memory other than HBM, in all; 0 where there is none.
    pub memory_total_mib: Option<u64>,
    /// HBM, used.
    pub hbm_used_mib: Option<u64>,
    /// HBM, in all.
    pub hbm_total_mib: Option<u64>,
    /// Hexadecimal, without `0x`.
    pub error_codes: Vec<String>,
    /// What the driver says to its codes.
    pub error_information: Vec<String>,
    /// Link of its network port: UP, DOWN, UNKNOWN; `None` where nobody says.
    pub link: Option<String>,
    /// How its network fares, in the tool's own word, or UNKNOWN.
    pub network: Option<String>,
    /// Counters of memory errors, in the tool's own words.
    pub ecc: Option<BTreeMap<String, u64>>,
}

/// One process on one chip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Id of the card.
    pub npu: Option<u32>,
    /// Number on the card.
    pub chip: Option<u32>,
    /// Number of the process, as the host counts.
    pub pid: Option<u64>,
    /// Number of the process, as its container counts.
    pub container_pid: Option<u64>,
    /// Its name.
    pub name: Option<String>,
    /// What it holds of the chip's memory.
    pub memory_mib: Option<u64>,
}

impl Report {
    /// The report of a probe that told nothing.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    /// The chip that a slot stands for: the one that processes know by its
    /// number, or the one at its place where the tool gives no such numbers.
    #[must_use]
    pub fn slot(&self, slot: u32) -> Option<&Npu> {
        if self.npus.iter().any(|npu| npu.logic_id.is_some()) {
            return self.npus.iter().find(|npu| npu.logic_id == Some(slot));
        }
        self.npus.get(usize::try_from(slot).ok()?)
    }
}

impl Npu {
    /// Number of its device file, by which its network port is known too: of a card with one chip, the card's.
    #[must_use]
    pub fn device(&self) -> Option<u32> {
        self.phy_id.or_else(|| self.id.filter(|_| self.chip.unwrap_or_default() == 0))
    }

    /// How it is called among others: `NPU 3`, or `NPU 3 chip 1`.
    #[must_use]
    pub fn label(&self) -> String {
        let id = self.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        match self.chip {
            Some(chip) if chip > 0 => format!("NPU {id} chip {chip}"),
            Some(_) | None => format!("NPU {id}"),
        }
    }
}
