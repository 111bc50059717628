//! Which chips there are: the table's, and those that other lists name.

use std::collections::BTreeSet;

use super::entry::{Entry, Word};
use super::health::Health;
use super::info::{Chip, Info};
use super::listing::Mapped;
use super::text::Notes;

/// What is known beside the table about which chips there are.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// From `-m`.
    pub(super) mapping: Vec<Mapped>,
    /// From `-l`.
    pub(super) list: Vec<(u32, Option<u64>)>,
    /// Bus ids by card and chip, from `-t board`.
    pub(super) buses: Vec<(u32, Option<u32>, String)>,
}

/// The chips, with what the table says of them. `is_doubtful`: the table stood
/// beside an error, so that "OK" may mean that nobody could be asked.
pub(super) fn gather(info: &mut Info, known: &Known, is_doubtful: bool, file: &str, notes: &mut Notes) -> Vec<Entry> {
    name_orphans(info, known);
    let mut entries: Vec<Entry> = Vec::new();
    let chips = std::mem::take(&mut info.chips);
    let dense = |npu: Option<u32>, number: u32| chips.iter().any(|c| c.npu == npu && c.chip == Some(number));
    for chip in &chips {
        let mut word = Word::Certain(chip.level());
        if is_doubtful && word == Word::Certain(Health::Ok) {
            word = Word::Doubtful;
        }
        // Chips of a card are numbered without gaps. After a gap the first line
        // may be another chip's.
        if chip.chip.is_some_and(|number| (0..number.min(64)).any(|before| !dense(chip.npu, before))) {
            notes.add(file, chip.line, "the card's chips before this one are missing");
            if word == Word::Certain(Health::Ok) {
                word = Word::Doubtful;
            }
        }
        if chip.health.is_none() {
            notes.add(file, chip.line, "this chip has no health in the table");
        } else if chip.health.as_deref().and_then(Health::from_word).is_none() {
            notes.add(file, chip.line, &format!("`{}` is no known health", chip.health.as_deref().unwrap_or_default()));
        }
        entries.push(Entry::new(chip.clone(), word));
    }
    same_names(&mut entries, file, notes);
    add_known(&mut entries, known, info.is_table, notes);
    entries.sort_by_key(|entry| {
        let last = |id: Option<u32>| id.map_or(u64::MAX, u64::from);
        (last(entry.chip.npu), last(entry.chip.chip))
    });
    entries
}

/// Two rows about one chip: the worse of them counts for both.
fn same_names(entries: &mut [Entry], file: &str, notes: &mut Notes) {
    let name = |entry: &Entry| (entry.chip.npu, entry.chip.chip);
    for at in 1..entries.len() {
        let (before, from) = entries.split_at_mut(at);
        let Some(entry) = from.first_mut().filter(|entry| entry.chip.npu.is_some()) else { continue };
        let own = name(entry);
        for other in before.iter_mut().filter(|other| name(other) == own) {
            notes.add(file, entry.chip.line, "another row is about the same chip");
            let worst = other.health().max(entry.health());
            (other.word, entry.word) = (Word::Certain(worst), Word::Certain(worst));
        }
    }
}

/// Finds the card of each chip that has no first line.
fn name_orphans(info: &mut Info, known: &Known) {
    let listed: BTreeSet<u32> =
        known.list.iter().map(|(npu, _)| *npu).chain(known.mapping.iter().map(|m| m.npu)).collect();
    let listed: BTreeSet<u32> = listed.into_iter().chain(info.idle.iter().copied()).collect();
    for at in 0..info.chips.len() {
        if info.chips[at].npu.is_some() {
            continue;
        }
        let chip = &info.chips[at];
        let by_phy = known.mapping.iter().find(|m| m.phy_id.is_some() && m.phy_id == chip.phy_id).map(|m| m.npu);
        let by_bus = known.buses.iter().find(|(_, _, bus)| chip.bus_id.as_ref() == Some(bus)).map(|(npu, ..)| *npu);
        let before = at.checked_sub(1).and_then(|before| info.chips.get(before)).filter(|c| c.npu.is_some());
        let goes_on = before.filter(|b| chip.chip.is_some_and(|number| number > 0 && b.chip == Some(number - 1)));
        let npu = by_phy.or(by_bus).or_else(|| goes_on.and_then(|b| b.npu)).or_else(|| between(info, at, &listed));
        info.chips[at].npu = npu;
    }
}

/// The only card that can stand at this place, going by the ids around it.
fn between(info: &Info, at: usize, listed: &BTreeSet<u32>) -> Option<u32> {
    let before = info.chips[..at].iter().rev().find_map(|chip| chip.npu);
    let after = info.chips[at..].iter().find_map(|chip| chip.npu);
    let from = before.map_or(0, |id| id + 1);
    let seen: BTreeSet<u32> = info.chips.iter().filter_map(|chip| chip.npu).collect();
    let candidates: Vec<u32> = match after {
        _ if !listed.is_empty() => {
            listed.range(from..after.unwrap_or(u32::MAX).max(from)).copied().filter(|id| !seen.contains(id)).collect()
        }
        Some(after) if after > from => (from..after).take(65).collect(),
        Some(_) | None => Vec::new(),
    };
    let cards =
        info.chips[at..].iter().take_while(|chip| chip.npu.is_none()).filter(|chip| chip.chip != Some(1)).count();
    (candidates.len() == cards).then(|| candidates.first().copied()).flatten()
}

/// Adds chips that a list names and the table does not.
fn add_known(entries: &mut Vec<Entry>, known: &Known, is_table: bool, notes: &mut Notes) {
    let word = if is_table { Word::Certain(Health::Unknown) } else { Word::NoTable };
    let add = |entries: &mut Vec<Entry>, chip: Chip, notes: &mut Notes| {
        if is_table {
            let text = format!("NPU {} is listed and not in the table", chip.npu.unwrap_or_default());
            notes.add("", 0, &text);
        }
        entries.push(Entry::new(chip, word));
    };
    for mapped in &known.mapping {
        let mut there = entries.iter_mut().filter(|entry| entry.is(mapped.npu, Some(mapped.chip))).peekable();
        if there.peek().is_none() {
            drop(there);
            let (npu, chip) = (Some(mapped.npu), Some(mapped.chip));
            let (phy_id, logic_id, name) = (mapped.phy_id, mapped.logic_id, mapped.name.clone());
            add(entries, Chip { npu, chip, phy_id, logic_id, name, ..Chip::default() }, notes);
            continue;
        }
        for entry in there {
            let chip = &mut entry.chip;
            if chip.phy_id.is_some() && mapped.phy_id.is_some() && chip.phy_id != mapped.phy_id {
                notes.add("", chip.line, "the table and the mapping differ in a physical id");
            }
            chip.chip = chip.chip.or(Some(mapped.chip));
            chip.phy_id = chip.phy_id.or(mapped.phy_id);
            chip.logic_id = chip.logic_id.or(mapped.logic_id);
            chip.name = chip.name.take().or_else(|| mapped.name.clone());
        }
    }
    for (npu, chips) in &known.list {
        if entries.iter().any(|entry| entry.chip.npu == Some(*npu)) {
            continue;
        }
        let numbers: Vec<Option<u32>> = match chips.and_then(|count| u32::try_from(count).ok()) {
            Some(count) if count > 0 => (0..count).map(Some).collect(),
            Some(_) | None => vec![None],
        };
        for chip in numbers {
            add(entries, Chip { npu: Some(*npu), chip, ..Chip::default() }, notes);
        }
    }
}
