//! Every character, alone and in company, through both encoders.
//!
//! The tokenizers of this test are made to show what real ones mostly hide:
//! where a text is cut, and in which order marks stand.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokenize::{Backend, Tokenizer};

#[test]
fn words_are_cut_alike_around_every_character() {
    let mut model = common::tiny_tokenizer_json();
    let split = model["pre_tokenizer"]["pretokenizers"][0].clone();
    model["pre_tokenizer"] = split;
    model["normalizer"] = Value::Null;
    model["post_processor"] = Value::Null;
    model["added_tokens"] = json!([]);
    // One id a word: their number shows the cuts.
    model["model"] =
        json!({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "!": 2, "1": 3, " ": 4, "'s": 5}});
    compare(&model, |c| vec![format!("a{c}a !{c}! {c}1{c}\n{c} '{c}'S{c} a'{c}")]);
}

#[test]
fn marks_are_ordered_and_composed_alike_around_every_character() {
    compare(&common::tiny_tokenizer_json(), |c| vec![format!("{c} e\u{301}{c}\u{327} a{c}\u{307}")]);
}

fn compare(model: &Value, texts: impl Fn(char) -> Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let (fast, reference) = (load(place.path(), model, Backend::Fast), load(place.path(), model, Backend::Reference));
    assert_eq!((fast.encoder().name(), reference.encoder().name()), ("fast", "reference"));
    let (mut fast, mut reference) = (fast.encoder().session(true), reference.encoder().session(true));
    let mut count = 0;
    for character in ('\0'..=char::MAX).filter(|&character| is_worth_it(u32::from(character))) {
        for text in texts(character) {
            let expected = reference.encode(&text).unwrap();
            assert_eq!(fast.encode(&text).unwrap(), expected, "U+{:04X} in {text:?}", u32::from(character));
            count += 1;
        }
    }
    assert!(count > 100_000, "only {count} texts");
}

fn load(place: &Path, model: &Value, backend: Backend) -> Tokenizer {
    fs::write(place.join("tokenizer.json"), model.to_string()).unwrap();
    Tokenizer::load(place, backend).unwrap()
}

/// Leaves out the inside of blocks whose characters are all alike: they would
/// be most of the time.
fn is_worth_it(code: u32) -> bool {
    let alike =
        [0x4e10..0x9f00, 0xac10..0xd790, 0xe010..0xf8f0, 0x2_0010..0x2_a6d0, 0x2_a710..0x2_b730, 0x4_0000..0x11_0000];
    !alike.iter().any(|block| block.contains(&code))
}
