//! Engine: Hugging Face safetensors to Megatron-core shards and back.
//!
//! Synchronous and without a terminal: the binary `qctl-convert` is its one
//! user with a command line. Inputs are memory-mapped, outputs streamed, so
//! that anonymous memory does not grow with the model.

pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod describe;
pub mod digest;
pub mod dtype;
pub mod error;
pub mod inspect;
pub mod mapped;
pub mod matrix;
pub mod parallel;
pub mod pickle;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod safetensors;
pub mod shard;
pub mod source;
pub mod stage;
pub mod to_hf;
pub mod to_mcore;
pub mod verify;
pub mod zip;

pub use error::{Error, Result};
