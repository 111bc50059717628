//! What must hold for any vocabulary and any index, against plain implementations; each failure names its seed.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::{byte_letter, plain_pair, write_tokenizer};
use serde_json::json;
use tokenize::{Backend, Index, Pair, Tokenizer, describe_pair, diff};

const VOCABULARIES: u64 = 60;
const PAIRS: u64 = 150;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// A byte-level BPE of few letters, with merges drawn at random.
struct Vocabulary {
    /// Tokens as bytes, by id: first all bytes, then what each merge makes.
    tokens: Vec<Vec<u8>>,
    merges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether runs of white space are cut from the rest first.
    cuts: bool,
}

const LETTERS: [&str; 12] = ["a", "b", "c", "A", "'", "0", " ", " ", "\n", "é", "中", "😀"];

impl Vocabulary {
    fn draw(random: &mut Random) -> Self {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let mut merges = Vec::new();
        let mut parts: Vec<Vec<u8>> = LETTERS.iter().flat_map(|letter| letter.bytes().map(|byte| vec![byte])).collect();
        for _ in 0..random.below(120) {
            let (left, right) = (parts[random.below(parts.len())].clone(), parts[random.below(parts.len())].clone());
            let made = [left.clone(), right.clone()].concat();
            if made.len() <= 9 && !tokens.contains(&made) {
                tokens.push(made.clone());
                parts.push(made);
                merges.push((left, right));
            }
        }
        Self { tokens, merges, cuts: random.below(2) == 0 }
    }

    fn write(&self, directory: &Path) {
        let letters = |bytes: &[u8]| bytes.iter().map(|&byte| byte_letter(byte)).collect::<String>();
        let vocab: HashMap<String, usize> =
            self.tokens.iter().enumerate().map(|(id, token)| (letters(token), id)).collect();
        let merges: Vec<_> = self.merges.iter().map(|(left, right)| json!([letters(left), letters(right)])).collect();
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let cut = json!({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false});
        let steps = if self.cuts { vec![cut, level.clone()] } else { vec![level.clone()] };
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": level, "decoder": level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
        });
        write_tokenizer(directory, &json);
    }

    /// The merge that comes first in the list, wherever it fits first, again and again.
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.pieces(text) {
            let mut parts: Vec<Vec<u8>> = piece.bytes().map(|byte| vec![byte]).collect();
            let fits = |parts: &[Vec<u8>], (left, right): &(Vec<u8>, Vec<u8>)| {
                parts.windows(2).position(|pair| pair[0] == *left && pair[1] == *right)
            };
            while let Some(at) = self.merges.iter().find_map(|merge| fits(&parts, merge)) {
                let right = parts.remove(at + 1);
                parts[at].extend(right);
            }
            let id = |part: &Vec<u8>| u32::try_from(self.tokens.iter().position(|token| token == part).unwrap());
            ids.extend(parts.iter().map(|part| id(part).unwrap()));
        }
        ids
    }

    fn pieces<'text>(&self, text: &'text str) -> Vec<&'text str> {
        if !self.cuts {
            return vec![text];
        }
        let mut edges = vec![0];
        let spaces: Vec<(usize, bool)> = text.char_indices().map(|(at, one)| (at, one.is_whitespace())).collect();
        edges.extend(spaces.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0));
        edges.push(text.len());
        edges.windows(2).map(|edge| &text[edge[0]..edge[1]]).collect()
    }
}

#[test]
fn any_small_vocabulary_encodes_as_the_plainest_merging_does() {
    let place = tempfile::tempdir().unwrap();
    let mut fast = 0;
    for seed in 0..VOCABULARIES {
        let mut random = Random(seed);
        let vocabulary = Vocabulary::draw(&mut random);
        vocabulary.write(place.path());
        let texts: Vec<String> =
            (0..12).map(|_| (0..=random.below(60)).map(|_| LETTERS[random.below(LETTERS.len())]).collect()).collect();
        for backend in [Backend::Auto, Backend::Reference] {
            let tokenizer = Tokenizer::load(place.path(), backend).unwrap();
            fast += u32::from(tokenizer.encoder().name() == "fast");
            let mut session = tokenizer.encoder().session(true);
            for text in &texts {
                let ids = session.encode(text).unwrap();
                assert_eq!(ids, vocabulary.encode(text), "seed {seed}, {backend:?}, {text:?}");
            }
        }
    }
    assert!(fast > 0, "the fast encoder was never trusted");
}

/// A pair of any shape, and its two files' words.
fn draw_pair(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let sequences: Vec<Vec<u32>> = (0..random.below(12))
        .map(|_| (0..random.below(9)).map(|_| u32::try_from(random.below(3)).unwrap()).collect())
        .collect();
    let mut ends = vec![0];
    while random.below(4) > 0 {
        let from = usize::try_from(*ends.last().unwrap()).unwrap();
        ends.push(u64::try_from(from + random.below(sequences.len() - from + 1)).unwrap());
    }
    // What no document holds is refused.
    ends.push(u64::try_from(sequences.len()).unwrap());
    plain_pair(&sequences, &ends)
}

fn place_pair(directory: &Path, name: &str, (bin, idx): &(Vec<u8>, Vec<u8>)) -> Pair {
    let pair = Pair::of_key(&directory.join(name), "text");
    fs::write(&pair.bin, bin).unwrap();
    fs::write(&pair.idx, idx).unwrap();
    pair
}

/// Changes a byte, a word, or the length of one of the files.
fn damage(random: &mut Random, (bin, idx): &mut (Vec<u8>, Vec<u8>)) {
    let file = if random.below(5) == 0 { bin } else { idx };
    let at = random.below(file.len() + 1);
    match random.below(5) {
        0 => file.truncate(at),
        1 => file.extend(std::iter::repeat_n(u8::try_from(random.below(256)).unwrap(), random.below(24))),
        2 if at + 8 <= file.len() => {
            let extreme = [0, 1, u64::MAX, 1 << 62, 1 << 31, u64::MAX / 12][random.below(6)];
            file[at..at + 8].copy_from_slice(&extreme.to_le_bytes());
        }
        _ if at < file.len() => file[at] ^= 1 << random.below(8),
        _ => {}
    }
}

#[test]
fn a_damaged_index_is_refused_or_means_what_it_says() {
    let place = tempfile::tempdir().unwrap();
    let (mut refused, mut differing) = (0, 0);
    for seed in 0..PAIRS {
        let mut random = Random(seed);
        let sound = draw_pair(&mut random);
        let left = Index::open(&place_pair(place.path(), "left", &sound)).unwrap();
        for _ in 0..8 {
            let mut other = sound.clone();
            damage(&mut random, &mut other);
            let pair = place_pair(place.path(), "right", &other);
            let described = describe_pair(&place.path().join("right_text_document"));
            let Ok(right) = Index::open(&pair) else {
                assert!(described.is_err() && other != sound, "seed {seed}");
                refused += 1;
                continue;
            };
            assert_eq!(right.ids() * 4, other.0.len() as u64, "seed {seed}");
            assert!(described.is_ok(), "seed {seed}");
            assert_eq!(diff(&right, &right).unwrap(), None, "seed {seed}");
            let found = [diff(&left, &right).unwrap(), diff(&right, &left).unwrap()];
            assert_eq!(found.map(|found| found.is_none()), [other == sound; 2], "seed {seed}, {found:?}");
            differing += u32::from(other != sound);
        }
    }
    assert!(refused > 100 && differing > 10, "{refused} refused, {differing} differing");
}
