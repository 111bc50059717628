//! Whole stories: real binaries driven from outside.
//!
//! This library is what the stories share: a laboratory with a controller and
//! two agents of its own, or with several controllers, eyes on `/proc`, and
//! small inputs made on the spot.
//! It links none of the other crates, so a story can lean on nothing but what
//! a user sees.

#![allow(clippy::missing_panics_doc, reason = "a harness says by panicking that a story went wrong")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "as above")]

pub mod input;
pub mod job;
pub mod lab;
pub mod pipeline;
pub mod poll;
pub mod process;
pub mod program;
pub mod relay;
pub mod several;
