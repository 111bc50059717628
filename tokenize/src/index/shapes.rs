//! Pairs of every shape, against the format written down one list at a time.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use super::{Index, Pair, PairWriter};
use crate::merge::{Merge, merge};
use crate::run::publish;

const SHAPES: u64 = 200;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Documents of sequences of ids; either may be empty.
type Shape = Vec<Vec<Vec<u32>>>;

fn draw(random: &mut Random) -> Shape {
    let (documents, sequences) = (random.below(30), random.below(4) + 1);
    // Now and then more than any buffer holds.
    let longest = if random.below(40) == 0 { 200_000 } else { 40 };
    let id = |random: &mut Random| u32::try_from(random.below(1 << 31)).unwrap();
    (0..documents)
        .map(|_| {
            (0..random.below(sequences)).map(|_| (0..random.below(longest)).map(|_| id(random)).collect()).collect()
        })
        .collect()
}

/// Both files of the pair.
fn plain(shape: &Shape) -> (Vec<u8>, Vec<u8>) {
    let sequences: Vec<&Vec<u32>> = shape.iter().flatten().collect();
    let bin = sequences.iter().flat_map(|ids| ids.iter()).flat_map(|id| id.to_le_bytes()).collect();
    let mut idx = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0\x04".to_vec();
    idx.extend((sequences.len() as u64).to_le_bytes());
    idx.extend((shape.len() as u64 + 1).to_le_bytes());
    sequences.iter().for_each(|ids| idx.extend(u32::try_from(ids.len()).unwrap().to_le_bytes()));
    let (mut offset, mut count) = (0_u64, 0_u64);
    for ids in sequences {
        idx.extend(offset.to_le_bytes());
        offset += 4 * ids.len() as u64;
    }
    idx.extend(count.to_le_bytes());
    for document in shape {
        count += document.len() as u64;
        idx.extend(count.to_le_bytes());
    }
    (bin, idx)
}

/// Writes the pair, its ids in pieces of any size.
fn write(shape: &Shape, prefix: &Path, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let pair = Pair::of_key(prefix, "text");
    let mut writer = PairWriter::create(&pair, random.below(2) == 0).unwrap();
    let mut pending = Vec::new();
    for document in shape {
        for ids in document {
            pending.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            if random.below(3) == 0 {
                writer.write_ids(&pending).unwrap();
                pending.clear();
            }
            writer.add_sequence(i32::try_from(ids.len()).unwrap()).unwrap();
        }
        writer.end_document().unwrap();
    }
    writer.write_ids(&pending).unwrap();
    publish(vec![writer.seal().unwrap()], false).unwrap();
    (fs::read(pair.bin).unwrap(), fs::read(pair.idx).unwrap())
}

#[test]
fn pairs_and_their_merges_are_what_the_format_says() {
    let place = tempfile::tempdir().unwrap();
    for seed in 0..SHAPES {
        let mut random = Random(seed);
        let shapes: Vec<Shape> = (0..=random.below(3)).map(|_| draw(&mut random)).collect();
        let mut parts = Vec::new();
        for (number, shape) in shapes.iter().enumerate() {
            let prefix = place.path().join(number.to_string());
            assert!(write(shape, &prefix, &mut random) == plain(shape), "seed {seed}, part {number}");
            let index = Index::open(&Pair::of_key(&prefix, "text")).unwrap();
            let counts = (shape.len(), shape.iter().flatten().count(), shape.iter().flatten().flatten().count());
            let counts = [counts.0 as u64, counts.1 as u64, counts.2 as u64];
            assert_eq!([index.documents(), index.sequences(), index.ids()], counts, "seed {seed}, part {number}");
            parts.push(prefix);
        }
        let whole = shapes.concat();
        let output_prefix = place.path().join("whole");
        let pair = Pair::of_key(&output_prefix, "text");
        let keys = vec!["text".to_owned()];
        let digests = random.below(2) == 0;
        merge(&Merge { output_prefix, keys, parts, remove_parts: false, pack: None, digests }, &mut |_, _| {}).unwrap();
        assert!((fs::read(pair.bin).unwrap(), fs::read(pair.idx).unwrap()) == plain(&whole), "seed {seed}, merged");
    }
}
