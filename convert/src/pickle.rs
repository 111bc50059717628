//! The part of Python's pickle format that checkpoints use.
//!
//! Reading never executes anything: a class or function is only a name.
//! Format: CPython's `pickletools`.

pub mod read;
pub mod value;
pub mod write;

pub use value::{Id, Pickle, Value};
