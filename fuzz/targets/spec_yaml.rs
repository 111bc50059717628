//! The user's file: refused with sentences, or a spec.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = spec::parse(text, "job.yaml") {
        assert!(!problems.is_empty() && problems.len() <= 20);
        let said = spec::render(&problems);
        assert!(!said.contains("could not be checked"), "{said}");
        let raw = said.chars().find(|c| c.is_control() && *c != '\n');
        assert!(raw.is_none(), "{raw:?} would reach the terminal: {said:?}");
    }
});
