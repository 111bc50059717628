#!/usr/bin/env bash
# Feeds the readers of foreign bytes with what a fuzzer thinks up, guided by what each input runs through.
#
#   fuzz.sh [SECONDS] [TARGET…]    each target for SECONDS (default 60; 0 only replays the kept corpus)
#
# A line per target, then `fuzz N passed M failed`. What makes a target fail is kept in fuzz/artifacts, and its path is
# printed; `cargo test -p fuzz` gives it to the reader again. Without a C++ compiler, which libFuzzer is built with,
# one line says that it is skipped. Everything but the house's own crates is taken from the ordinary build.
#
#   QCTL_FUZZ_JOBS        targets that run at a time (default: 2)
#   CARGO_TARGET_DIR      where cargo builds
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$QCTL_ROOT" || exit 1

need_rust
if ! command -v "${CXX:-c++}" >/dev/null; then
    say "skipped: fuzzing needs a C++ compiler, and \`${CXX:-c++}\` is not on the PATH (apt-get install g++)"
    echo "fuzz 0 passed 0 failed"
    exit 0
fi
CARGO_TARGET_DIR="$(target_dir)"
export CARGO_TARGET_DIR CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

seconds=60
case "${1:-}" in [0-9]*) seconds="$1" && shift ;; esac
[ $# -gt 0 ] && targets=("$@") || mapfile -t targets < <(find fuzz/corpus -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)
for target in "${targets[@]}"; do
    [ -d "fuzz/corpus/$target" ] || die "there is no target \`$target\`" "one of: $(find fuzz/corpus -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs)"
done

began="$(now)"
# The whole workspace chooses the features, so that the crates of others are those of the ordinary build.
CARGO_INCREMENTAL=0 RUSTC_WORKSPACE_WRAPPER="$QCTL_ROOT/scripts/fuzz-rustc.sh" \
    cargo build --workspace --locked --bin fuzz --features fuzz/libfuzzer || die "the fuzzer was not built"
say "built in $(since "$began") s"

memory=/dev/shm
[ -w "$memory" ] || memory="${TMPDIR:-/tmp}"
work="$(mktemp -d "$memory/qctl-fuzz.XXXXXX")"
trap 'rm -rf "$work"' EXIT
# A copy: a build beside this run must not change the program under it.
cp "$CARGO_TARGET_DIR/debug/fuzz" "$work/fuzz" || exit 1
mkdir -p fuzz/artifacts

# run TARGET: from the kept corpus, into a directory of its own; its verdict goes to a file.
run() {
    local target="$1" log="$work/$1.log" code count
    mkdir -p "$work/$target/new" "$work/$target/tmp"
    local limits=(-rss_limit_mb=1024 -timeout=30 -max_len=16384 -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1)
    if [ "$seconds" -eq 0 ]; then limits+=(-runs=0); else limits+=(-max_total_time="$seconds"); fi
    QCTL_FUZZ_TARGET="$target" TMPDIR="$work/$target/tmp" \
        "$work/fuzz" "${limits[@]}" "$work/$target/new" "fuzz/corpus/$target" >"$log" 2>&1
    code=$?
    count="$(find "$work/$target/new" -type f | wc -l)"
    awk -v target="$target" -v code="$code" -v fresh="$count" '
        /^stat::number_of_executed_units:/ { execs = $2 } /^stat::average_exec_per_sec:/ { rate = $2 }
        /^stat::peak_rss_mb:/ { rss = $2 }
        END { printf "%-16s %9d execs %7d exec/s %5d new inputs %5d MB  %s\n", target, execs, rate, fresh, rss, (code == 0 ? "ok" : "FAILED") }' \
        "$log" >"$work/$target.line"
    [ "$code" -eq 0 ] || touch "$work/$target.failed"
    rm -rf "${work:?}/$target/tmp"
}

running=0
for target in "${targets[@]}"; do
    run "$target" &
    running=$((running + 1))
    [ "$running" -lt "${QCTL_FUZZ_JOBS:-2}" ] || { wait -n; running=$((running - 1)); }
done
wait

failed=0
for target in "${targets[@]}"; do
    [ -f "$work/$target.failed" ] || continue
    failed=$((failed + 1))
    printf '%s:\n' "$target"
    grep -v '^#' "$work/$target.log" | tail -n 40
    input="$(sed -n 's/.*Test unit written to //p' "$work/$target.log" | tail -n 1)"
    [ -f "$input" ] || continue
    printf 'the input is kept: %s\n' "$QCTL_ROOT/$input"
    # Where the checkout does not outlive the run, its words do.
    [ "$(stat -c %s "$input")" -gt 16384 ] || printf 'in base64: %s\n' "$(base64 -w 0 "$input")"
    printf 'to see it again: put it in fuzz/artifacts and run `cargo test -p fuzz`\n'
done
for target in "${targets[@]}"; do cat "$work/$target.line"; done
printf 'fuzz %d passed %d failed\n' $((${#targets[@]} - failed)) "$failed"
[ "$failed" -eq 0 ]
