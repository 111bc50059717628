//! What a user sees, from the command line down to the last rank.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper says by panicking that a story went wrong")]

mod agent_killed;
mod asking;
mod bad_input;
mod cancel;
mod checkpoints;
mod client;
mod commands;
mod control_plane_killed;
mod engines;
#[path = "../../../store/tests/common/etcd.rs"]
mod etcd;
mod launchers;
mod members;
mod mixed_kills;
mod names;
mod pipeline;
mod random_kills;
mod rank_failures;
mod resume;
mod screens;
mod services;
mod set_aside;
mod several_controllers;
mod terminal;
mod tour;
mod unreachable;
