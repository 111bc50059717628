//! `qctl-tokenize`: the preprocessing engine as a process.
//!
//! Data and JSON lines go to stdout, talk to stderr. Exit codes: 0 done,
//! 1 failed, 2 wrong usage.

mod bench;
mod describe;
mod flags;
mod job;
mod merge;
mod parts;
mod report;

use std::process::ExitCode;

use flags::{Action, Parsed};

fn main() -> ExitCode {
    let parsed = match flags::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(usage) => return usage.print(),
    };
    let Parsed { action, report, notes } = parsed;
    let mut report = report;
    for note in notes {
        report.note(&note);
    }
    let outcome = match action {
        Action::Run(job) => job::run(&job, &mut report),
        Action::MergeGroups(job) => merge::run_groups(&job, &mut report),
        Action::Merge(merge) => merge::run(&merge, &mut report),
        Action::Describe(describe) => describe::run(&describe, &mut report),
        Action::Diff(diff) => {
            return match describe::diff(&diff, &report) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(failure) => {
                    report.failure(&failure);
                    ExitCode::FAILURE
                }
            };
        }
        Action::Bench(bench) => bench::run(&bench, &mut report),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.failure(&failure);
            ExitCode::FAILURE
        }
    }
}
