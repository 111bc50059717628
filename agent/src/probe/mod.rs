//! What a host's NPUs are and how they fare, read from what `npu-smi` prints.
//!
//! The tool has no output for programs: its tables differ from version to
//! version, so they are read by names and separators, never by places. What a
//! word means is taken strictly: health is one of five words, and anything
//! else, or nothing, is UNKNOWN. What is not understood is listed, not guessed.

mod assemble;
mod block;
mod cards;
pub mod cli;
mod command;
mod detail;
mod entry;
mod failure;
mod header;
mod health;
mod info;
mod listing;
mod network;
mod outputs;
mod record;
mod report;
mod row;
mod shape;
pub mod show;
mod source;
mod text;
mod tool;
mod topology;
mod value;
pub mod versions;
mod watch;

pub use self::assemble::report;
pub use self::command::Command;
pub use self::health::Health;
pub use self::outputs::Outputs;
pub use self::report::{Npu, Process, Report};
pub use self::source::Source;
pub use self::text::{Note, Notes, Text};
pub use self::tool::Tool;
pub use self::topology::Topology;
pub use self::value::Quantity;
pub use self::versions::Versions;
pub use self::watch::{Probe, differs};
