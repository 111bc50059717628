//! The network laboratory: hosts with addresses, names, boot ids and disks of their own on one machine, and faults
//! at moments that a seed draws.
//!
//! It is a test target without libtest, because namespaces are entered by a process before it has a thread: this
//! program starts itself again inside them, once as the first process of its own (which collects what is orphaned, and
//! takes everything along when it ends) and once as the laboratory. It leans on the stories' library like any story.
//!
//! ```text
//! cargo test -p stories --test lab                          # the cheap faults, once
//! cargo test -p stories --test lab -- --all --rounds 20     # the matrix
//! cargo test -p stories --test lab -- leader_killed --seed 7
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a harness says by panicking that a story went wrong")]

mod enter;
mod faults;
mod host;
mod preload;
mod record;
mod report;
mod rounds;
mod site;
mod train;

use std::process::ExitCode;

fn main() -> ExitCode {
    enter::main(rounds::main)
}
