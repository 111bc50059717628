//! One seat of an attempt, from the controller's first word to its last.
//!
//! All of a seat's state is in its directory; this task is what moves it on.

mod changes;
pub mod dir;
mod ending;
pub(crate) mod failure;
pub mod judge;
mod orphans;
mod prepare;
mod readers;
mod run;
pub(crate) mod shimctl;
mod sights;
mod watch;

pub use self::prepare::writable;
pub use self::run::{Order, Seat};
