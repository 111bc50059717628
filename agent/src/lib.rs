//! One per host: session, supervisor and shim, launchers, tails, checkpoint
//! watch, probes.
//!
//! Knows what its node runs and nothing of queues or other nodes: what should
//! run is the controller's choice.

pub mod refusal;
pub mod shim;
pub mod spool;
pub mod watch;
