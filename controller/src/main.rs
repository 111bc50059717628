//! The server: gRPC in, planner, store, effects out.
fn main() {}
