//! Packs short sequences into rows of one length, as `--pack` does.
//!
//! What goes together is decided by the lengths of all sequences: twenty
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
    let sequences = sequences.into_iter().map(PairWriter::into_written).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = sequences.first() else {
        return Ok((outputs, 0));
    };
    if sequences.iter().any(|other| other.lengths != first.lengths) {
        let what = "ids, attention mask and labels differ in their lengths: they cannot be packed together";
        return Err(Error::Options { what: what.to_owned() });
    }
    let lengths = &first.lengths;
    let offsets = offsets(lengths);
    let fills = [i32::from_le_bytes(packing.pad_id.to_le_bytes()), ATTENDED, IGNORED];
    let mut left_out = 0;
    for part in parts(lengths.len(), packing.parts)? {
        let (rows, long) = choose(lengths, part, packing.seq_length);
        left_out += long;
        for row in rows {
            for ((source, output), fill) in sequences.iter().zip(&mut outputs).zip(fills) {
                write_row(source, &offsets, &row, fill, packing.seq_length, output)?;
            }
        }
    }
    Ok((outputs, left_out * sequences.len() as u64))
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

/// Which sequences share a row, in the reference's order, and how many fit none.
///
/// Each row takes the longest sequence that still fits, again and again; among
/// equally long ones the last comes first. One id of each row stays free.
fn choose(lengths: &[u32], part: Range<usize>, seq_length: u32) -> (Vec<Vec<usize>>, u64) {
    let mut by_length: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut long = 0;
    for index in part {
        if lengths[index] < seq_length {
            by_length.entry(lengths[index]).or_default().push(index);
        } else {
            long += 1;
        }
    }
    let mut rows = Vec::new();
    while !by_length.is_empty() {
        let mut row = Vec::new();
        let mut room = seq_length - 1;
        while let Some((&length, indices)) = by_length.range_mut(..=room).next_back() {
            row.extend(indices.pop());
            room -= length;
            if indices.is_empty() {
                by_length.remove(&length);
            }
        }
        rows.push(row);
    }
    (rows, long)
}

fn write_row(
    source: &Written,
    offsets: &[u64],
    row: &[usize],
    fill: i32,
    seq_length: u32,
    output: &mut PairWriter,
) -> Result<(), Error> {
    let size = usize::try_from(u64::from(seq_length) * ID_BYTES).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(size);
    for &index in row {
        let begin = bytes.len();
        bytes.resize(begin + source.lengths[index] as usize * size_of::<u32>(), 0);
        source.read(offsets[index], &mut bytes[begin..])?;
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

    use super::{choose, parts};

    #[test]
    fn the_longest_that_fits_goes_first_and_the_last_of_equals() {
        let lengths = [3, 9, 5, 3, 12, 1, 5];
        let (rows, long) = choose(&lengths, 0..7, 10);
        assert_eq!(rows, [vec![1], vec![6, 3, 5], vec![2, 0]]);
        assert_eq!(long, 1);
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
