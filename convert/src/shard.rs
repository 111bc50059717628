//! One `model_optim_rng.pt`: what it holds, read and written.

pub mod args;
pub mod read;
pub mod tensor;
pub mod write;

pub use args::Args;
pub use read::{ModelEntry, Shard};

/// File name of a shard below its `mp_rank_…` directory.
pub const FILE: &str = "model_optim_rng.pt";

/// Top directory inside the archive: torch uses the file's stem.
const TOP: &str = "model_optim_rng";
