//! A pickle: read as data, never run.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pickle) = convert::pickle::Pickle::parse(bytes) {
        let _ = pickle.root();
    }
});
