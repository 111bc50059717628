//! Small inputs of the stories' own.

mod model;
mod text;

pub use model::{Shape, Tensors, model, safetensors, tensors, truncate};
pub use text::{rows, tokenizer, tokens};
