//! Which cards and chips there are: `npu-smi info -l` and `-m`.

use super::block;
use super::header::words;
use super::text::{Notes, Text};
use super::value;

/// Most chips that are taken.
const MOST: usize = 4096;

/// One chip of `-m`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) npu: u32,
    pub(super) chip: u32,
    pub(super) logic_id: Option<u32>,
    pub(super) phy_id: Option<u32>,
    pub(super) name: Option<String>,
}

/// Reads `-m`. Controllers of cards are listed too and left out here.
pub(super) fn mapping(text: &Text, notes: &mut Notes) -> Vec<Mapped> {
    let mut columns: Option<Vec<&'static str>> = None;
    let mut found = Vec::new();
    for (line, said) in text.lines() {
        let small = said.to_ascii_lowercase();
        if small.contains("npu id") && small.contains("chip id") {
            columns = Some(names(&small));
            continue;
        }
        let mapped = columns.as_deref().and_then(|columns| mapped(columns, said));
        match mapped {
            Some(Some(mapped)) if found.len() < MOST => found.push(mapped),
            Some(None) => {}
            Some(Some(_)) | None => notes.add(&text.file, line, said),
        }
    }
    found
}

/// The columns of a header, in order of appearance.
fn names(header: &str) -> Vec<&'static str> {
    let known = ["npu id", "slot id", "chip id", "chip logic id", "chip phy-id", "chip name"];
    let mut placed: Vec<(usize, &'static str)> =
        known.iter().filter_map(|name| header.find(name).map(|at| (at, *name))).collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, name)| name).collect()
}

/// One row: `None` if it is not understood, `Some(None)` for a controller.
fn mapped(columns: &[&str], said: &str) -> Option<Option<Mapped>> {
    let words: Vec<&str> = words(said).into_iter().map(|(word, _)| word).collect();
    // A name may be two words; it is the last column, or there is none.
    let fits = words.len() >= columns.len() && (columns.last() == Some(&"chip name") || words.len() == columns.len());
    if !fits {
        return None;
    }
    let at = |name: &str| columns.iter().position(|column| *column == name);
    let id = |name: &str| at(name).map_or(Ok(None), |at| value::id(words[at]));
    let name = at("chip name").map(|at| words[at..].join(" "));
    let is_controller = name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("mcu"));
    let (Ok(Some(npu)), Ok(chip)) = (id("npu id"), id("chip id")) else { return None };
    let Some(chip) = chip.filter(|_| !is_controller) else { return Some(None) };
    let name = name.filter(|name| !value::is_absent(name));
    Some(Some(Mapped { npu, chip, logic_id: id("chip logic id").ok()?, phy_id: id("chip phy-id").ok()?, name }))
}

/// Reads `-l`: cards, and how many chips each has where that is said.
pub(super) fn list(text: &Text, notes: &mut Notes) -> Vec<(u32, Option<u64>)> {
    let mut found: Vec<(u32, Option<u64>)> = Vec::new();
    let mut total = None;
    for pair in block::pairs(text) {
        match pair.key.as_str() {
            "npu id" => match value::id(pair.value) {
                Ok(Some(npu)) if found.len() < MOST => found.push((npu, None)),
                _ => notes.add(&text.file, pair.line, pair.value),
            },
            "chip count" => {
                let count = value::whole(pair.value, 64).ok().flatten();
                found.last_mut().into_iter().for_each(|card| card.1 = count);
            }
            "total count" | "card count" => total = value::whole(pair.value, u64::MAX).ok().flatten(),
            _ => {}
        }
    }
    let seen = u64::try_from(found.len()).unwrap_or(u64::MAX);
    if let Some(total) = total.filter(|total| *total != seen) {
        notes.add(&text.file, 0, &format!("{total} cards are counted, {seen} are listed"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_by_their_columns_and_controllers_left_out() {
        let a3 =
            "\tNPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n\t0  0  4  8  Ascend910\n\t0  2  -  -  Mcu\n";
        let only = Mapped { npu: 0, chip: 0, logic_id: Some(4), phy_id: Some(8), name: Some("Ascend910".into()) };
        assert_eq!(mapping(&Text::new("m", a3.as_bytes()), &mut Notes::default()), [only]);
        let b = "NPU ID   Chip ID   Chip Logic ID   Chip Name\r\n3   0   1   Ascend 910B3\r\n3   1   -   Mcu\r\n";
        let wanted = Mapped { npu: 3, chip: 0, logic_id: Some(1), phy_id: None, name: Some("Ascend 910B3".into()) };
        assert_eq!(mapping(&Text::new("m", b.as_bytes()), &mut Notes::default()), [wanted]);
        let slots = "NPU ID  Slot ID  Chip ID  Chip Phy-ID  Chip Name\n0  9  0  8  xxx\n";
        let found = mapping(&Text::new("m", slots.as_bytes()), &mut Notes::default());
        assert_eq!((found[0].chip, found[0].phy_id, found[0].logic_id), (0, Some(8), None));
        let mut notes = Notes::default();
        assert!(mapping(&Text::new("m", b"0 0 0 0 x\nNPU ID Chip ID Chip Name\nx y\n"), &mut notes).is_empty());
        assert_eq!(notes.into_vec().len(), 2);
    }

    #[test]
    fn cards_are_listed_with_their_chips() {
        let said = "Total Count : 3\n\nNPU ID : 0\nChip Count : 2\n\nNPU ID : 6\nProduct Name : x\n";
        let mut notes = Notes::default();
        assert_eq!(list(&Text::new("l", said.as_bytes()), &mut notes), [(0, Some(2)), (6, None)]);
        assert_eq!(notes.into_vec()[0].text, "3 cards are counted, 2 are listed");
    }
}
