//! Engine: text in parquet, JSON, CSV, Arrow or plain lines to Megatron's `.bin/.idx`.
//!
//! A plain synchronous library. One call of [`run`] turns a [`Source`] (or a
//! slice of one) into a pair of files per text key; [`merge`] joins the pairs
//! of consecutive slices. The bytes are those of MindSpeed-LLM's
//! preprocessing, whatever the number of workers and wherever the slices are
//! cut.
//!
//! What it does not know: jobs, nodes, networks, asynchronous tasks.

mod describe;
mod encode;
mod error;
mod fold;
mod hint;
mod index;
mod input;
mod merge;
mod output;
mod pack;
mod pipeline;
mod recipe;
mod run;

pub use describe::{
    ColumnInfo, Digest, InputInfo, PairInfo, RowGroup, TokenizerInfo, describe_input, describe_pair, describe_tokenizer,
};
pub use encode::{Backend, Encoder, Fault, Session, Tokenizer};
pub use error::Error;
pub use index::{Difference, Index, Lengths, Pair, diff};
pub use input::{Format, Slice, Source};
pub use merge::{Merge, PackMerge, merge, merge_groups};
pub use output::{OutputFile, digest_file};
pub use recipe::Handler;
pub use run::{Event, Options, Progress, Summary, run};
