//! English-like text from a seed, for measuring.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

/// Common words; rarer ones are made of syllables.
const COMMON: &[&str] = &[
    "the", "of", "and", "to", "in", "a", "is", "that", "it", "was", "for", "on", "with", "as", "be", "by", "at",
    "this", "from", "have", "or", "an", "they", "which", "one", "you", "were", "her", "all", "she", "there", "would",
    "their", "we", "him", "been", "has", "when", "who", "will", "more", "no", "if", "out", "so", "said", "what", "up",
    "its", "about", "into", "than", "them", "can", "only", "other", "new", "some", "could", "time", "these", "two",
    "may", "then", "do", "first", "any", "my", "now", "such", "like", "our", "over", "man", "me", "even", "most",
    "made", "after", "also", "did", "many", "before", "must", "through", "back", "years", "where", "much", "your",
    "way", "well", "down", "should", "because", "each", "just", "those", "people", "too", "how", "little", "state",
    "good", "very", "make", "world", "still", "own", "see", "men", "work", "long", "get", "here", "between", "both",
    "life", "being", "under", "never", "day", "same", "another", "know", "while", "last", "might", "us", "great",
    "old", "year", "off", "come", "since", "against", "go", "came", "right", "used", "take", "three", "don't", "it's",
    "I'm", "we'll",
];
const SYLLABLES: &[&str] = &[
    "con", "ter", "al", "ment", "in", "ver", "per", "tion", "ous", "able", "re", "pre", "dis", "ly", "er", "ing", "ed",
    "mar", "port", "form", "graph", "scope", "chem", "nor", "thal", "wick", "ston", "ber", "lan", "dor", "ic", "ist",
];
const RARE: u64 = 20_000;

/// Writes about `bytes` of text as jsonl.
pub(crate) fn write(path: &Path, bytes: u64, seed: u64) -> io::Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let mut random = Random(seed);
    let mut written = 0;
    while written < bytes {
        let text = document(&mut random);
        written += text.len() as u64;
        writeln!(out, "{}", json!({ "text": text }))?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn document(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(12) + 1 {
        for _ in 0..random.below(6) + 1 {
            sentence(random, &mut text);
        }
        text.push_str("\n\n");
    }
    text
}

fn sentence(random: &mut Random, text: &mut String) {
    let words = random.below(22) + 4;
    for position in 0..words {
        let word = word(random);
        if position == 0 {
            let mut letters = word.chars();
            text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            text.push_str(letters.as_str());
        } else {
            text.push_str(&word);
        }
        let last = position + 1 == words;
        text.push_str(match random.below(40) {
            _ if last => ". ",
            0..=2 => ", ",
            3 => "; ",
            4 => " (",
            5 => ") ",
            _ => " ",
        });
    }
}

fn word(random: &mut Random) -> String {
    match random.below(100) {
        0..=69 => {
            // Frequency falls with rank, as in real text.
            let rank = random.below(COMMON.len() as u64).min(random.below(COMMON.len() as u64));
            pick(COMMON, rank).to_owned()
        }
        70..=71 => random.below(3000).to_string(),
        _ => {
            let mut form = Random(random.below(RARE).min(random.below(RARE)));
            (0..form.below(3) + 2).map(|_| pick(SYLLABLES, form.next())).collect()
        }
    }
}

fn pick(list: &'static [&'static str], at: u64) -> &'static str {
    list[usize::try_from(at % list.len() as u64).unwrap_or(0)]
}

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

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
