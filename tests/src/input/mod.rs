//! Small inputs of the stories' own.

mod model;
mod text;

pub use model::{Shape, model, safetensors, truncate};
pub use text::{rows, tokenizer};
