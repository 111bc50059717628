//! Files beyond 4 GiB, both ways, on holes: the weights are zeros but for their ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use convert::matrix::{Cast, emit};
use convert::plan::mcore::{Convention, Cut, shard};
use convert::plan::{Block, Tensor};
use convert::safetensors::write::{Typed, split};
use convert::safetensors::{Header, HfModel};
use convert::shard::Shard;
use convert::shard::args::{Progress, Written};
use convert::shard::write::Draft;
use convert::zip::write::Sink;
use model::{Dtype, ModelShape, Parallel};

/// Leaves a hole where only zeros would be written.
struct Sparse(File);

const BLOCK: usize = 1 << 20;

impl Sink for Sparse {
    fn put(&mut self, bytes: &[u8]) -> convert::Result<()> {
        let zeros = [0_u8; 4096];
        for block in bytes.chunks(BLOCK) {
            let done = if block.len() == BLOCK && block.chunks(zeros.len()).all(|part| part == zeros) {
                self.0.seek(SeekFrom::Current(BLOCK as i64)).map(|_| ())
            } else {
                self.0.write_all(block)
            };
            done.map_err(|e| convert::Error::io("write", "the sparse file", e))?;
        }
        Ok(())
    }
}

/// One embedding of 4 GiB and some rows, then a small layer.
fn shape() -> ModelShape {
    ModelShape {
        hidden_size: 2048,
        num_layers: 1,
        num_attention_heads: 2,
        num_query_groups: 1,
        vocab_size: (1 << 20) + 7,
        tied: true,
        qkv_bias: true,
        ..common::small_shape()
    }
}

/// Its directory: a file of holes with a mark at both ends of the embedding.
fn sparse_model(dir: &Path, s: &ModelShape) -> (u64, u64) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("config.json"), common::config_json(s)).unwrap();
    let mut at = 0;
    let mut entries = Vec::new();
    for (name, shape) in common::tensor_shapes(s) {
        let end = at + shape.iter().product::<u64>() * 2;
        entries.push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let file = File::create(dir.join("model.safetensors")).unwrap();
    let start = 8 + header.len() as u64;
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    file.set_len(start + at).unwrap();
    let embedding = s.vocab_size * s.hidden_size * 2;
    for place in [0, embedding - MARK.len() as u64] {
        file.write_all_at(MARK, start + place).unwrap();
    }
    (start, embedding)
}

const MARK: &[u8] = b"a mark!!";

#[test]
fn shards_and_models_beyond_4_gib_are_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let s = shape();
    let hf = dir.path().join("hf");
    let (_, embedding) = sparse_model(&hf, &s);
    assert!(embedding > 1 << 32);
    let model = HfModel::open(&hf).unwrap();

    // To a shard: an entry that needs the 64-bit records, and entries beyond 4 GiB behind it.
    let cut = Cut::even(Parallel::new(1, 1).unwrap(), Convention::V1);
    let args = Written {
        shape: &s,
        parallel: cut.parallel,
        deal: &cut.deal,
        padded_vocab: s.vocab_size,
        divisor: 1,
        dtype: Dtype::Bf16,
        tokenizer_model: None,
        progress: Progress::BEGINNING,
    };
    let draft = Draft::new(shard(&s, &cut, &cut.stages(&s).unwrap(), 0, 0), &args, cut.convention);
    let path = dir.path().join("model_optim_rng.pt");
    let sink = draft.write(Sparse(File::create(&path).unwrap()), &|name| model.matrix(name)).unwrap();
    sink.0.sync_all().unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), draft.size());
    assert!(meta.blocks() * 512 < 64 << 20, "{} bytes on disk", meta.blocks() * 512);
    let held = Shard::open(&path).unwrap();
    let name = "embedding.word_embeddings.weight";
    let tensor = held.tensor(0, name).unwrap();
    let matrix = held.matrix(name, tensor).unwrap();
    let row = |row| {
        let blocks = vec![Block::rows((), row, 1, s.hidden_size)];
        let mut bytes = Vec::new();
        let one = Tensor { name: name.to_owned(), shape: vec![1, s.hidden_size], blocks };
        emit(&one, Cast::to(Dtype::Bf16), &|()| Ok(matrix), &mut |run| bytes.put(run)).unwrap();
        bytes
    };
    assert!(row(0).starts_with(MARK) && row(s.vocab_size - 1).ends_with(MARK));
    let norm = held.tensor(0, "decoder.final_layernorm.weight").unwrap();
    assert!(held.matrix("norm", norm).is_ok(), "behind the large entry");

    // And a file of safetensors of that size, from the model's own tensors, which lie in memory by now.
    let typed = convert::plan::hf::tensors(&s).into_iter().map(|(name, shape)| {
        let (rows, width) = (shape[0], shape.get(1).copied().unwrap_or(1));
        let blocks = vec![Block::rows(name.clone(), 0, rows, width)];
        Typed { tensor: Tensor { name, shape, blocks }, dtype: Dtype::Bf16, via: None }
    });
    let [file] = &split(typed.collect(), u64::MAX)[..] else { panic!("one file") };
    let back = dir.path().join("back.safetensors");
    let sink = file.write(Sparse(File::create(&back).unwrap()), &|name| model.matrix(name)).unwrap();
    sink.0.set_len(file.size()).unwrap();
    let map = convert::mapped::Mapped::open(&back).unwrap();
    let header = Header::parse(&back, map.bytes()).unwrap();
    let written = header.tensors.iter().find(|t| t.name == "model.embed_tokens.weight").unwrap();
    let bytes = &map.bytes()[written.range.clone()];
    assert_eq!(bytes.len() as u64, embedding);
    assert!(bytes.starts_with(MARK) && bytes.ends_with(MARK));
}
