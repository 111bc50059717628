//! Byte equality with recorded results of the reference tool.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::Path;

use common::read_pair;
use tokenize::{Backend, Handler, Merge, Options, Slice, Source, Tokenizer, merge, run};

struct Case {
    name: &'static str,
    keys: &'static [&'static str],
    append_eod: bool,
    seq_length: Option<u32>,
    handler: Handler,
}

const CASES: &[Case] = &[
    Case {
        name: "pre_parquet_default",
        keys: &["text"],
        append_eod: false,
        seq_length: None,
        handler: Handler::Pretrain,
    },
    Case {
        name: "pre_parquet_eod_w2",
        keys: &["text"],
        append_eod: true,
        seq_length: None,
        handler: Handler::Pretrain,
    },
    Case {
        name: "pre_seqlen128",
        keys: &["text"],
        append_eod: false,
        seq_length: Some(128),
        handler: Handler::Pretrain,
    },
    Case {
        name: "pre_keys2",
        keys: &["text", "output"],
        append_eod: false,
        seq_length: None,
        handler: Handler::Pretrain,
    },
    Case {
        name: "pre_alpaca_pretrain",
        keys: &["text"],
        append_eod: false,
        seq_length: None,
        handler: Handler::AlpacaPretrain,
    },
    Case {
        name: "pre_instruction_qwen",
        keys: &["text"],
        append_eod: false,
        seq_length: None,
        handler: Handler::AlpacaInstruction,
    },
];

impl Case {
    fn options(&self, prefix: &Path, workers: usize, slice: Slice) -> Options {
        Options {
            keys: self.keys.iter().map(|&key| key.to_owned()).collect(),
            append_eod: self.append_eod,
            seq_length: self.seq_length,
            workers,
            slice,
            handler: self.handler,
            ..Options::new(prefix)
        }
    }

    fn outputs(&self) -> Vec<String> {
        self.handler.outputs(&self.keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>())
    }

    fn assert_equal(&self, golden: &Path, prefix: &Path, what: &str) {
        for key in self.outputs() {
            let expected = read_pair(&golden.join(self.name).join("alpaca"), &key);
            assert!(read_pair(prefix, &key) == expected, "{} {key}: {what}", self.name);
        }
    }
}

#[test]
fn whole_runs_and_merged_slices_equal_the_reference() {
    let Some(root) = common::reference_data() else {
        println!("skipped: no reference data (set QCTL_REFERENCE_DATA)");
        return;
    };
    let golden = root.join("golden");
    let mut tokenizer = Tokenizer::load(&golden.join("tokenizer"), Backend::Auto).unwrap();
    assert_eq!(tokenizer.encoder().name(), "fast", "{:?}", tokenizer.warnings());
    let place = tempfile::tempdir().unwrap();
    let mut count = 0;
    for case in CASES.iter().filter(|case| golden.join(case.name).is_dir()) {
        for input in ["alpaca_like_1234.parquet", "alpaca_like_1234.jsonl"] {
            let source = Source::open(&golden.join(input)).unwrap();
            for workers in [1, 4] {
                let prefix = place.path().join("whole");
                run(&source, &mut tokenizer, &case.options(&prefix, workers, Slice::All), &mut |_| {}).unwrap();
                case.assert_equal(&golden, &prefix, &format!("{input} workers {workers}"));
                count += 1;
            }
            for (number, cuts) in cut_points(&source, input.ends_with("jsonl")).into_iter().enumerate() {
                let prefix = place.path().join(format!("merged{number}"));
                let mut parts = Vec::new();
                for (part, slice) in cuts.iter().enumerate() {
                    let prefix = place.path().join(format!("part{number}-{part}"));
                    run(&source, &mut tokenizer, &case.options(&prefix, 2, slice.clone()), &mut |_| {}).unwrap();
                    parts.push(prefix);
                }
                let keys = case.outputs();
                let job = Merge {
                    output_prefix: prefix.clone(),
                    keys,
                    parts,
                    remove_parts: true,
                    pack: None,
                    digests: false,
                };
                merge(&job, &mut |_, _| {}).unwrap();
                case.assert_equal(&golden, &prefix, &format!("{input} slices {cuts:?}"));
                count += 1;
            }
        }
        let left: Vec<String> = common::names(place.path())
            .into_iter()
            .filter(|name| name.starts_with('.') || name.starts_with("part"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "leftovers");
    }
    println!("golden cases run: {count}");
    assert!(count > 0, "there is reference data, but no case ran");
}

#[test]
fn the_reference_encoder_gives_the_same_bytes() {
    let Some(root) = common::reference_data() else {
        println!("skipped: no reference data (set QCTL_REFERENCE_DATA)");
        return;
    };
    let golden = root.join("golden");
    let mut tokenizer = Tokenizer::load(&golden.join("tokenizer"), Backend::Reference).unwrap();
    let place = tempfile::tempdir().unwrap();
    let prefix = place.path().join("slow");
    let source = Source::open(&golden.join("alpaca_like_1234.parquet")).unwrap();
    run(&source, &mut tokenizer, &CASES[1].options(&prefix, 2, Slice::All), &mut |_| {}).unwrap();
    CASES[1].assert_equal(&golden, &prefix, "reference encoder");
}

/// Rows around the empty texts, at row group ends and at the edges; for jsonl
/// also bytes inside and between lines.
fn cut_points(source: &Source, jsonl: bool) -> Vec<Vec<Slice>> {
    let rows = |points: &[u64]| points.windows(2).map(|pair| Slice::Rows(pair[0]..pair[1])).collect::<Vec<_>>();
    let mut all = vec![rows(&[0, 10, 11, 12, 57, 58, 1234]), rows(&[0, 0, 617, 617, 1233, 1234, 1234])];
    if jsonl {
        let bytes = |points: &[u64]| points.windows(2).map(|pair| Slice::Bytes(pair[0]..pair[1])).collect::<Vec<_>>();
        let size = source.size();
        let content = fs::read(source.paths().next().unwrap()).unwrap();
        let line_end = content.iter().position(|&byte| byte == b'\n').unwrap() as u64;
        all.push(bytes(&[0, 1, line_end, line_end + 1, line_end + 2, size / 2, size - 1, size]));
        all.push(bytes(&[0, size / 3, size / 3 + 1, size / 3 + 2, size]));
    }
    all
}
