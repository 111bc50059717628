//! Equality with the genuine reference tools, tensor by tensor.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use convert::matrix::{Cast, emit};
use convert::plan::mcore::{Convention, Cut};
use convert::plan::{Block, Tensor};
use convert::progress::Silent;
use convert::safetensors::HfModel;
use convert::shard::args::Plain;
use convert::shard::read::Extent;
use convert::shard::{ModelEntry, Shard};
use convert::source::{Checkpoint, Expected};
use convert::to_mcore::Source;
use convert::{dtype, to_hf, to_mcore};
use model::{Deal, Dtype, Parallel};
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
    emit(&whole, Cast::to(matrix.dtype()), &|()| Ok(matrix), &mut |run| {
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

/// The plain values at the top, and what a training run reads of `args`.
fn scalars(dir: &Path, reference: &Path) {
    for file in common::tree(dir).into_iter().filter(|p| p.extension().is_some_and(|e| e == "pt")) {
        let (ours, theirs) = (Shard::open(&dir.join(&file)).unwrap(), Shard::open(&reference.join(&file)).unwrap());
        assert_eq!(ours.scalars, theirs.scalars, "{}", file.display());
        assert_eq!(ours.iteration(), Some(1));
        let stated = ["num_layers", "hidden_size", "num_attention_heads", "add_position_embedding"];
        let sizes = ["tensor_model_parallel_size", "pipeline_model_parallel_size"];
        let dealt = [
            "virtual_pipeline_model_parallel_size",
            "num_layers_per_virtual_pipeline_stage",
            "noop_layers",
            "num_layer_list",
            "padded_vocab_size",
        ];
        for name in stated.into_iter().chain(sizes).chain(dealt) {
            // The second converter's `args` know nothing of how layers are dealt.
            if let Some(wanted) = theirs.args.get(name) {
                assert_eq!(ours.args.get(name), Some(wanted), "{name} of {}", file.display());
            }
        }
    }
}

#[test]
fn hf_to_mcore_equals_the_reference() {
    let Some(golden) = common::golden() else { return };
    let even = Deal::default;
    let cases = [
        ("v1_untied_tp2pp2", "hf_tiny_untied_v1003", 2, 2, Convention::V1, even()),
        ("v1_untied_tp1pp1", "hf_tiny_untied_v1003", 1, 1, Convention::V1, even()),
        ("v1_tied_tp2pp2", "hf_tiny_tied_v1024", 2, 2, Convention::V1, even()),
        ("v1_tied_tp1pp1", "hf_tiny_tied_v1024", 1, 1, Convention::V1, even()),
        ("v1_gqa7_tp2pp3", "hf_tiny_gqa7_untied", 2, 3, Convention::V1, even()),
        ("v2_tied_tp2pp2", "hf_tiny_tied_v1024", 2, 2, Convention::V2, even()),
        (
            "v1_untied_tp2pp2_vpp1",
            "hf_tiny_untied_v1003",
            2,
            2,
            Convention::V1,
            Deal { per_chunk: Some(1), ..Deal::default() },
        ),
        (
            "v1_gqa7_tp2pp2_noop6_7",
            "hf_tiny_gqa7_untied",
            2,
            2,
            Convention::V1,
            Deal { noop: vec![6, 7], ..Deal::default() },
        ),
    ];
    let mut ran = 0;
    for (case, input, tp, pp, convention, deal) in &cases {
        let (tp, pp, convention, deal) = (*tp, *pp, *convention, deal.clone());
        let model = HfModel::open(&golden.join(input)).unwrap();
        let cut = Cut { deal, ..Cut::even(Parallel::new(tp, pp).unwrap(), convention) };
        let parallel = cut.parallel;
        let source = Source::Hf(&model);
        let request = to_mcore::Request { source, cut, dtype: Dtype::Bf16, tokenizer_model: None };
        let dir = tempfile::tempdir().unwrap();
        let written = to_mcore::convert(&request, dir.path(), &Silent).unwrap();
        assert_eq!(written.len() as u64, parallel.shards(), "{case}");
        let (found, expected) = (found(dir.path()), expected(&golden.join(case)));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}: key set");
        for (key, value) in &expected {
            assert_eq!(&found[key], value, "{case}: {key:?}");
        }
        scalars(dir.path(), &golden.join(case).join("out"));
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
    let cut = Cut::even(Parallel::new(2, 2).unwrap(), Convention::V1);
    let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype: Dtype::Bf16, tokenizer_model: None };
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

/// What the reader sees equals what torch saw.
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
    let request =
        to_hf::Request::new(golden.join("v1_gqa7_tp2pp3/out"), golden.join("hf_tiny_gqa7_untied"), target.clone());
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
        ("v1_untied_tp2pp2_vpp1", "hf_tiny_untied_v1003"),
        ("v1_gqa7_tp2pp2_noop6_7", "hf_tiny_gqa7_untied"),
        ("v1_gqa7_tp2pp3", "hf_tiny_gqa7_untied"),
    ];
    for (case, hf) in sources {
        let target = out.path().join(case);
        to_hf::convert(&to_hf::Request::new(golden.join(case).join("out"), golden.join(hf), target.clone()), &Silent)
            .unwrap();
        assert_eq!(hf_facts(&target), hf_facts(&golden.join(hf)), "{case}");
        ran += 1;
    }
    println!("golden cases run: {ran} (mcore to hf)");
    assert_eq!(ran, 10);
}

/// A genuine checkpoint cut again equals a genuine checkpoint of that other cut.
#[test]
fn mcore_to_mcore_equals_a_conversion_by_the_reference() {
    let Some(golden) = common::golden() else { return };
    let vpp = Deal { per_chunk: Some(1), ..Deal::default() };
    let noop = Deal { noop: vec![6, 7], ..Deal::default() };
    let cases = [
        ("v1_untied_tp2pp2", "v1_untied_tp1pp1", 1, 1, Convention::V1, Deal::default()),
        ("v1_untied_tp1pp1", "v1_untied_tp2pp2", 2, 2, Convention::V1, Deal::default()),
        ("v1_untied_tp1pp1", "v1_untied_tp2pp2_vpp1", 2, 2, Convention::V1, vpp),
        ("v1_untied_tp2pp2_vpp1", "v1_untied_tp2pp2", 2, 2, Convention::V1, Deal::default()),
        ("v1_tied_tp1pp1", "v1_tied_tp2pp2", 2, 2, Convention::V1, Deal::default()),
        ("v1_tied_tp2pp2", "v1_tied_tp1pp1", 1, 1, Convention::V1, Deal::default()),
        ("v1_tied_tp1pp1", "v2_tied_tp2pp2", 2, 2, Convention::V2, Deal::default()),
        ("v2_tied_tp2pp2", "v1_tied_tp1pp1", 1, 1, Convention::V1, Deal::default()),
        ("v1_gqa7_tp2pp3", "v1_gqa7_tp2pp2_noop6_7", 2, 2, Convention::V1, noop),
        ("v1_gqa7_tp2pp2_noop6_7", "v1_gqa7_tp2pp3", 2, 3, Convention::V1, Deal::default()),
    ];
    for (from, to, tp, pp, convention, deal) in &cases {
        let (tp, pp, convention, deal) = (*tp, *pp, *convention, deal.clone());
        let stated = Expected::Stated { vocabulary: None };
        let checkpoint = Checkpoint::open(&golden.join(from).join("out"), None, &stated, &Silent).unwrap();
        let cut = Cut { deal, ..Cut::even(Parallel::new(tp, pp).unwrap(), convention) };
        let source = Source::Mcore(&checkpoint);
        let request = to_mcore::Request { source, cut, dtype: Dtype::Bf16, tokenizer_model: None };
        let dir = tempfile::tempdir().unwrap();
        to_mcore::convert(&request, dir.path(), &Silent).unwrap();
        assert!(found(dir.path()) == expected(&golden.join(to)), "{from} to {to}");
        keeps_numbers(&golden.join(from).join("out"), dir.path());
    }
    println!("golden cases run: {} (mcore to mcore)", cases.len());
}

/// The numbers that no tensor shows go along, under whichever name the source has them.
fn keeps_numbers(from: &Path, to: &Path) {
    let first = |dir: &Path| {
        let files = common::tree(dir).into_iter().find(|p| p.extension().is_some_and(|e| e == "pt"));
        Shard::open(&dir.join(files.unwrap())).unwrap()
    };
    let (theirs, ours) = (first(from), first(to));
    for names in [["rotary_base", "rope_theta"], ["norm_epsilon", "rms_norm_eps"]] {
        let number = |shard: &Shard| match names.iter().find_map(|name| shard.args.get(name)) {
            Some(Plain::Int(n)) => *n as f64,
            Some(Plain::Float(f)) => *f,
            other => panic!("{names:?} is {other:?}"),
        };
        assert!((number(&ours) - number(&theirs)).abs() < f64::EPSILON, "{names:?} of {}", from.display());
    }
}

/// Two ranks hold 1004 rows; the model has 1003.
#[test]
fn the_vocabulary_may_be_stated_and_must_be_there() {
    let Some(golden) = common::golden() else { return };
    let open = |vocabulary| {
        let stated = Expected::Stated { vocabulary: Some(vocabulary) };
        Checkpoint::open(&golden.join("v1_untied_tp2pp2/out"), None, &stated, &Silent)
    };
    let checkpoint = open(1003).unwrap();
    let cut = Cut::even(Parallel::new(1, 1).unwrap(), Convention::V1);
    let source = Source::Mcore(&checkpoint);
    let request = to_mcore::Request { source, cut, dtype: Dtype::Bf16, tokenizer_model: None };
    let dir = tempfile::tempdir().unwrap();
    to_mcore::convert(&request, dir.path(), &Silent).unwrap();
    assert!(found(dir.path()) == expected(&golden.join("v1_untied_tp1pp1")));
    assert_eq!(open(1004).unwrap().shape.vocab_size, 1004);
    let error = open(1005).unwrap_err();
    assert!(error.chain().contains("holds 1004 rows of the embedding; `--true-vocab-size` is 1005"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("give at most 1004")), "{error:?}");
}
