//! Reading and writing safetensors files.
//!
//! Format: u64 little-endian header length, a JSON object, then raw bytes;
//! <https://github.com/huggingface/safetensors#format>.

pub mod header;
pub mod model;
pub mod write;

pub use header::{Header, TensorInfo};
pub use model::HfModel;
