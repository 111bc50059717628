//! One per host: session, supervisor and shim, launchers, tails, checkpoint
//! watch, probes.
//!
//! Knows what its node runs and nothing of queues or other nodes: what should
//! run is the controller's choice.

pub mod config;
pub mod daemon;
pub mod fence;
pub mod health;
pub mod host;
pub mod join;
mod keeping;
pub mod launch;
pub mod pool;
pub mod preflight;
pub mod probe;
pub mod push;
pub mod refusal;
pub mod renew;
pub mod seat;
pub mod seats;
pub mod session;
pub mod shim;
pub mod spool;
pub mod survey;
pub mod watch;
