//! Random models against a plain implementation that shares nothing with the planner.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Tensors, Words};
use convert::compare::{Side, compare};
use convert::matrix::{Cast, Matrix, emit};
use convert::plan::compose::compose;
use convert::plan::mcore::{self, Convention, Cut, Entry};
use convert::plan::{Tensor, hf};
use convert::progress::Silent;
use convert::safetensors::{Header, HfModel};
use convert::source::{Checkpoint, Expected};
use convert::to_mcore::Source;
use convert::{to_hf, to_mcore};
use model::{Deal, Dtype, ModelShape, Parallel};
use proptest::prelude::*;

/// Rows of little-endian elements, two bytes each.
type Rows = Vec<Vec<u8>>;

/// A random model and a layout that fits it.
fn random_case(seed: u64) -> (ModelShape, Cut) {
    let mut w = Words(seed);
    let tp = 1 << w.below(4);
    let pp = 1 + w.below(4);
    let groups = tp * (1 + w.below(2));
    let heads = groups * (1 + w.below(16));
    let model_type = ["qwen2", "qwen3", "llama"][usize::try_from(w.below(3)).unwrap()];
    let (num_layers, deal) = random_deal(&mut w, pp);
    let shape = ModelShape {
        model_type: model_type.to_owned(),
        hidden_size: 1 + w.below(12),
        ffn_hidden_size: tp * (1 + w.below(5)),
        num_layers,
        num_attention_heads: heads,
        num_query_groups: groups,
        kv_channels: 1 + w.below(3),
        vocab_size: 1 + w.below(90),
        max_position_embeddings: 32,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tied: w.below(2) == 0,
        qkv_bias: model_type == "qwen2",
        qk_norm: model_type == "qwen3",
        dtype: Dtype::Bf16,
    };
    let parallel = Parallel::new(u32::try_from(tp).unwrap(), u32::try_from(pp).unwrap()).unwrap();
    let convention =
        if shape.vocab_size.is_multiple_of(tp) && w.below(3) == 0 { Convention::V2 } else { Convention::V1 };
    let divisor = if convention == Convention::V1 { 1 + w.below(20) } else { 1 };
    (shape, Cut { parallel, deal, divisor, convention })
}

/// Three to seven layers, or more where stages want them, and a way to deal them.
fn random_deal(w: &mut Words, pp: u64) -> (u64, Deal) {
    match w.below(4) {
        0 => {
            let list: Vec<u64> = (0..pp).map(|_| 1 + w.below(3)).collect();
            (list.iter().sum(), Deal { list: Some(list), ..Deal::default() })
        }
        1 if pp > 1 => {
            let (per_chunk, rounds) = (1 + w.below(2), 2 + w.below(2));
            let total = pp * per_chunk * rounds;
            let noop = random_noop(w, total);
            (total - noop.len() as u64, Deal { per_chunk: Some(per_chunk), noop, ..Deal::default() })
        }
        2 => {
            let total = pp * (3 + w.below(5)).div_ceil(pp).max(2);
            let noop = random_noop(w, total);
            (total - noop.len() as u64, Deal { noop, ..Deal::default() })
        }
        _ => (pp * (3 + w.below(5)).div_ceil(pp), Deal::default()),
    }
}

fn random_noop(w: &mut Words, total: u64) -> Vec<u64> {
    let mut noop: Vec<u64> = (0..w.below(3)).map(|_| w.below(total)).collect();
    noop.sort_unstable();
    noop.dedup();
    noop.truncate(usize::try_from(total - 1).unwrap());
    if w.below(2) == 0 {
        noop.reverse();
    }
    noop
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

/// Which layer is at which place of which virtual stage: one slot after another, by division.
fn plain_places(s: &ModelShape, cut: &Cut, pp: u64) -> Vec<Vec<(u64, u64)>> {
    let stages = u64::from(cut.parallel.pp());
    if let Some(list) = &cut.deal.list {
        let before: u64 = list.iter().take(usize::try_from(pp).unwrap()).sum();
        return vec![(0..list[usize::try_from(pp).unwrap()]).map(|place| (place, before + place)).collect()];
    }
    let total = s.num_layers + cut.deal.noop.len() as u64;
    let width = cut.deal.per_chunk.unwrap_or(total / stages);
    let mut chunks = vec![Vec::new(); usize::try_from(total / stages / width).unwrap()];
    let mut layer = 0;
    for slot in 0..total {
        if cut.deal.noop.contains(&slot) {
            continue;
        }
        if slot / width % stages == pp {
            chunks[usize::try_from(slot / (width * stages)).unwrap()].push((slot % width, layer));
        }
        layer += 1;
    }
    chunks
}

/// What a shard must hold by virtual stage, by the plain way.
fn plain_shard(
    tensors: &Tensors,
    s: &ModelShape,
    cut: &Cut,
    tp: usize,
    pp: usize,
) -> BTreeMap<(usize, String), Vec<u8>> {
    let size = usize::try_from(cut.parallel.tp()).unwrap();
    let stages = usize::try_from(cut.parallel.pp()).unwrap();
    let unit = if cut.convention == Convention::V2 { 1 } else { usize::try_from(cut.divisor).unwrap() * size };
    let places = plain_places(s, cut, pp as u64);
    let mut out = BTreeMap::new();
    let mut put = |chunk: usize, name: String, rows: Rows| out.insert((chunk, name), rows.concat());
    let embedding = padded(rows_of(tensors, "model.embed_tokens.weight"), unit);
    if pp == 0 {
        put(0, "embedding.word_embeddings.weight".into(), chunk(&embedding, tp, size));
    }
    for (virtual_stage, held) in places.iter().enumerate() {
        for (place, l) in held {
            let of = |rest: &str| rows_of(tensors, &format!("model.layers.{l}.{rest}"));
            let mut add = |rest: &str, rows: Rows| put(virtual_stage, format!("decoder.layers.{place}.{rest}"), rows);
            add("input_layernorm.weight", of("input_layernorm.weight"));
            add("pre_mlp_layernorm.weight", of("post_attention_layernorm.weight"));
            add("self_attention.linear_proj.weight", columns(&of("self_attn.o_proj.weight"), tp, size));
            add("mlp.linear_fc2.weight", columns(&of("mlp.down_proj.weight"), tp, size));
            let fc1 =
                [chunk(&of("mlp.gate_proj.weight"), tp, size), chunk(&of("mlp.up_proj.weight"), tp, size)].concat();
            add("mlp.linear_fc1.weight", fc1);
            add("self_attention.linear_qkv.weight", chunk(&qkv(tensors, s, *l, "weight"), tp, size));
            if s.qkv_bias {
                add("self_attention.linear_qkv.bias", chunk(&qkv(tensors, s, *l, "bias"), tp, size));
            }
            if s.qk_norm {
                add("self_attention.q_layernorm.weight", of("self_attn.q_norm.weight"));
                add("self_attention.k_layernorm.weight", of("self_attn.k_norm.weight"));
            }
        }
    }
    if pp + 1 == stages {
        let last = places.len() - 1;
        put(last, "decoder.final_layernorm.weight".into(), rows_of(tensors, "model.norm.weight"));
        if !s.tied {
            put(last, "output_layer.weight".into(), chunk(&padded(rows_of(tensors, "lm_head.weight"), unit), tp, size));
        } else if stages > 1 {
            put(last, "output_layer.weight".into(), chunk(&embedding, tp, size));
        }
    }
    out
}

fn filled<'a, S: std::fmt::Debug>(tensor: &Tensor<S>, resolve: &dyn Fn(&S) -> convert::Result<Matrix<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    emit(tensor, Cast::to(Dtype::Bf16), resolve, &mut |run| {
        bytes.extend_from_slice(run);
        Ok(())
    })
    .unwrap();
    assert_eq!(bytes.len() as u64, tensor.elements() * 2, "{}", tensor.name);
    bytes
}

/// The shards of a cut, planned from the model's tensors.
type Shards = BTreeMap<hf::ShardTensor, common::Content>;

fn planned(tensors: &Tensors, s: &ModelShape, cut: &Cut) -> (Shards, hf::Held) {
    let stages = cut.stages(s).unwrap();
    let mut shards = Shards::new();
    let mut held = hf::Held { parallel: cut.parallel, stages, embedding_rows: Vec::new(), head_rows: Vec::new() };
    for pp in 0..cut.parallel.pp() {
        for tp in 0..cut.parallel.tp() {
            for (chunk, one) in (0..).zip(mcore::shard(s, cut, &held.stages.clone(), tp, pp)) {
                for entry in one.entries {
                    let Entry::Tensor(tensor) = entry else { continue };
                    let bytes = filled(&tensor, &|name: &String| {
                        let (shape, bytes) = &tensors[name];
                        Ok(Matrix::contiguous(bytes, Dtype::Bf16, shape).unwrap())
                    });
                    match tensor.name.as_str() {
                        mcore::EMBEDDING => held.embedding_rows.push(tensor.shape[0]),
                        mcore::HEAD => held.head_rows.push(tensor.shape[0]),
                        _ => {}
                    }
                    shards.insert(hf::ShardTensor { tp, pp, chunk, name: tensor.name }, (tensor.shape, bytes));
                }
            }
        }
    }
    (shards, held)
}

fn matrix<'a>(shards: &'a Shards, at: &hf::ShardTensor) -> Matrix<'a> {
    let (shape, bytes) = &shards[at];
    Matrix::contiguous(bytes, Dtype::Bf16, shape).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_equal_the_plain_way_and_lead_back(seed in any::<u64>()) {
        let (s, cut) = random_case(seed);
        let tensors = random_tensors(&s, seed);
        let (shards, held) = planned(&tensors, &s, &cut);
        let mut count = 0;
        for pp in 0..cut.parallel.pp() {
            for tp in 0..cut.parallel.tp() {
                for ((chunk, name), bytes) in plain_shard(&tensors, &s, &cut, tp as usize, pp as usize) {
                    let at = hf::ShardTensor { tp, pp, chunk: u32::try_from(chunk).unwrap(), name };
                    let found = shards.get(&at);
                    prop_assert!(found.is_some_and(|(_, found)| *found == bytes), "{at:?} of {cut:?}");
                    count += 1;
                }
            }
        }
        prop_assert_eq!(count, shards.len());
        let back = hf::from_shards(&s, &held).unwrap();
        prop_assert_eq!(back.len(), tensors.len());
        for tensor in back {
            let bytes = filled(&tensor, &|at| Ok(matrix(&shards, at)));
            prop_assert_eq!(&tensors[&tensor.name].0, &tensor.shape);
            prop_assert!(tensors[&tensor.name].1 == bytes, "{}", tensor.name);
        }
    }

    #[test]
    fn shards_of_one_layout_make_those_of_any_other(seed in any::<u64>()) {
        let (s, cut) = random_case(seed);
        let tensors = random_tensors(&s, seed);
        let (shards, held) = planned(&tensors, &s, &cut);
        let sources: BTreeMap<String, Tensor<hf::ShardTensor>> =
            hf::from_shards(&s, &held).unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
        let mut w = Words(seed ^ 0x77);
        let tp = [1, 2, 4, 8].into_iter().filter(|tp| s.num_query_groups % tp == 0 && s.ffn_hidden_size % tp == 0);
        let tp = tp.max_by_key(|tp| (w.below(4), *tp)).unwrap();
        let parallel = Parallel::new(u32::try_from(tp).unwrap(), 2).unwrap();
        let deal = Deal { list: Some(vec![1, s.num_layers - 1]), ..Deal::default() };
        let other = Cut { parallel, deal, divisor: 1 + w.below(9), convention: Convention::V1 };
        prop_assume!(s.num_layers > 1);
        let stages = other.stages(&s).unwrap();
        for (pp, tp) in (0..2).flat_map(|pp| (0..parallel.tp()).map(move |tp| (pp, tp))) {
            let plain = plain_shard(&tensors, &s, &other, tp as usize, pp as usize);
            let [chunk] = &mcore::shard(&s, &other, &stages, tp, pp)[..] else { panic!("one chunk") };
            for entry in &chunk.entries {
                let Entry::Tensor(tensor) = entry else { continue };
                let made = compose(tensor, &|name| sources.get(name)).unwrap();
                let bytes = filled(&made, &|at| Ok(matrix(&shards, at)));
                prop_assert!(plain[&(0, tensor.name.clone())] == bytes, "{} of {cut:?}", tensor.name);
            }
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
        let tokenizer_model = Some("t".into());
        let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype: s.dtype, tokenizer_model };
        to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
        let (load_dir, out) = (dir.path().join("mcore"), dir.path().join("back"));
        let request = to_hf::Request { iteration: Some(1), ..to_hf::Request::new(load_dir, source.clone(), out) };
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
    let cut = Cut::even(Parallel::new(2, 2).unwrap(), Convention::V1);
    let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype: Dtype::Bf16, tokenizer_model: None };
    to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
    let (load_dir, out) = (dir.path().join("mcore"), dir.path().join("back"));
    let request = to_hf::Request { dtype: Some(Dtype::Fp16), ..to_hf::Request::new(load_dir, source, out) };
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

/// As the reference's own scripts go back: every weight through half precision, then into config.json's type.
#[test]
fn emulation_loses_the_bits_that_half_precision_loses() {
    let dir = tempfile::tempdir_in(memory_dir()).unwrap();
    let s = common::small_shape();
    let source = dir.path().join("hf");
    let mut tensors = common::write_model(&source, &s, 5, 1);
    // A thousandth of the usual size, so that some lie below half precision's normal numbers.
    let smaller = |b: &mut [u8]| {
        let bits = u16::from_le_bytes([b[0], b[1]]) - (10 << 7);
        b.copy_from_slice(&bits.to_le_bytes());
    };
    tensors.values_mut().for_each(|(_, bytes)| bytes.chunks_mut(2).for_each(smaller));
    let weights = source.join("model.safetensors");
    let mut file = fs::read(&weights).unwrap();
    let start = Header::parse(&weights, &file).unwrap().length;
    file[start..].chunks_mut(2).for_each(smaller);
    fs::write(&weights, file).unwrap();
    let model = HfModel::open(&source).unwrap();
    let cut = Cut::even(Parallel::new(2, 1).unwrap(), Convention::V1);
    let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype: Dtype::Bf16, tokenizer_model: None };
    to_mcore::convert(&request, &dir.path().join("mcore"), &Silent).unwrap();
    let (load_dir, out) = (dir.path().join("mcore"), dir.path().join("back"));
    let request = to_hf::Request { emulate_fp16: true, ..to_hf::Request::new(load_dir, source, out) };
    to_hf::convert(&request, &Silent).unwrap();
    let file = fs::read(dir.path().join("back/model.safetensors")).unwrap();
    let mut lost = 0;
    for t in Header::parse(dir.path(), &file).unwrap().tensors {
        let expected: Vec<u8> = tensors[&t.name]
            .1
            .chunks(2)
            .map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .flat_map(|f| half::bf16::from_f32(half::f16::from_f32_const(f).to_f32()).to_le_bytes())
            .collect();
        assert!(expected == file[t.range.clone()], "{}", t.name);
        lost += usize::from(expected != tensors[&t.name].1);
    }
    assert!(lost > 0);
    let made = HfModel::open(&request.out).unwrap();
    let expected = Expected::Of(made.shape(), &request.out);
    let checkpoint = Checkpoint::open(&request.load_dir, None, &expected, &Silent).unwrap();
    let same = |via| compare(Side::Mcore(&checkpoint), Side::Hf(&made), Some(Dtype::Bf16), via, &Silent);
    assert!(same(Some(Dtype::Fp16)).is_ok());
    assert!(same(None).unwrap_err().to_string().contains("does not equal the source's"));
}

/// Files in memory where the system has that: the tests sync every file.
fn memory_dir() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
