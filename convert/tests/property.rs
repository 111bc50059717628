//! Random models against a plain implementation that shares nothing with the planner.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Tensors, Words};
use convert::matrix::{Matrix, emit};
use convert::plan::mcore::{self, Convention, Cut, Entry};
use convert::plan::{Tensor, hf};
use convert::progress::Silent;
use convert::safetensors::{Header, HfModel};
use convert::{to_hf, to_mcore};
use model::{Dtype, ModelShape, Parallel};
use proptest::prelude::*;

/// Rows of little-endian elements, two bytes each.
type Rows = Vec<Vec<u8>>;

/// A random model and a layout that fits it.
fn random_case(seed: u64) -> (ModelShape, Cut) {
    let mut w = Words(seed);
    let tp = 1 << w.below(4);
    let pp = 1 + w.below(4);
    let groups = tp * (1 + w.below(3));
    let heads = groups * (1 + w.below(7));
    let kv_channels = 1 + w.below(5);
    let shape = ModelShape {
        model_type: if w.below(3) == 0 { "llama" } else { "qwen2" }.to_owned(),
        hidden_size: 1 + w.below(12),
        ffn_hidden_size: tp * (1 + w.below(5)),
        num_layers: pp * (1 + w.below(2)),
        num_attention_heads: heads,
        num_query_groups: groups,
        kv_channels,
        vocab_size: 1 + w.below(90),
        max_position_embeddings: 32,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tied: w.below(2) == 0,
        qkv_bias: false,
        qk_norm: false,
        dtype: Dtype::Bf16,
    };
    let shape = ModelShape { qkv_bias: shape.model_type == "qwen2", ..shape };
    let parallel = Parallel::new(u32::try_from(tp).unwrap(), u32::try_from(pp).unwrap()).unwrap();
    (shape, Cut { parallel, divisor: 1 + w.below(20), convention: Convention::V1 })
}

fn random_tensors(s: &ModelShape, seed: u64) -> Tensors {
    let mut words = Words(seed ^ 0xabcd);
    common::tensor_shapes(s)
        .into_iter()
        .map(|(name, shape)| {
            let bytes = common::elements(&mut words, s.dtype, shape.iter().product());
            (name, (shape, bytes))
        })
        .collect()
}

fn rows_of(tensors: &Tensors, name: &str) -> Rows {
    let (shape, bytes) = &tensors[name];
    bytes.chunks(bytes.len() / usize::try_from(shape[0]).unwrap()).map(<[u8]>::to_vec).collect()
}

fn chunk(rows: &[Vec<u8>], rank: usize, of: usize) -> Rows {
    let size = rows.len() / of;
    rows[rank * size..(rank + 1) * size].to_vec()
}

fn columns(rows: &[Vec<u8>], rank: usize, of: usize) -> Rows {
    rows.iter().map(|row| row[rank * row.len() / of..(rank + 1) * row.len() / of].to_vec()).collect()
}

/// The whole interleaved projection first, cut afterwards.
fn qkv(tensors: &Tensors, s: &ModelShape, l: u64, field: &str) -> Rows {
    let of = |which: &str| rows_of(tensors, &format!("model.layers.{l}.self_attn.{which}_proj.{field}"));
    let (q, k, v) = (of("q"), of("k"), of("v"));
    let d = usize::try_from(s.kv_channels).unwrap();
    let groups = usize::try_from(s.num_query_groups).unwrap();
    let per_group = q.len() / groups;
    let mut all = Rows::new();
    for g in 0..groups {
        all.extend_from_slice(&q[g * per_group..(g + 1) * per_group]);
        all.extend_from_slice(&k[g * d..(g + 1) * d]);
        all.extend_from_slice(&v[g * d..(g + 1) * d]);
    }
    all
}

fn padded(mut rows: Rows, unit: usize) -> Rows {
    while !rows.len().is_multiple_of(unit) {
        rows.push(rows.last().unwrap().clone());
    }
    rows
}

/// What a shard must hold, by the plain way.
fn plain_shard(tensors: &Tensors, s: &ModelShape, cut: &Cut, tp: usize, pp: usize) -> BTreeMap<String, Vec<u8>> {
    let size = usize::try_from(cut.parallel.tp()).unwrap();
    let stages = usize::try_from(cut.parallel.pp()).unwrap();
    let unit = usize::try_from(cut.divisor).unwrap() * size;
    let layers = usize::try_from(s.num_layers).unwrap() / stages;
    let mut out = BTreeMap::new();
    let mut put = |name: String, rows: Rows| out.insert(name, rows.concat());
    let embedding = padded(rows_of(tensors, "model.embed_tokens.weight"), unit);
    if pp == 0 {
        put("embedding.word_embeddings.weight".into(), chunk(&embedding, tp, size));
    }
    for local in 0..layers {
        let l = pp * layers + local;
        let of = |rest: &str| rows_of(tensors, &format!("model.layers.{l}.{rest}"));
        let mut add = |rest: &str, rows: Rows| put(format!("decoder.layers.{local}.{rest}"), rows);
        add("input_layernorm.weight", of("input_layernorm.weight"));
        add("pre_mlp_layernorm.weight", of("post_attention_layernorm.weight"));
        add("self_attention.linear_proj.weight", columns(&of("self_attn.o_proj.weight"), tp, size));
        add("mlp.linear_fc2.weight", columns(&of("mlp.down_proj.weight"), tp, size));
        let fc1 = [chunk(&of("mlp.gate_proj.weight"), tp, size), chunk(&of("mlp.up_proj.weight"), tp, size)].concat();
        add("mlp.linear_fc1.weight", fc1);
        add("self_attention.linear_qkv.weight", chunk(&qkv(tensors, s, l as u64, "weight"), tp, size));
        if s.qkv_bias {
            add("self_attention.linear_qkv.bias", chunk(&qkv(tensors, s, l as u64, "bias"), tp, size));
        }
    }
    if pp + 1 == stages {
        put("decoder.final_layernorm.weight".into(), rows_of(tensors, "model.norm.weight"));
        if !s.tied {
            put("output_layer.weight".into(), chunk(&padded(rows_of(tensors, "lm_head.weight"), unit), tp, size));
        } else if stages > 1 {
            put("output_layer.weight".into(), chunk(&embedding, tp, size));
        }
    }
    out
}

fn filled<'a, S: std::fmt::Debug>(tensor: &Tensor<S>, resolve: &dyn Fn(&S) -> convert::Result<Matrix<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    emit(tensor, Dtype::Bf16, resolve, &mut |run| {
        bytes.extend_from_slice(run);
        Ok(())
    })
    .unwrap();
    assert_eq!(bytes.len() as u64, tensor.elements() * 2, "{}", tensor.name);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_equal_the_plain_way_and_lead_back(seed in any::<u64>()) {
        let (s, cut) = random_case(seed);
        cut.check(&s).unwrap();
        let tensors = random_tensors(&s, seed);
        let mut shards: BTreeMap<(u32, u32, String), common::Content> = BTreeMap::new();
        let (mut embedding_rows, mut head_rows) = (Vec::new(), Vec::new());
        for pp in 0..cut.parallel.pp() {
            for tp in 0..cut.parallel.tp() {
                let expected = plain_shard(&tensors, &s, &cut, tp as usize, pp as usize);
                let mut found = BTreeMap::new();
                for entry in mcore::shard(&s, &cut, tp, pp) {
                    let Entry::Tensor(tensor) = entry else { continue };
                    let bytes = filled(&tensor, &|name: &String| {
                        let (shape, bytes) = &tensors[name];
                        Ok(Matrix::contiguous(bytes, Dtype::Bf16, shape).unwrap())
                    });
                    match tensor.name.as_str() {
                        "embedding.word_embeddings.weight" => embedding_rows.push(tensor.shape[0]),
                        "output_layer.weight" => head_rows.push(tensor.shape[0]),
                        _ => {}
                    }
                    shards.insert((tp, pp, tensor.name.clone()), (tensor.shape, bytes.clone()));
                    found.insert(tensor.name, bytes);
                }
                prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
                for (name, bytes) in &expected {
                    prop_assert!(&found[name] == bytes, "{} of {},{}", name, tp, pp);
                }
            }
        }
        let back = hf::from_shards(&s, cut.parallel, &embedding_rows, &head_rows);
        prop_assert_eq!(back.len(), tensors.len());
        for tensor in back {
            let bytes = filled(&tensor, &|at: &hf::ShardTensor| {
                let (shape, bytes) = &shards[&(at.tp, at.pp, at.name.clone())];
                Ok(Matrix::contiguous(bytes, Dtype::Bf16, shape).unwrap())
            });
            prop_assert_eq!(&tensors[&tensor.name].0, &tensor.shape);
            prop_assert!(tensors[&tensor.name].1 == bytes, "{}", tensor.name);
        }
    }
}

/// The same through files, with every element type.
#[test]
fn files_lead_back_to_the_same_tensors() {
    let home = memory_dir();
    for seed in 0..48u64 {
        let (mut s, cut) = random_case(seed);
        s.dtype = [Dtype::Bf16, Dtype::Fp16, Dtype::Fp32][usize::try_from(seed % 3).unwrap()];
        let dir = tempfile::tempdir_in(&home).unwrap();
        let source = dir.path().join("hf");
        let tensors = common::write_model(&source, &s, seed, 1 + usize::try_from(seed % 2).unwrap());
        let model = HfModel::open(&source).unwrap();
        let request = to_mcore::Request { model: &model, cut, dtype: s.dtype, tokenizer_model: Some("t".into()) };
        to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
        let request = to_hf::Request {
            load_dir: dir.path().join("mcore"),
            iteration: Some(1),
            hf_dir: source.clone(),
            out: dir.path().join("back"),
            dtype: None,
        };
        to_hf::convert(&request, &Silent).unwrap();
        let file = fs::read(dir.path().join("back/model.safetensors")).unwrap();
        let header = Header::parse(dir.path(), &file).unwrap();
        assert_eq!(header.tensors.len(), tensors.len());
        for t in header.tensors {
            assert_eq!(t.dtype, common::dtype_name(s.dtype));
            assert!(tensors[&t.name] == (t.shape, file[t.range].to_vec()), "seed {seed}: {}", t.name);
        }
        assert_eq!(
            fs::read(source.join("tokenizer.json")).unwrap(),
            fs::read(dir.path().join("back/tokenizer.json")).unwrap()
        );
        assert_eq!(
            fs::read(source.join("config.json")).unwrap(),
            fs::read(dir.path().join("back/config.json")).unwrap()
        );
    }
}

/// A cast to shards and a cast back equal element-wise casts by another implementation.
#[test]
fn casts_in_both_directions_equal_element_wise_casts() {
    let dir = tempfile::tempdir_in(memory_dir()).unwrap();
    let s = ModelShape { dtype: Dtype::Fp32, ..common::small_shape() };
    let source = dir.path().join("hf");
    let tensors = common::write_model(&source, &s, 5, 1);
    let model = HfModel::open(&source).unwrap();
    let cut = Cut { parallel: Parallel::new(2, 2).unwrap(), divisor: 1, convention: Convention::V1 };
    let request = to_mcore::Request { model: &model, cut, dtype: Dtype::Bf16, tokenizer_model: None };
    to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
    let request = to_hf::Request {
        load_dir: dir.path().join("mcore"),
        iteration: None,
        hf_dir: source,
        out: dir.path().join("back"),
        dtype: Some(Dtype::Fp16),
    };
    to_hf::convert(&request, &Silent).unwrap();
    let file = fs::read(dir.path().join("back/model.safetensors")).unwrap();
    for t in Header::parse(dir.path(), &file).unwrap().tensors {
        let expected: Vec<u8> = tensors[&t.name]
            .1
            .chunks(4)
            .map(|b| half::bf16::from_f32(f32::from_le_bytes(b.try_into().unwrap())))
            .flat_map(|b| half::f16::from_f32_const(b.to_f32()).to_le_bytes())
            .collect();
        assert!(expected == file[t.range.clone()], "{}", t.name);
    }
    let config = fs::read_to_string(dir.path().join("back/config.json")).unwrap();
    assert!(config.contains(r#""torch_dtype": "float16""#), "the copy names the new type: {config}");
}

/// Files in memory where the system has that: the tests sync every file.
fn memory_dir() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
