//! Checkpoints in the forms that other writers give them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use convert::compare::{Side, compare};
use convert::pickle::write::Writer as Pickler;
use convert::plan::mcore::{Convention, Cut};
use convert::progress::Silent;
use convert::safetensors::HfModel;
use convert::shard::{ModelEntry, Shard};
use convert::source::{Checkpoint, Expected};
use convert::to_mcore::Source;
use convert::zip::Writer as Zipper;
use convert::{to_hf, to_mcore};
use model::{Deal, Parallel};

/// How a tensor is pickled.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// MSAdapter: the storage type as a str, wrapped in `_rebuild_from_type_v2`.
    Adapter,
    /// torch's `Parameter`.
    Parameter,
    /// A transposed view with an offset into a larger storage.
    View,
}

/// Copies a shard, with every tensor pickled in another form, plain dicts, and optimizer state beside the model.
fn rewrite(source: &Path, target: &Path, form: Form) {
    let shard = Shard::open(source).unwrap();
    let mut p = Pickler::default();
    p.empty_dict().mark();
    p.str("args").empty_dict().mark();
    for key in ["tensor_model_parallel_size", "pipeline_model_parallel_size", "num_layers", "hidden_size"] {
        p.str(key).count(shard.args.count(key).unwrap());
    }
    p.set_items();
    p.str("checkpoint_version").float(3.0).str("iteration").int(7);
    // Optimizer state is of no interest, whatever it holds.
    p.str("optimizer").empty_dict().mark();
    p.str("step").global("some.module", "Strange").mark().int(1).tuple().reduce();
    p.str("state").global("numpy", "ndarray").empty_tuple().new_object().none().build();
    p.set_items();
    p.str("model").empty_dict().mark();
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    for (name, entry) in &shard.models[0].1 {
        p.str(name);
        let ModelEntry::Tensor(tensor) = entry else {
            p.none();
            continue;
        };
        let matrix_bytes = {
            let start = payload_start(&shard, tensor.key.as_str());
            let count: u64 = tensor.shape.iter().product();
            shard.bytes()[start..start + usize::try_from(count * 2).unwrap()].to_vec()
        };
        let key = payloads.len().to_string();
        match form {
            Form::Adapter => {
                p.global("torch._tensor", "_rebuild_from_type_v2").mark();
                p.global("torch._utils", "_rebuild_tensor_v2").global("torch", "Tensor").mark();
                storage(&mut p, Some("BFloat16Storage"), &key, tensor.elements);
                p.count(0).counts(&tensor.shape).counts(&tensor.strides).bool(false);
                p.global("collections", "OrderedDict").empty_tuple().reduce().tuple();
                p.empty_dict().tuple().reduce();
                payloads.push(matrix_bytes);
            }
            Form::Parameter => {
                p.global("torch._utils", "_rebuild_parameter").mark();
                p.global("torch._utils", "_rebuild_tensor_v2").mark();
                storage(&mut p, None, &key, tensor.elements);
                p.count(0).counts(&tensor.shape).counts(&tensor.strides).bool(false);
                p.global("collections", "OrderedDict").empty_tuple().reduce().tuple().reduce();
                p.bool(true).global("collections", "OrderedDict").empty_tuple().reduce().tuple().reduce();
                payloads.push(matrix_bytes);
            }
            Form::View => {
                p.global("torch._utils", "_rebuild_tensor_v2").mark();
                storage(&mut p, None, &key, tensor.elements + 3);
                let strides = if tensor.shape.len() == 2 { vec![1, tensor.shape[0]] } else { vec![1] };
                p.count(3).counts(&tensor.shape).counts(&strides).bool(false);
                p.global("collections", "OrderedDict").empty_tuple().reduce().tuple().reduce();
                payloads.push([&[0xee; 6][..], &transposed(&matrix_bytes, &tensor.shape)].concat());
            }
        }
    }
    p.set_items().set_items();
    let mut zip = Zipper::new(Vec::new());
    zip.entry("archive/data.pkl", &p.finish()).unwrap();
    zip.entry("archive/version", b"3").unwrap();
    zip.entry("archive/byteorder", b"little").unwrap();
    for (i, payload) in payloads.iter().enumerate() {
        zip.entry(&format!("archive/data/{i}"), payload).unwrap();
    }
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(target, zip.finish().unwrap()).unwrap();
}

fn storage(p: &mut Pickler, as_text: Option<&str>, key: &str, elements: u64) {
    p.mark().str("storage");
    match as_text {
        Some(text) => p.str(text),
        None => p.global("torch", "BFloat16Storage"),
    };
    p.str(key).str("cpu").count(elements).tuple().persistent();
}

fn transposed(bytes: &[u8], shape: &[u64]) -> Vec<u8> {
    let [rows, width] = shape[..] else { return bytes.to_vec() };
    let at = |r: u64, c: u64| usize::try_from((r * width + c) * 2).unwrap();
    (0..width).flat_map(|c| (0..rows).flat_map(move |r| [at(r, c), at(r, c) + 1])).map(|i| bytes[i]).collect()
}

fn payload_start(shard: &Shard, key: &str) -> usize {
    let archive = convert::zip::Archive::parse(shard.path(), shard.bytes()).unwrap();
    archive.find(&format!("model_optim_rng/data/{key}")).unwrap().range.start
}

#[test]
fn other_writers_forms_lead_back_to_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let s = common::small_shape();
    let source = dir.path().join("hf");
    let tensors = common::write_model(&source, &s, 11, 1);
    let model = HfModel::open(&source).unwrap();
    let cut = Cut::even(Parallel::new(2, 2).unwrap(), Convention::V1);
    let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype: s.dtype, tokenizer_model: None };
    to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
    for (form, name) in [(Form::Adapter, "adapter"), (Form::Parameter, "parameter"), (Form::View, "view")] {
        let target = dir.path().join(name);
        for rank in ["mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"] {
            let file = |root: &Path, iteration: &str| root.join(iteration).join(rank).join("model_optim_rng.pt");
            rewrite(&file(&dir.path().join("mcore"), "iter_0000001"), &file(&target, "iter_0000007"), form);
        }
        fs::write(target.join("latest_checkpointed_iteration.txt"), "7\n").unwrap();
        reshard(&target, &source, &s, &dir.path().join(format!("{name}-other")));
        let out = dir.path().join(format!("{name}-hf"));
        let request = to_hf::Request::new(target, source.clone(), out.clone());
        to_hf::convert(&request, &Silent).unwrap();
        let file = fs::read(out.join("model.safetensors")).unwrap();
        let header = convert::safetensors::Header::parse(&out, &file).unwrap();
        assert_eq!(header.tensors.len(), tensors.len());
        for t in header.tensors {
            assert!(tensors[&t.name].1 == file[t.range], "{name}: {}", t.name);
        }
    }
}

/// From such a checkpoint straight to another layout: its iteration and its weights stay, its optimizer does not.
fn reshard(from: &Path, hf: &Path, s: &model::ModelShape, to: &Path) {
    let checkpoint = Checkpoint::open(from, None, &Expected::Of(s, hf), &Silent).unwrap();
    let deal = Deal { list: Some(vec![1, 2, 1]), ..Deal::default() };
    let cut = Cut { deal, ..Cut::even(Parallel::new(1, 3).unwrap(), Convention::V1) };
    let source = Source::Mcore(&checkpoint);
    let request = to_mcore::Request { source, cut, dtype: s.dtype, tokenizer_model: None };
    to_mcore::convert(&request, to, &Silent).unwrap();
    let tracker = fs::read_to_string(to.join("latest_checkpointed_iteration.txt")).unwrap();
    assert_eq!(tracker, "7");
    let made = Checkpoint::open(to, None, &Expected::Of(s, hf), &Silent).unwrap();
    compare(Side::Mcore(&checkpoint), Side::Mcore(&made), Some(s.dtype), None, &Silent).unwrap();
    let shard = Shard::open(&to.join("iter_0000007/mp_rank_00_001/model_optim_rng.pt")).unwrap();
    assert!(!shard.has_training_state());
    // What training left is not replaced by a conversion.
    let error = to_mcore::convert(&request, from, &Silent).unwrap_err();
    assert!(error.to_string().contains("would be replaced"), "{error}");
}
