//! qctl, the command line: one file per command; table, JSON and quiet output.
fn main() {}
