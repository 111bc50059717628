//! Shards made to exhaust memory or to execute: each is told in a sentence, or read as what it is, in little memory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::lab::{Lab, run, stderr, succeed, to_mcore};
use common::parts::{Parts, patch};
use convert::pickle::write::Writer as Pickler;
use convert::shard::args::Plain;
use convert::zip::Writer as Zipper;

/// Address space that the program gets.
const MIB: u64 = 512;

/// The sentences that `inspect` has for a checkpoint, in bounded memory.
fn inspect(dir: &Path) -> Vec<String> {
    let script = format!("ulimit -v {}; exec \"$@\"", MIB << 10);
    let program = env!("CARGO_BIN_EXE_qctl-convert");
    let mut command = Command::new("bash");
    // One arena: each other one reserves addresses that it does not use.
    command.args(["-c", &script, "bash", program, "inspect", "--mcore-dir"]).arg(dir).env("MALLOC_ARENA_MAX", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(&output));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = seen["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["message"].as_str().unwrap().to_owned()).collect()
}

fn checked(dir: &Path, what: &str, expected: Option<&str>) {
    let said = inspect(dir);
    match expected {
        Some(expected) => assert!(said.iter().any(|said| said.contains(expected)), "{what}: {said:?}"),
        None => assert_eq!(said, Vec::<String>::new(), "{what}"),
    }
}

fn text(value: &str) -> Vec<u8> {
    [b"X", &u32::try_from(value.len()).unwrap().to_le_bytes()[..], value.as_bytes()].concat()
}

/// Protocol 2: `shared` under memo 7, `args` and `model` with these pairs, and more keys at the top.
fn pickle(shared: &[u8], args: &[u8], model: &[u8], top: &[u8]) -> Vec<u8> {
    [
        &b"\x80\x02"[..],
        shared,
        b"q\x070}(",
        &text("args"),
        b"}(",
        args,
        b"u",
        &text("iteration"),
        b"K\x01",
        &text("model"),
        b"}(",
        model,
        b"u",
        top,
        b"u.",
    ]
    .concat()
}

/// `count` different names, each with this value.
fn names(count: usize, value: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|at| [text(&format!("name{at}")), value.to_vec()].concat()).collect()
}

#[test]
fn a_value_that_stands_in_many_places_costs_what_it_costs_once() {
    let lab = Lab::new();
    let shard = lab.path("mcore/iter_0000001/mp_rank_00/model_optim_rng.pt");
    fs::create_dir_all(shard.parent().unwrap()).unwrap();
    let list = [&b"]("[..], &b"K\x01".repeat(1 << 19), b"e"].concat();
    let long = text(&"n".repeat(8 << 20));
    let (shared, none) = (b"h\x07".to_vec(), b"N".to_vec());
    let table: [(&str, Vec<u8>, Option<&str>); 8] = [
        ("a list under 4000 names", pickle(&list, &names(4000, &shared), b"", b""), None),
        ("a str under 4000 names", pickle(&long, &names(4000, &shared), b"", b""), None),
        ("a long name, 4000 times", pickle(&long, &b"h\x07N".repeat(4000), b"", b""), None),
        ("5000 attributes", pickle(b"N", &names(5000, &none), b"", b""), Some("has too many `args`")),
        (
            "a long name of a tensor, 4000 times",
            pickle(&long, b"", &b"h\x07N".repeat(4000), b""),
            Some("names a tensor in more than 256 bytes"),
        ),
        (
            "200000 entries of one name",
            pickle(&text("name"), b"", &b"h\x07N".repeat(200_000), b""),
            Some("holds more than 131072 tensors"),
        ),
        ("a long key at the top, 4000 times", pickle(&long, b"", b"", &b"h\x07N".repeat(4000)), None),
        (
            "5000 keys at the top",
            pickle(b"N", b"", b"", &names(5000, &none)),
            Some("holds a dictionary of more than 4096 keys"),
        ),
    ];
    for (what, pickle, expected) in table {
        let mut zip = Zipper::new(Vec::new());
        zip.entry("model_optim_rng/data.pkl", &pickle).unwrap();
        fs::write(&shard, zip.finish().unwrap()).unwrap();
        checked(&lab.path("mcore"), what, expected);
    }
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_laid_out_for_them() {
    let lab = Lab::new();
    let save = lab.path("mcore");
    succeed(&to_mcore(&lab.hf(), &save, "1", "1"));
    let shard = save.join("iter_0000001/mp_rank_00/model_optim_rng.pt");
    let whole = fs::read(&shard).unwrap();
    let in_two = |parts: &mut Parts| {
        let (_, tensors) = parts.models.remove(0);
        parts.models.extend(["model0", "model1"].map(|key| (key.to_owned(), tensors.clone())));
    };
    type Change<'a> = &'a dyn Fn(&mut Parts);
    let table: [(&str, Change<'_>); 5] = [
        ("states pipeline_model_parallel_size = 2147483648 in its `args`, more than 4096", &|parts| {
            parts.set("pipeline_model_parallel_size", Plain::Int(1 << 31));
        }),
        ("states tensor_model_parallel_size = 4294967295 in its `args`, more than 4096", &|parts| {
            parts.set("tensor_model_parallel_size", Plain::Int((1 << 32) - 1));
        }),
        ("belongs to a model whose virtual stages are more than 4096", &|parts| {
            in_two(parts);
            parts.set("pipeline_model_parallel_size", Plain::Int(4096));
        }),
        ("names layers in slots that are more than 4096", &|parts| {
            in_two(parts);
            for (name, _) in parts.models.iter_mut().flat_map(|(_, tensors)| tensors) {
                *name = name.replace("layers.3.", "layers.4000.");
            }
        }),
        ("describes an impossible model in its `args`", &|parts| {
            for (name, size) in [("num_attention_heads", 1 << 31), ("num_query_groups", 1 << 31), ("hidden_size", 1)] {
                parts.set(name, Plain::Int(size));
            }
            parts.set("kv_channels", Plain::Int(1));
        }),
    ];
    for (expected, change) in table {
        patch(&shard, change);
        checked(&save, expected, Some(expected));
        fs::write(&shard, &whole).unwrap();
    }
    checked(&save, "as it was", None);
}

/// Pickles made to exhaust or to execute: a sentence, quickly, and little memory.
#[test]
fn hostile_pickles_are_refused() {
    let lab = Lab::new();
    let mcore = lab.convert();
    let shard = mcore.join("iter_0000001/mp_rank_00_000/model_optim_rng.pt");
    let deep = [b"\x80\x02".to_vec(), vec![b'('; 4 << 20], b".".to_vec()].concat();
    let long = [b"\x80\x02".to_vec(), b"}0".repeat(4 << 20), b".".to_vec()].concat();
    let call = b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R.".to_vec();
    let huge = {
        let mut p = Pickler::default();
        p.empty_dict().mark().str("model").empty_dict().mark().str("embedding.word_embeddings.weight");
        p.global("torch._utils", "_rebuild_tensor_v2").mark();
        p.mark()
            .str("storage")
            .global("torch", "BFloat16Storage")
            .str("0")
            .str("cpu")
            .count(1 << 62)
            .tuple()
            .persistent();
        p.count(1 << 61).counts(&[1 << 31, 1 << 31]).counts(&[1 << 62, 1 << 62]).bool(false).none().tuple().reduce();
        p.set_items().set_items();
        p.finish()
    };
    for (pickle, expected) in [
        (deep, "too deep"),
        (long, "more than 2097152 values"),
        (call, "holds no `model`"),
        (huge, "its storage has 4 bytes"),
        (b"\x80\x02}.".to_vec(), "holds no `model`"),
        (vec![], "the pickle ends too early"),
    ] {
        let mut zip = Zipper::new(Vec::new());
        zip.entry("model_optim_rng/data.pkl", &pickle).unwrap();
        zip.entry("model_optim_rng/data/0", &[0; 4]).unwrap();
        fs::write(&shard, zip.finish().unwrap()).unwrap();
        let out = lab.path("export");
        let output = run(&[
            "--load-model-type",
            "mg",
            "--save-model-type",
            "hf",
            "--load-dir",
            mcore.to_str().unwrap(),
            "--hf-dir",
            lab.hf().to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{} lacks {expected}", stderr(&output));
        assert!(!out.exists());
    }
}
