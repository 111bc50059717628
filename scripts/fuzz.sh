#!/usr/bin/env bash
# Feeds the readers of foreign bytes with what a fuzzer thinks up, guided by what each input runs through.
#
#   fuzz.sh [SECONDS] [TARGET…]    each target for SECONDS (default 60; 0 only replays the kept corpus)
#
# A line per target, then `N passed, N failed`. What makes a target fail is kept in fuzz/artifacts. Stable Rust
# suffices: libFuzzer's counters come from flags that it knows, too.
#
#   QCTL_FUZZ_JOBS        targets that run at a time (default: 2)
#   CARGO_TARGET_DIR      where cargo builds; the fuzzers go to a directory below it
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$QCTL_ROOT/fuzz" || exit 1

need_rust
command -v c++ >/dev/null || die "no C++ compiler: \`c++\` is not on the PATH" "apt-get install g++"
CARGO_TARGET_DIR="$(target_dir)/fuzz"
# Only the fuzzers are counted in, not what builds them: that is what naming the target does.
host="$(rustc -vV | sed -n 's/^host: //p')"
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1"
export CARGO_TARGET_DIR RUSTFLAGS CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

seconds=60
case "${1:-}" in [0-9]*) seconds="$1" && shift ;; esac
[ $# -gt 0 ] && targets=("$@") || mapfile -t targets < <(basename -s .rs targets/*.rs)
for target in "${targets[@]}"; do
    [ -f "targets/$target.rs" ] || die "there is no target \`$target\`" "one of: $(basename -s .rs targets/*.rs | xargs)"
done

began="$(now)"
wanted=()
for target in "${targets[@]}"; do wanted+=(--bin "$target"); done
cargo build --release --locked --target "$host" "${wanted[@]}" || die "the fuzzers were not built"
say "built in $(since "$began") s"

memory=/dev/shm
[ -w "$memory" ] || memory="${TMPDIR:-/tmp}"
work="$(mktemp -d "$memory/qctl-fuzz.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p artifacts

# run TARGET: from the kept corpus, into a directory of its own; its verdict goes to a file.
run() {
    local target="$1" log="$work/$1.log" code count
    local program="$CARGO_TARGET_DIR/$host/release/$target"
    mkdir -p "$work/$target/new" "$work/$target/tmp"
    local limits=(-rss_limit_mb=2048 -timeout=20 -max_len=16384 -artifact_prefix="artifacts/$target-" -print_final_stats=1)
    if [ "$seconds" -eq 0 ]; then limits+=(-runs=0); else limits+=(-max_total_time="$seconds"); fi
    TMPDIR="$work/$target/tmp" "$program" "${limits[@]}" "$work/$target/new" "corpus/$target" >"$log" 2>&1
    code=$?
    count="$(find "$work/$target/new" -type f | wc -l)"
    awk -v target="$target" -v code="$code" -v fresh="$count" '
        /^stat::number_of_executed_units:/ { execs = $2 } /^stat::average_exec_per_sec:/ { rate = $2 }
        END { printf "%-16s %9d execs %7d exec/s %5d new inputs  %s\n", target, execs, rate, fresh, (code == 0 ? "ok" : "FAILED") }' \
        "$log" >"$work/$target.line"
    [ "$code" -eq 0 ] || { grep -v '^#' "$log" | tail -n 40 >"$work/$target.why"; touch "$work/$target.failed"; }
}

running=0
for target in "${targets[@]}"; do
    run "$target" &
    running=$((running + 1))
    [ "$running" -lt "${QCTL_FUZZ_JOBS:-2}" ] || { wait -n && running=$((running - 1)); }
done
wait

failed=0
for target in "${targets[@]}"; do
    if [ -f "$work/$target.failed" ]; then
        failed=$((failed + 1))
        cat "$work/$target.why"
        say "to see it again: fuzz/artifacts holds the input; give it to the built target as its argument"
    fi
done
for target in "${targets[@]}"; do cat "$work/$target.line"; done
printf '%d passed, %d failed\n' $((${#targets[@]} - failed)) "$failed"
[ "$failed" -eq 0 ]
