//! `qctl-convert`.
fn main() {}
