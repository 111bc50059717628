//! The crate from outside: files in, messages, command lines and plans out.
#![allow(clippy::unwrap_used)]

mod arguments;
mod corrections;
mod docs;
mod examples;
mod fields;
mod hostile;
mod overrides;
mod plan;
mod ranges;
mod refusals;
mod schema;
mod support;
