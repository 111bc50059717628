//! Batches whose content follows from their number.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;

use store::Batch;

/// Keys that every batch writes anew: of a half batch they would differ.
const ROLLING: u64 = 5;
/// A batch removes what the one this far before it wrote.
const KEPT: u64 = 400;

/// What batch `number` writes.
pub(crate) fn batch(seq: u64, number: u64) -> Batch {
    let mut puts: Vec<_> = (0..entries(number)).map(|at| (key(number, at), value(number, at))).collect();
    puts.extend((0..ROLLING).map(|at| (format!("rolling/{at}"), number.to_string().into_bytes())));
    let gone = number.saturating_sub(KEPT);
    let deletes = (0..entries(gone)).filter(|_| gone > 0).map(|at| key(gone, at)).collect();
    Batch { seq, puts, deletes }
}

/// The number of the newest batch.
pub(crate) fn last(rolling: &[(String, Vec<u8>)]) -> u64 {
    rolling.first().map_or(0, |(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// All that a store holds after batch `last`.
pub(crate) fn content(last: u64) -> BTreeMap<String, Vec<u8>> {
    let mut content = BTreeMap::new();
    // The batches whose entries are not removed yet, and nothing else.
    for number in last.saturating_sub(KEPT - 1).max(1)..=last {
        content.extend((0..entries(number)).map(|at| (key(number, at), value(number, at))));
    }
    if last > 0 {
        content.extend((0..ROLLING).map(|at| (format!("rolling/{at}"), last.to_string().into_bytes())));
    }
    content
}

fn entries(number: u64) -> u64 {
    1 + number % 7
}

fn key(number: u64, at: u64) -> String {
    format!("batch/{number:08}/{at}")
}

fn value(number: u64, at: u64) -> Vec<u8> {
    let length = 20 + (number * 131 + at * 977) % 3000;
    (0..length).map(|i| (number.wrapping_mul(31) ^ i.wrapping_mul(at + 7)).to_le_bytes()[0]).collect()
}
