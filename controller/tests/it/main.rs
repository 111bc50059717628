//! The controller from outside: its driver, and its services over mutual TLS.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end anywhere")]

mod agents;
mod cluster;
mod driver;
mod jobs;
mod logs;
mod reuse;
mod support;
