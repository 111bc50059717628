//! One per host: session, supervisor and shim, launchers, tails, checkpoint watch, probes.
fn main() {}
