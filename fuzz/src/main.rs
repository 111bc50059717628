//! The readers of this crate, driven by libFuzzer; `QCTL_FUZZ_TARGET` names the one.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls by names of C")]
#![allow(clippy::print_stderr, reason = "what a panic said goes where libFuzzer's own words go")]

use std::sync::LazyLock;

use fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("QCTL_FUZZ_TARGET").unwrap_or_default();
    Target::all().find(|target| target.name == wanted).unwrap_or_else(|| {
        eprintln!("QCTL_FUZZ_TARGET is `{wanted}`; it may be:");
        Target::all().for_each(|target| eprintln!("{}", target.name));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(init: fuzz::keep_panics(), |bytes: &[u8]| {
    if let Err(said) = TARGET.feed(bytes) {
        eprintln!("{said}");
        std::process::abort();
    }
});
