#!/usr/bin/env bash
# RUSTC_WORKSPACE_WRAPPER of fuzz.sh: the house's own crates count what an input runs through.
#
# Everything else is what the ordinary build made, so that a fuzzer costs little more than itself. Stable Rust
# suffices: the counters are LLVM's own, and libFuzzer finds them in the program.
for word in "$@"; do
    case "$word" in
        build_script_build | ___ | proc-macro) exec "$@" ;; # What runs while building, and cargo's questions.
    esac
done
case " $* " in *" --crate-name "*) ;; *) exec "$@" ;; esac
exec "$@" -Cdebuginfo=0 -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
