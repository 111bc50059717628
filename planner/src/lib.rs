//! The choices: what should happen, given what is known.
//!
//! [`step`] is pure: no clock, no randomness, no input or output, no hash-map
//! iteration. The driver saves what it returns before it answers anybody or
//! sends an effect.

pub mod input;
pub mod world;

pub use input::{Effect, Input, Reply, Report, Step, Why, Write};
pub use world::{NodeView, Policy, World};
