//! The controller from outside: its driver, and its services over mutual TLS.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may end anywhere, with all it did not expect"
)]

mod access;
mod agents;
mod attacks;
mod checkpoints;
mod cluster;
mod driver;
mod jobs;
mod logs;
mod operate;
mod reuse;
mod support;
