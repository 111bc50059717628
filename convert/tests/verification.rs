//! What a verification finds: each part of a checkpoint that was not written as it should be.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::parts::patch;
use common::{small_shape, write_model};
use convert::checkpoint::TRACKER;
use convert::compare::{Side, compare, vouch};
use convert::plan::mcore::{Convention, Cut};
use convert::progress::Silent;
use convert::safetensors::HfModel;
use convert::source::{Checkpoint, Expected};
use convert::to_mcore::Source;
use convert::{to_hf, to_mcore};
use model::{Dtype, ModelShape, Parallel};

/// A model and two checkpoints of it, one of TP 2 x PP 2.
struct Lab {
    dir: tempfile::TempDir,
    shape: ModelShape,
}

impl Lab {
    fn new(shape: ModelShape) -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap(), shape };
        write_model(&lab.path("hf"), &lab.shape, 5, 1);
        lab.convert("whole", 1);
        lab.convert("cut", 2);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn convert(&self, name: &str, size: u32) {
        let model = HfModel::open(&self.path("hf")).unwrap();
        let cut = Cut::even(Parallel::new(size, size).unwrap(), Convention::V1);
        let dtype = self.shape.dtype;
        let request = to_mcore::Request { source: Source::Hf(&model), cut, dtype, tokenizer_model: None };
        to_mcore::convert(&request, &self.path(name), &Silent).unwrap();
    }

    fn open(&self, name: &str) -> Checkpoint {
        let hf = self.path("hf");
        Checkpoint::open(&self.path(name), None, &Expected::Of(&self.shape, &hf), &Silent).unwrap()
    }

    fn shard(&self, rank: &str) -> PathBuf {
        self.path("cut").join("iter_0000001").join(rank).join("model_optim_rng.pt")
    }

    /// What is said of `cut` as the result of either way to it.
    fn verdicts(&self) -> [Result<(), String>; 2] {
        let (hf, whole, cut) = (HfModel::open(&self.path("hf")).unwrap(), self.open("whole"), self.open("cut"));
        [Side::Hf(&hf), Side::Mcore(&whole)].map(|source| {
            let equal = compare(source, Side::Mcore(&cut), Some(self.shape.dtype), None, &Silent);
            equal.map(drop).map_err(|error| error.chain())
        })
    }
}

/// The last element of a tensor becomes another.
fn spoil(shard: &Path, tensor: &str) {
    patch(shard, |parts| *parts.tensor(tensor).bytes.last_mut().unwrap() ^= 1);
}

const EMBEDDING: &str = "embedding.word_embeddings.weight";
const HEAD: &str = "output_layer.weight";

#[test]
fn every_part_of_a_shard_that_is_not_the_source_s_is_named() {
    let norms = ModelShape { model_type: "qwen3".into(), qkv_bias: false, qk_norm: true, ..small_shape() };
    let tied = ModelShape { tied: true, ..small_shape() };
    let other = "is another on tensor-parallel rank 1 than on 0";
    let padding = "has padding that does not repeat the vocabulary's last row";
    let table = [
        (small_shape(), "mp_rank_01_000", "decoder.layers.1.input_layernorm.weight", other),
        (small_shape(), "mp_rank_01_001", "decoder.layers.0.pre_mlp_layernorm.weight", other),
        (small_shape(), "mp_rank_01_001", "decoder.final_layernorm.weight", other),
        (norms, "mp_rank_01_000", "decoder.layers.0.self_attention.k_layernorm.weight", other),
        (small_shape(), "mp_rank_01_000", EMBEDDING, padding),
        (small_shape(), "mp_rank_01_001", HEAD, padding),
        (tied, "mp_rank_00_001", HEAD, "does not equal the embedding that it is tied to"),
        (small_shape(), "mp_rank_00_000", "decoder.layers.1.input_layernorm.weight", other),
        (small_shape(), "mp_rank_01_001", "decoder.layers.1.mlp.linear_fc1.weight", "does not equal the source's"),
        (small_shape(), "mp_rank_00_000", EMBEDDING, "does not equal the source's"),
    ];
    for (shape, rank, tensor, expected) in table {
        let lab = Lab::new(shape);
        assert_eq!(lab.verdicts(), [Ok(()), Ok(())], "as it was written");
        spoil(&lab.shard(rank), tensor);
        for verdict in lab.verdicts() {
            let said = verdict.unwrap_err();
            assert!(said.contains(expected), "{rank} {tensor}: {said} lacks {expected}");
        }
    }
}

#[test]
fn a_tensor_of_another_type_than_it_was_to_have_is_named() {
    let lab = Lab::new(ModelShape { dtype: Dtype::Fp32, ..small_shape() });
    let out = lab.path("out");
    let request = to_hf::Request {
        dtype: Some(Dtype::Bf16),
        ..to_hf::Request::new(lab.path("cut"), lab.path("hf"), out.clone())
    };
    to_hf::convert(&request, &Silent).unwrap();
    let (source, made) = (lab.open("cut"), HfModel::open(&out).unwrap());
    let verify = |dtype| compare(Side::Mcore(&source), Side::Hf(&made), dtype, None, &Silent);
    verify(Some(Dtype::Bf16)).unwrap();
    for dtype in [None, Some(Dtype::Fp32)] {
        let said = verify(dtype).unwrap_err().chain();
        assert!(said.contains("is bf16 instead of fp32"), "{dtype:?}: {said}");
    }
}

#[test]
fn a_checkpoint_that_fails_its_verification_loses_its_tracker() {
    let lab = Lab::new(small_shape());
    let (save, tracker) = (lab.path("cut"), lab.path("cut").join(TRACKER));
    let verify = || lab.verdicts()[0].clone().map_err(|what| convert::Error::Differs { what });
    vouch(&save, verify).unwrap();
    assert!(tracker.exists());
    spoil(&lab.shard("mp_rank_01_001"), "decoder.final_layernorm.weight");
    let error = vouch(&save, verify).unwrap_err();
    let said = error.chain();
    for words in [save.to_str().unwrap(), "must not be used", "decoder.final_layernorm.weight"] {
        assert!(said.contains(words), "{said} lacks {words}");
    }
    assert!(error.hint().is_some_and(|hint| hint.contains("convert again")));
    assert!(!tracker.exists() && lab.shard("mp_rank_01_001").exists());
    lab.convert("cut", 2);
    assert_eq!(lab.verdicts(), [Ok(()), Ok(())]);
    assert_eq!(fs::read_to_string(tracker).unwrap(), "1");
}
