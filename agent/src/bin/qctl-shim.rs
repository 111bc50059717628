//! Holds the processes of one seat, so that they outlive the agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::shim::main()
}
