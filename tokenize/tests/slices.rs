//! Random rows and split points against the plainest computation.

#![allow(clippy::unwrap_used, clippy::unwrap_in_result)]

mod common;

use std::fs;
use std::path::Path;

use common::{Rows, plain_run, read_pair, tiny_tokenizer, write_jsonl, write_parquet};
use proptest::prelude::*;
use tokenize::{Backend, Merge, Options, Slice, Source, Tokenizer, describe_pair, merge, run};

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => "[a-e the\u{e9}]{0,40}",
        2 => any::<String>(),
        1 => "(<\\|end\\|>|<\\|sep\\|>| |\n|\r\n|e\u{301}|\u{0}|\u{4f60}|12){0,9}",
        1 => "[ab ]{200,400}",
    ]
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((texts(), texts()), 1..180)
}

#[derive(Debug, Clone)]
struct Shape {
    keys: Vec<&'static str>,
    eod: bool,
    limit: Option<u32>,
    workers: usize,
    group_rows: usize,
    cuts: Vec<prop::sample::Index>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        prop::sample::select(vec![vec!["text"], vec!["output"], vec!["text", "output"]]),
        any::<bool>(),
        prop::option::of(1_u32..60),
        1_usize..4,
        1_usize..60,
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    )
        .prop_map(|(keys, eod, limit, workers, group_rows, cuts)| Shape {
            keys,
            eod,
            limit,
            workers,
            group_rows,
            cuts,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_cut_anywhere_give_the_plain_bytes(rows in rows(), shape in shapes()) {
        let place = tempfile::tempdir().unwrap();
        let directory = tiny_tokenizer(&place.path().join("tokenizer"));
        let mut tokenizer = Tokenizer::load(&directory, Backend::Auto).unwrap();
        prop_assert_eq!(tokenizer.encoder().name(), "fast");
        let columns: Vec<Vec<String>> = shape.keys.iter().map(|&key| {
            rows.iter().map(|row| if key == "text" { row.0.clone() } else { row.1.clone() }).collect()
        }).collect();
        let limit = shape.limit.map(|limit| limit as usize);
        let expected = plain_run(&columns, &directory, shape.eod, limit);
        let jsonl = place.path().join("in.jsonl");
        write_jsonl(&jsonl, &rows);
        let parquet = place.path().join("in.parquet");
        write_parquet(&parquet, &rows, shape.group_rows);

        for input in [&jsonl, &parquet] {
            let source = Source::open(input).unwrap();
            let whole = place.path().join("whole");
            run(&source, &mut tokenizer, &options(&shape, &whole, Slice::All), &mut |_| {}).unwrap();
            compare(&shape, &whole, &expected)?;

            let count = rows.len() as u64;
            // With a limit and several keys only multiples of 50 rows may be cut.
            let step = if shape.limit.is_some() && shape.keys.len() > 1 { 50 } else { 1 };
            let by_rows = points(&shape, count, step).windows(2).map(|pair| Slice::Rows(pair[0]..pair[1])).collect();
            let last_is_odd = step > 1 && !count.is_multiple_of(step) && input == &jsonl;
            if !last_is_odd {
                compare_slices(&shape, &source, &mut tokenizer, place.path(), by_rows, &expected)?;
            }
            if input == &jsonl && step == 1 {
                let by_bytes = points(&shape, source.size(), 1).windows(2).map(|pair| Slice::Bytes(pair[0]..pair[1])).collect();
                compare_slices(&shape, &source, &mut tokenizer, place.path(), by_bytes, &expected)?;
            }
        }
    }
}

fn points(shape: &Shape, end: u64, step: u64) -> Vec<u64> {
    let within = usize::try_from(end + 1).unwrap();
    let mut points: Vec<u64> = shape.cuts.iter().map(|cut| cut.index(within) as u64 / step * step).collect();
    points.extend([0, end]);
    points.sort_unstable();
    points
}

fn options(shape: &Shape, prefix: &Path, slice: Slice) -> Options {
    Options {
        keys: shape.keys.iter().map(|&key| key.to_owned()).collect(),
        workers: shape.workers,
        append_eod: shape.eod,
        seq_length: shape.limit,
        slice,
        ..Options::new(prefix)
    }
}

fn compare_slices(
    shape: &Shape,
    source: &Source,
    tokenizer: &mut Tokenizer,
    place: &Path,
    slices: Vec<Slice>,
    expected: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), TestCaseError> {
    let mut parts = Vec::new();
    for (number, slice) in slices.into_iter().enumerate() {
        let prefix = place.join(format!("part{number}"));
        run(source, tokenizer, &options(shape, &prefix, slice), &mut |_| {}).unwrap();
        parts.push(prefix);
    }
    let keys = shape.keys.iter().map(|&key| key.to_owned()).collect();
    let output_prefix = place.join("merged");
    let job =
        Merge { output_prefix: output_prefix.clone(), keys, parts, remove_parts: true, pack: None, digests: false };
    merge(&job, &mut |_, _| {}).unwrap();
    compare(shape, &output_prefix, expected)
}

fn compare(shape: &Shape, prefix: &Path, expected: &[(Vec<u8>, Vec<u8>)]) -> Result<(), TestCaseError> {
    for (key, expected) in shape.keys.iter().zip(expected) {
        let found = read_pair(prefix, key);
        prop_assert!(&found == expected, "{} of {:?}", key, shape);
        let pair = tokenize::Pair::of_key(prefix, key);
        let info = describe_pair(&pair.idx).unwrap();
        prop_assert_eq!(info.tokens * 4, fs::metadata(&pair.bin).unwrap().len());
    }
    Ok(())
}
