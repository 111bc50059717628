//! Packs short sequences into rows of one length, as `--pack` does.
//!
//! What goes together is decided by the lengths of all sequences: sixteen
//! bytes of memory for each, and never their ids.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Error;
use crate::index::{ID_BYTES, PairWriter, Written};

/// The label of a filled-up id, and its place in the attention mask.
const IGNORED: i32 = -100;
const ATTENDED: i32 = 1;

/// How to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    /// The length of each packed row, in ids.
    pub(crate) seq_length: u32,
    /// Fills up `input_ids`.
    pub(crate) pad_id: u32,
    /// Into how many parts the reference cuts the rows first, and packs each.
    pub(crate) parts: u32,
}

/// Packs ids, attention mask and labels alike. Returns the writers, and how
/// many sequences were left out as too long.
pub(crate) fn pack(
    sequences: Vec<PairWriter>,
    mut outputs: Vec<PairWriter>,
    packing: Packing,
) -> Result<(Vec<PairWriter>, u64), Error> {
    let mut lengths = None;
    let mut sources = Vec::new();
    for sequence in sequences {
        let (source, own) = sequence.into_written()?;
        if *lengths.get_or_insert_with(|| own.clone()) != own {
            let what = "ids, attention mask and labels differ in their lengths: they cannot be packed together";
            return Err(Error::Options { what: what.to_owned() });
        }
        sources.push(source);
    }
    let lengths = lengths.unwrap_or_default();
    if u32::try_from(lengths.len()).is_err() {
        return Err(Error::Options { what: format!("{} rows are too many to pack", lengths.len()) });
    }
    let offsets = offsets(&lengths);
    let fills = [i32::from_le_bytes(packing.pad_id.to_le_bytes()), ATTENDED, IGNORED];
    let mut left_out = 0;
    for part in parts(lengths.len(), packing.parts)? {
        let mut choice = Choice::new(&lengths, part, packing.seq_length);
        left_out += choice.long;
        while let Some(row) = choice.next_row() {
            for ((source, output), fill) in sources.iter().zip(&mut outputs).zip(fills) {
                let sequences = row.iter().map(|&index| (offsets[index], lengths[index]));
                write_row(source, sequences, fill, packing.seq_length, output)?;
            }
        }
    }
    Ok((outputs, left_out * sources.len() as u64))
}

/// Where each sequence begins, in bytes.
fn offsets(lengths: &[u32]) -> Vec<u64> {
    let mut at = 0;
    lengths
        .iter()
        .map(|&length| {
            let begin = at;
            at += u64::from(length) * ID_BYTES;
            begin
        })
        .collect()
}

/// Equal parts of `count` sequences, and a smaller one for the rest.
fn parts(count: usize, parts: u32) -> Result<Vec<Range<usize>>, Error> {
    let step = count / usize::try_from(parts).unwrap_or(usize::MAX).max(1);
    if step == 0 && parts > 1 {
        return Err(Error::Options { what: format!("`--n-subs {parts}` asks for more parts than the {count} rows") });
    }
    Ok((0..count).step_by(step.max(1)).map(|begin| begin..count.min(begin + step)).collect())
}

/// Which sequences share a row, in the reference's order.
///
/// Each row takes the longest sequence that still fits, again and again; among
/// equally long ones the last comes first. One id of each row stays free.
struct Choice {
    /// Those that fit, shorter ones first.
    order: Vec<u32>,
    /// Where those of each length are in it, as far as they are left.
    left: BTreeMap<u32, Range<usize>>,
    room: u32,
    /// How many fit no row.
    long: u64,
}

impl Choice {
    fn new(lengths: &[u32], part: Range<usize>, seq_length: u32) -> Self {
        let count = part.len();
        let mut order = Vec::with_capacity(count);
        let numbers = part.filter(|&index| lengths[index] < seq_length);
        order.extend(numbers.filter_map(|index| u32::try_from(index).ok()));
        order.sort_unstable_by_key(|&index| (lengths[index as usize], index));
        let mut left = BTreeMap::new();
        let mut begin = 0;
        for equals in order.chunk_by(|&one, &other| lengths[one as usize] == lengths[other as usize]) {
            left.insert(lengths[equals[0] as usize], begin..begin + equals.len());
            begin += equals.len();
        }
        let long = (count - order.len()) as u64;
        Self { order, left, room: seq_length.saturating_sub(1), long }
    }

    /// The sequences of the next row; `None` when all are placed.
    fn next_row(&mut self) -> Option<Vec<usize>> {
        let mut row = Vec::new();
        let mut room = self.room;
        while let Some((&length, places)) = self.left.range_mut(..=room).next_back() {
            row.extend(places.next_back().map(|place| self.order[place] as usize));
            room -= length;
            if places.start == places.end {
                self.left.remove(&length);
            }
        }
        (!row.is_empty()).then_some(row)
    }
}

/// Writes one row: the sequences by where they begin, in bytes, and their lengths.
fn write_row(
    source: &Written,
    sequences: impl Iterator<Item = (u64, u32)>,
    fill: i32,
    seq_length: u32,
    output: &mut PairWriter,
) -> Result<(), Error> {
    let size = usize::try_from(u64::from(seq_length) * ID_BYTES).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(size);
    for (offset, length) in sequences {
        let begin = bytes.len();
        bytes.resize(begin + length as usize * size_of::<u32>(), 0);
        source.read(offset, &mut bytes[begin..])?;
    }
    while bytes.len() < size {
        bytes.extend_from_slice(&fill.to_le_bytes());
    }
    output.write_ids(&bytes)?;
    output.add_sequence(i32::try_from(seq_length).unwrap_or(i32::MAX))?;
    output.end_document()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Choice, parts};

    #[test]
    fn the_longest_that_fits_goes_first_and_the_last_of_equals() {
        let lengths = [3, 9, 5, 3, 12, 1, 5];
        let mut choice = Choice::new(&lengths, 0..7, 10);
        let rows: Vec<_> = std::iter::from_fn(|| choice.next_row()).collect();
        assert_eq!(rows, [vec![1], vec![6, 3, 5], vec![2, 0]]);
        assert_eq!(choice.long, 1);
    }

    #[test]
    fn parts_are_equal_but_for_a_rest() {
        assert_eq!(parts(10, 3).unwrap(), [0..3, 3..6, 6..9, 9..10]);
        assert_eq!(parts(9, 3).unwrap(), [0..3, 3..6, 6..9]);
        assert_eq!(parts(4, 1).unwrap(), vec![0..4]);
        assert_eq!(parts(0, 1).unwrap(), Vec::<std::ops::Range<usize>>::new());
        assert!(parts(2, 3).is_err());
    }
}
