//! What is said of whole, incomplete and damaged checkpoints.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::lab::{self, program, succeed, to_mcore};
use common::parts::patch;
use common::{small_shape, tensor_shapes};
use serde_json::Value;

const SHARD: &str = "model_optim_rng.pt";

/// A converted checkpoint of TP 2 x PP 2.
struct Lab(lab::Lab);

impl Lab {
    fn new() -> Self {
        Self::dealt(&[])
    }

    /// The same, with layers dealt in another way.
    fn dealt(flags: &[&str]) -> Self {
        let lab = lab::Lab::new();
        lab.convert_with(flags);
        Self(lab)
    }

    fn save(&self) -> PathBuf {
        self.0.path("mcore")
    }

    fn shard(&self, name: &str) -> PathBuf {
        self.save().join("iter_0000001").join(name).join(SHARD)
    }

    fn inspect(&self, args: &[&str]) -> Value {
        inspect(&self.save(), args)
    }
}

fn inspect(dir: &Path, args: &[&str]) -> Value {
    let output = program().arg("inspect").arg("--mcore-dir").arg(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = program().arg("inspect").arg("--mcore-dir").arg(dir).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn problem(seen: &Value) -> &str {
    assert_eq!(seen["complete"], false);
    seen["problems"][0]["message"].as_str().unwrap()
}

#[test]
fn a_whole_checkpoint_states_its_layout_parameters_and_types() {
    let lab = Lab::new();
    let seen = lab.inspect(&["--verify"]);
    assert_eq!(
        (&seen["tp"], &seen["pp"], &seen["iteration"], &seen["tracker"]),
        (&2.into(), &2.into(), &1.into(), &1.into())
    );
    assert_eq!((&seen["complete"], &seen["verified"]), (&true.into(), &true.into()));
    assert_eq!(seen["dtypes"], serde_json::json!(["bf16"]));
    let shape = small_shape();
    let elements: u64 = tensor_shapes(&shape).iter().map(|(_, sides)| sides.iter().product::<u64>()).sum();
    let padding = shape.vocab_size.next_multiple_of(2) - shape.vocab_size;
    let tables = if shape.tied { 1 } else { 2 };
    assert_eq!(seen["parameters"], elements + padding * shape.hidden_size * tables);
    let size: u64 = ["mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000", "mp_rank_01_001"]
        .map(|name| fs::metadata(lab.shard(name)).unwrap().len())
        .iter()
        .sum();
    assert_eq!(seen["bytes"], size);
    let one = inspect(&lab.save().join("iter_0000001"), &["--shard", "1,0"]);
    assert_eq!((one["shards"].as_array().unwrap().len(), &one["shards"][0]["tp"]), (1, &1.into()));
}

#[test]
fn missing_ranks_are_named_even_the_last_ones() {
    let lab = Lab::new();
    for name in ["mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"] {
        fs::remove_file(lab.shard(name)).unwrap();
    }
    let seen = lab.inspect(&[]);
    assert_eq!(seen["missing"], serde_json::json!(["mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"]));
    assert_eq!((&seen["complete"], &seen["tp"], &seen["pp"]), (&false.into(), &2.into(), &2.into()));
    assert_eq!(lab.inspect(&["--tp", "2", "--pp", "2"])["load"]["reason"], "`mp_rank_01_000` is missing, and 2 more");
}

#[test]
fn damage_in_any_member_is_found_and_named() {
    let lab = Lab::new();
    let path = lab.shard("mp_rank_01_001");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert_eq!(lab.inspect(&[])["complete"], true, "only what is read can be found");
    let seen = lab.inspect(&["--verify"]);
    assert!(problem(&seen).contains("mp_rank_01_001") && problem(&seen).contains("checksum"), "{seen}");
    assert_eq!(seen["problems"].as_array().unwrap().len(), 1);
    assert_eq!(seen["shards"].as_array().unwrap().iter().filter(|one| one["intact"] == true).count(), 3);
    fs::write(&path, &whole[..middle]).unwrap();
    assert!(problem(&lab.inspect(&[])).contains("no intact checkpoint archive"));
    fs::write(&path, b"").unwrap();
    assert!(problem(&lab.inspect(&[])).contains("mp_rank_01_001"));
}

#[test]
fn a_rank_of_another_place_or_iteration_is_named() {
    let lab = Lab::new();
    let path = lab.shard("mp_rank_01_001");
    let right = fs::read(&path).unwrap();
    fs::copy(lab.shard("mp_rank_00_000"), &path).unwrap();
    assert!(problem(&lab.inspect(&[])).contains("mp_rank_01_001"));
    fs::write(&path, right).unwrap();
    fs::rename(lab.save().join("iter_0000001"), lab.save().join("iter_0000007")).unwrap();
    let seen = lab.inspect(&["--iteration", "7"]);
    assert!(problem(&seen).contains("is of iteration 1, but lies below iteration 7"), "{seen}");
    assert_eq!(seen["problems"].as_array().unwrap().len(), 4);
    let said = refused(&lab.save(), &[]);
    assert!(said.contains("names a missing iteration 1") && said.contains("it holds 7"), "{said}");
}

#[test]
fn a_shard_without_weights_is_broken_only_beside_shards_that_have_some() {
    let lab = Lab::new();
    let path = lab.shard("mp_rank_01_001");
    // Protocol 2: {'model': {}, 'iteration': 1}
    let pickle = b"\x80\x02}(X\x05\x00\x00\x00model}X\x09\x00\x00\x00iterationK\x01u.";
    let mut archive = convert::zip::Writer::new(Vec::new());
    archive.entry("model_optim_rng/data.pkl", pickle).unwrap();
    fs::write(&path, archive.finish().unwrap()).unwrap();
    let seen = lab.inspect(&["--verify"]);
    assert!(problem(&seen).contains("holds no weights, though other shards do"), "{seen}");
    assert_eq!(seen["shards"][3]["intact"], false);
    for name in ["mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001"] {
        fs::copy(&path, lab.shard(name)).unwrap();
    }
    let seen = lab.inspect(&["--verify"]);
    assert_eq!((&seen["complete"], &seen["parameters"]), (&true.into(), &Value::Null), "{seen}");
}

#[test]
fn a_rank_that_lacks_a_layer_which_its_sibling_has_is_named() {
    let lab = lab::Lab::new();
    let save = lab.path("mcore");
    succeed(&to_mcore(&lab.hf(), &save, "2", "1"));
    let shard = save.join("iter_0000001/mp_rank_01").join(SHARD);
    patch(&shard, |parts| parts.models[0].1.retain(|(name, _)| !name.starts_with("decoder.layers.3.")));
    let seen = inspect(&save, &["--verify", "--tp", "2", "--pp", "1"]);
    let said = problem(&seen);
    assert!(said.contains("mp_rank_01/") && said.contains("does not hold the layers"), "{seen}");
    let intact: Vec<bool> =
        seen["shards"].as_array().unwrap().iter().map(|one| one["intact"].as_bool().unwrap()).collect();
    assert_eq!((intact, &seen["load"]["possible"]), (vec![true, false], &false.into()), "{seen}");
}

#[test]
fn whether_a_layout_can_load_it_comes_with_the_reason() {
    let lab = Lab::new();
    let load = |tp: &str, pp: &str| lab.inspect(&["--tp", tp, "--pp", pp])["load"].clone();
    assert_eq!((&load("2", "2")["possible"], &load("2", "2")["reason"]), (&true.into(), &Value::Null));
    let other = load("1", "2");
    assert_eq!(other["possible"], false);
    assert!(other["reason"].as_str().unwrap().contains("it is cut for TP 2 x PP 2"));
    assert!(other["hint"].as_str().unwrap().contains("--target-tensor-parallel-size 1"));
    let impossible = load("3", "1");
    assert!(impossible["reason"].as_str().unwrap().contains("tp 3 does not divide"), "{impossible}");
}

#[test]
fn what_is_no_checkpoint_is_refused_with_a_next_step() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(&dir.path().join("none"), &[]).contains("cannot read"));
    assert!(refused(dir.path(), &[]).contains("holds no `iter_…` directory"));
    fs::create_dir(dir.path().join("iter_0000003")).unwrap();
    assert!(refused(dir.path(), &[]).contains("only checkpoints in Megatron's torch format"));
    let lab = Lab::new();
    assert!(refused(&lab.save(), &["--iteration", "5"]).contains("holds no iteration 5"));
}

#[test]
fn how_layers_are_dealt_is_told_from_the_shards_themselves() {
    let table: [(&[&str], u64, &[u64]); 4] = [
        (&[], 1, &[2, 2]),
        (&["--num-layer-list", "3,1"], 1, &[3, 1]),
        (&["--num-layers-per-virtual-pipeline-stage", "1"], 2, &[2, 2]),
        (&["--noop-layers", "0,1"], 1, &[1, 3]),
    ];
    for (flags, chunks, layers) in table {
        let lab = Lab::dealt(flags);
        let seen = lab.inspect(&["--verify", "--tp", "2", "--pp", "2"]);
        assert_eq!(seen["complete"], true, "{flags:?}: {seen}");
        assert_eq!(seen["virtual_stages"], chunks, "{flags:?}");
        assert_eq!(seen["layers"], serde_json::json!(layers), "{flags:?}");
        assert_eq!(seen["load"]["possible"], true, "{flags:?}");
    }
    // A stage of another run: every shard is whole, but together they are not the model.
    let (lab, other) = (Lab::dealt(&["--num-layer-list", "3,1"]), Lab::dealt(&["--num-layer-list", "1,3"]));
    for rank in ["mp_rank_00_001", "mp_rank_01_001"] {
        fs::copy(other.shard(rank), lab.shard(rank)).unwrap();
    }
    let seen = lab.inspect(&[]);
    assert!(problem(&seen).contains("hold 6 layers; their model has 4"), "{seen}");
}
