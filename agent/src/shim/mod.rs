//! The process that holds a seat's processes, so that they outlive the agent.
//!
//! Small and synchronous: it reads a launch file, starts the processes with
//! their logs as stdout and stderr, records each end, and stops what is left
//! when it is told to. Everything that it says is a file in the seat's
//! directory, so an agent that comes later finds all of it.

pub mod cgroup;
pub mod descend;
mod hold;
pub mod pool;
pub mod proc;
pub mod record;
pub mod within;

pub use hold::main;
