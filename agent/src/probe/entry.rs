//! One chip while answers about it come together.

use std::collections::BTreeMap;

use super::detail::{Measures, Told};
use super::health::Health;
use super::info::Chip;
use super::report::Npu;

/// How far the table's word can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// There is no table.
    NoTable,
    /// It says so of this chip.
    Certain(Health),
    /// It says that all is well, beside an error, or perhaps of another chip.
    Doubtful,
}

/// One chip while answers about it come together.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) chip: Chip,
    pub(super) word: Word,
    /// What other answers say.
    told: Vec<Health>,
    is_confirmed: bool,
    codes: Vec<String>,
    information: Vec<String>,
    ecc: BTreeMap<String, u64>,
}

impl Entry {
    pub(super) fn new(chip: Chip, word: Word) -> Self {
        Self {
            chip,
            word,
            told: Vec::new(),
            is_confirmed: false,
            codes: Vec::new(),
            information: Vec::new(),
            ecc: BTreeMap::new(),
        }
    }

    pub(super) fn is(&self, npu: u32, chip: Option<u32>) -> bool {
        let is_chip = chip.is_none() || self.chip.chip.is_none() || self.chip.chip == chip;
        self.chip.npu == Some(npu) && is_chip
    }

    /// The worst of all that is said.
    pub(super) fn health(&self) -> Health {
        let table = match self.word {
            Word::Certain(health) => Some(health),
            Word::NoTable | Word::Doubtful => None,
        };
        self.told.iter().copied().chain(table).max().unwrap_or(Health::Unknown)
    }

    /// Takes a level that another answer gives.
    pub(super) fn tell(&mut self, health: Health) {
        self.told.push(health);
    }

    /// Takes that the chip was asked itself, and said something.
    pub(super) fn confirm(&mut self) {
        self.is_confirmed = true;
    }

    /// Takes codes and what the driver says to them.
    pub(super) fn explain(&mut self, told: &Told) {
        for (all, more) in [(&mut self.codes, &told.codes), (&mut self.information, &told.information)] {
            for one in more {
                if !all.contains(one) {
                    all.push(one.clone());
                }
            }
        }
    }

    /// Fills what the table leaves open.
    pub(super) fn fill(&mut self, measures: &Measures) {
        let chip = &mut self.chip;
        chip.power = chip.power.or(measures.power);
        chip.temperature = chip.temperature.or(measures.temperature);
        chip.aicore = chip.aicore.or(measures.aicore);
        chip.npu_util = chip.npu_util.or(measures.npu_util);
        chip.memory.1 = chip.memory.1.or(measures.memory_total);
        chip.hbm.1 = chip.hbm.1.or(measures.hbm_total);
        self.ecc.extend(measures.ecc.iter().cloned());
    }
}

impl From<Entry> for Npu {
    fn from(entry: Entry) -> Self {
        let health = entry.health();
        let chip = entry.chip;
        Self {
            id: chip.npu,
            chip: chip.chip,
            phy_id: chip.phy_id,
            logic_id: chip.logic_id,
            name: chip.name,
            health,
            health_text: chip.health,
            health_confirmed: entry.is_confirmed,
            power_w: chip.power,
            temperature_c: chip.temperature,
            bus_id: chip.bus_id,
            aicore_percent: chip.aicore,
            npu_percent: chip.npu_util,
            memory_used_mib: chip.memory.0,
            memory_total_mib: chip.memory.1,
            hbm_used_mib: chip.hbm.0,
            hbm_total_mib: chip.hbm.1,
            error_codes: entry.codes,
            error_information: entry.information,
            link: None,
            network: None,
            ecc: (!entry.ecc.is_empty()).then_some(entry.ecc),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_word_counts_and_none_is_unknown() {
        use Health::{Alarm, Critical, Ok, Unknown, Warning};
        let table: [(Word, &[Health], Health); 10] = [
            (Word::Certain(Ok), &[], Ok),
            (Word::Certain(Ok), &[Ok], Ok),
            (Word::Certain(Ok), &[Alarm], Alarm),
            (Word::Certain(Ok), &[Unknown], Unknown),
            (Word::Certain(Alarm), &[Ok], Alarm),
            (Word::Certain(Warning), &[Ok, Critical], Critical),
            (Word::Doubtful, &[], Unknown),
            (Word::Doubtful, &[Ok], Ok),
            (Word::NoTable, &[], Unknown),
            (Word::NoTable, &[Warning], Warning),
        ];
        for (word, told, health) in table {
            let mut entry = Entry::new(Chip::default(), word);
            told.iter().for_each(|level| entry.tell(*level));
            assert_eq!(entry.health(), health, "{word:?} {told:?}");
        }
    }
}
