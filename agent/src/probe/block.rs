//! Answers of the form `key : value`, and which chip they are about.

use super::text::Text;
use super::value;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) line: usize,
    /// In small letters, blanks as one; empty where the line goes on with the
    /// key above.
    pub(super) key: String,
    pub(super) value: &'a str,
}

/// The lines about one chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// As the answer says; none where it does not.
    pub(super) chip: Option<u32>,
    /// Whether it is about the card's controller instead.
    pub(super) is_mcu: bool,
    pub(super) pairs: Vec<Pair<'a>>,
}

impl Block<'_> {
    /// The value of the first of `keys` that is there.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&Pair<'_>> {
        keys.iter().find_map(|key| self.pairs.iter().find(|pair| pair.key == *key))
    }
}

/// Splits an answer in lines of key and value.
pub(super) fn pairs(text: &Text) -> Vec<Pair<'_>> {
    let pair = |(line, said)| {
        let said: &str = said;
        let (key, value) = said.split_once(':')?;
        let key = key.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        Some(Pair { line, key, value: value.trim() })
    };
    text.lines().filter_map(pair).collect()
}

/// Splits an answer by chips.
///
/// The chip's id or name stands below its values in some answers and above
/// them in others; what comes first below the card's own lines tells which.
pub(super) fn blocks(text: &Text) -> Vec<Block<'_>> {
    let is_mark = |pair: &Pair<'_>| matches!(pair.key.as_str(), "chip id" | "chip name");
    let pairs = pairs(text).into_iter().filter(|pair| !matches!(pair.key.as_str(), "npu id" | "chip count"));
    let pairs: Vec<Pair<'_>> = pairs.collect();
    let is_above = pairs.first().is_some_and(is_mark);
    let mut blocks = Vec::new();
    let mut block = Block::default();
    for pair in pairs {
        if !is_mark(&pair) {
            block.pairs.push(pair);
            continue;
        }
        if is_above {
            push(&mut blocks, std::mem::take(&mut block));
        }
        if pair.key == "chip id" {
            block.chip = value::id(pair.value).ok().flatten();
        } else {
            block.is_mcu = pair.value.eq_ignore_ascii_case("mcu");
        }
        if !is_above {
            push(&mut blocks, std::mem::take(&mut block));
        }
    }
    push(&mut blocks, block);
    blocks
}

fn push<'a>(blocks: &mut Vec<Block<'a>>, block: Block<'a>) {
    if !block.pairs.is_empty() {
        blocks.push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(text: &str) -> Vec<(Option<u32>, bool, usize)> {
        let text = Text::new("f", text.as_bytes());
        blocks(&text).iter().map(|block| (block.chip, block.is_mcu, block.pairs.len())).collect()
    }

    #[test]
    fn the_chip_s_id_stands_below_or_above_its_values() {
        let below = "\tNPU ID : 0\n\tChip Count : 2\n\n a : 1\n b : 2\n Chip ID : 0\n\n a : 3\n Chip ID : 1\n\n c : 4\n Chip Name : MCU\n";
        assert_eq!(shapes(below), [(Some(0), false, 2), (Some(1), false, 1), (None, true, 1)]);
        let above = "NPU ID : 1\nChip Count : 1\n\nChip ID : 0\na : 4\nb : 0\n\nChip Name : mcu\na : 41\n";
        assert_eq!(shapes(above), [(Some(0), false, 2), (None, true, 1)]);
        assert_eq!(shapes("NPU ID : 0\na : 1\nb : 2\n"), [(None, false, 2)]);
        assert_eq!(shapes("nothing\n"), []);
    }
}
