//! Equality with the genuine reference tools, tensor by tensor.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use convert::matrix::emit;
use convert::plan::mcore::{Convention, Cut};
use convert::plan::{Block, Tensor};
use convert::progress::Silent;
use convert::safetensors::HfModel;
use convert::shard::read::{Extent, Scalar};
use convert::shard::{ModelEntry, Shard};
use convert::{dtype, to_hf, to_mcore};
use model::{Dtype, Parallel};
use sha2::{Digest, Sha256};

/// One line of a `tensors.tsv`: key set, type, shape, digest.
type Facts = BTreeMap<(String, String, String), (String, String, String)>;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn expected(case: &Path) -> Facts {
    let text = fs::read_to_string(case.join("tensors.tsv")).unwrap();
    let mut facts = Facts::new();
    for line in text.lines().skip(1) {
        let [file, key, name, dtype, shape, sha] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let file = file.strip_prefix("out/").unwrap();
        facts.insert((file.into(), key.into(), name.into()), (dtype.into(), shape.into(), sha.into()));
    }
    assert!(!facts.is_empty());
    facts
}

/// The tensor's elements in row-major order, whatever its strides.
fn bytes_of(shard: &Shard, name: &str, tensor: &convert::shard::tensor::TensorRef) -> (Dtype, Vec<u8>) {
    let matrix = shard.matrix(name, tensor).unwrap();
    let (rows, width) = match tensor.shape[..] {
        [n] => (n, 1),
        [rows, width] => (rows, width),
        _ => panic!("{name} has {:?}", tensor.shape),
    };
    let whole =
        Tensor { name: name.into(), shape: tensor.shape.clone(), blocks: vec![Block::rows((), 0, rows, width)] };
    let mut bytes = Vec::new();
    emit(&whole, matrix.dtype(), &|()| Ok(matrix), &mut |run| {
        bytes.extend_from_slice(run);
        Ok(())
    })
    .unwrap();
    (matrix.dtype(), bytes)
}

/// What a written or given checkpoint really holds.
fn found(dir: &Path) -> Facts {
    let mut facts = Facts::new();
    for file in common::tree(dir).into_iter().filter(|p| p.extension().is_some_and(|e| e == "pt")) {
        let shard = Shard::open(&dir.join(&file)).unwrap();
        shard.verify(Extent::All, 2).unwrap();
        for (key, entries) in &shard.models {
            for (name, entry) in entries {
                let value = match entry {
                    ModelEntry::Tensor(tensor) => {
                        let (dtype, bytes) = bytes_of(&shard, name, tensor);
                        (format!("torch.{}", dtype::torch_name(dtype)), format!("{:?}", tensor.shape), hex(&bytes))
                    }
                    ModelEntry::None => ("NoneType".into(), "-".into(), "-".into()),
                    ModelEntry::Other => panic!("{name}"),
                };
                facts.insert((file.display().to_string(), key.clone(), name.clone()), value);
            }
        }
    }
    facts
}

fn scalars(dir: &Path, convention: Convention) {
    for file in common::tree(dir).into_iter().filter(|p| p.extension().is_some_and(|e| e == "pt")) {
        let shard = Shard::open(&dir.join(file)).unwrap();
        let mut wanted = vec![
            ("args", Scalar::Other),
            ("checkpoint_version", Scalar::Float(3.0)),
            ("iteration", Scalar::Int(1)),
            ("model", Scalar::Other),
        ];
        if convention == Convention::V1 {
            wanted.push(("rerun_state_machine", Scalar::None));
            wanted.push(("num_floating_point_operations_so_far", Scalar::Int(0)));
        }
        let wanted: Vec<_> = wanted.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        assert_eq!(shard.scalars, wanted);
    }
}

#[test]
fn hf_to_mcore_equals_the_reference() {
    let Some(golden) = common::golden() else { return };
    let cases = [
        ("v1_untied_tp2pp2", "hf_tiny_untied_v1003", 2, 2, Convention::V1),
        ("v1_untied_tp1pp1", "hf_tiny_untied_v1003", 1, 1, Convention::V1),
        ("v1_tied_tp2pp2", "hf_tiny_tied_v1024", 2, 2, Convention::V1),
        ("v1_tied_tp1pp1", "hf_tiny_tied_v1024", 1, 1, Convention::V1),
        ("v1_gqa7_tp2pp3", "hf_tiny_gqa7_untied", 2, 3, Convention::V1),
        ("v2_tied_tp2pp2", "hf_tiny_tied_v1024", 2, 2, Convention::V2),
    ];
    let mut ran = 0;
    for (case, input, tp, pp, convention) in cases {
        let model = HfModel::open(&golden.join(input)).unwrap();
        let cut = Cut { parallel: Parallel::new(tp, pp).unwrap(), divisor: 1, convention };
        let request = to_mcore::Request { model: &model, cut, dtype: Dtype::Bf16, tokenizer_model: None };
        let dir = tempfile::tempdir().unwrap();
        let written = to_mcore::convert(&request, dir.path(), &Silent).unwrap();
        assert_eq!(written.len() as u64, cut.parallel.shards(), "{case}");
        let (found, expected) = (found(dir.path()), expected(&golden.join(case)));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}: key set");
        for (key, value) in &expected {
            assert_eq!(&found[key], value, "{case}: {key:?}");
        }
        scalars(dir.path(), convention);
        let tracker = fs::read(dir.path().join("latest_checkpointed_iteration.txt")).unwrap();
        assert_eq!(
            tracker,
            fs::read(golden.join(case).join("out/latest_checkpointed_iteration.txt")).unwrap(),
            "{case}"
        );
        ran += 1;
    }
    println!("golden cases run: {ran} (hf to mcore)");
    assert_eq!(ran, cases.len());
}

#[test]
fn the_v1_key_order_is_the_reference_s_too() {
    let Some(golden) = common::golden() else { return };
    let model = HfModel::open(&golden.join("hf_tiny_untied_v1003")).unwrap();
    let cut = Cut { parallel: Parallel::new(2, 2).unwrap(), divisor: 1, convention: Convention::V1 };
    let request = to_mcore::Request { model: &model, cut, dtype: Dtype::Bf16, tokenizer_model: None };
    let dir = tempfile::tempdir().unwrap();
    to_mcore::convert(&request, dir.path(), &Silent).unwrap();
    for rank in ["mp_rank_00_000", "mp_rank_01_001"] {
        let file = Path::new("iter_0000001").join(rank).join("model_optim_rng.pt");
        let names = |root: &Path| -> Vec<String> {
            Shard::open(&root.join(&file)).unwrap().models[0].1.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(dir.path()), names(&golden.join("v1_untied_tp2pp2/out")));
    }
}

/// Options that the converter refuses are still read: what the reader sees equals what torch saw.
#[test]
fn every_reference_checkpoint_is_read_exactly() {
    let Some(golden) = common::golden() else { return };
    let mut ran = 0;
    for entry in fs::read_dir(&golden).unwrap().flatten() {
        let case = entry.path();
        if !case.join("tensors.tsv").exists() || !case.join("out").exists() {
            continue;
        }
        assert_eq!(found(&case.join("out")), expected(&case), "{}", case.display());
        ran += 1;
    }
    println!("golden cases run: {ran} (reader)");
    assert!(ran >= 9, "{ran}");
}

fn to_hf_request(load_dir: PathBuf, hf_dir: PathBuf, out: PathBuf) -> to_hf::Request {
    to_hf::Request { load_dir, iteration: None, hf_dir, out, dtype: None }
}

fn hf_facts(dir: &Path) -> BTreeMap<String, (String, String)> {
    let model = HfModel::open(dir).unwrap();
    let mut facts = BTreeMap::new();
    for (map, _) in model.files() {
        let header = convert::safetensors::Header::parse(map.path(), map.bytes()).unwrap();
        for t in header.tensors {
            facts.insert(t.name, (format!("{} {:?}", t.dtype, t.shape), hex(&map.bytes()[t.range])));
        }
    }
    facts
}

#[test]
fn mcore_to_hf_equals_the_reference() {
    let Some(golden) = common::golden() else { return };
    let out = tempfile::tempdir().unwrap();
    let mut ran = 0;
    // The reference's own result: names, shapes, bytes; here even the whole file.
    let case = golden.join("mg2hf_gqa7_from_tp2pp3_bf16");
    let target = out.path().join("mg2hf");
    let request = to_hf_request(golden.join("v1_gqa7_tp2pp3/out"), golden.join("hf_tiny_gqa7_untied"), target.clone());
    to_hf::convert(&request, &Silent).unwrap();
    let reference = case.join("hfdir/mg2hf");
    assert_eq!(hf_facts(&target), hf_facts(&reference));
    for name in ["model.safetensors", "config.json", "generation_config.json"] {
        assert_eq!(fs::read(target.join(name)).unwrap(), fs::read(reference.join(name)).unwrap(), "{name}");
    }
    ran += 1;
    // Every genuine checkpoint of a supported layout gives back the model that it was made from.
    let sources = [
        ("v1_untied_tp2pp2", "hf_tiny_untied_v1003"),
        ("v1_untied_tp1pp1", "hf_tiny_untied_v1003"),
        ("v1_tied_tp2pp2", "hf_tiny_tied_v1024"),
        ("v1_tied_tp1pp1", "hf_tiny_tied_v1024"),
        ("v2_tied_tp2pp2", "hf_tiny_tied_v1024"),
        ("v2_untied_tp2pp2", "hf_tiny_untied_v1003"),
    ];
    for (case, hf) in sources {
        let target = out.path().join(case);
        to_hf::convert(&to_hf_request(golden.join(case).join("out"), golden.join(hf), target.clone()), &Silent)
            .unwrap();
        assert_eq!(hf_facts(&target), hf_facts(&golden.join(hf)), "{case}");
        ran += 1;
    }
    println!("golden cases run: {ran} (mcore to hf)");
    assert_eq!(ran, 7);
}

#[test]
fn options_that_are_not_supported_are_refused_by_name() {
    let Some(golden) = common::golden() else { return };
    let table = [
        ("v1_untied_tp2pp2_vpp1", "hf_tiny_untied_v1003", "virtual pipeline stages"),
        ("v1_gqa7_tp2pp2_noop6_7", "hf_tiny_gqa7_untied", "`noop_layers`"),
    ];
    for (case, hf, named) in table {
        let out = tempfile::tempdir().unwrap();
        let request = to_hf_request(golden.join(case).join("out"), golden.join(hf), out.path().join("x"));
        let error = to_hf::convert(&request, &Silent).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("not supported yet"), "{error}");
        assert_eq!(common::tree(out.path()), Vec::<PathBuf>::new());
    }
}
