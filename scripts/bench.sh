#!/usr/bin/env bash
# Measures in one run: the engines beside what bounds them (convert against cp + fsync, tokenize against the bare encoder), and
# controller and agents beside their bars (start, burst of small tasks, death, follow, idle; with agents that are played: tasks
# without processes, a gang of 1,000 ranks, a fleet of 5,000 agents, the leader's end; the first and the last need an etcd, Debian's
# where there is none).
#
#   QCTL_REFERENCE_DATA   the golden cases, whose tokenizer is taken (default: ../shared; without them the demo's)
#   QCTL_TEST_PYTHON      if it has the `tokenizers` package, that is measured beside the engine
#   QCTL_BENCH_FLEET_SECONDS   for how long the fleet beats (default: 60)
#   QCTL_BENCH_DIR        where the files of the measurement go (default: $QCTL_CACHE/bench); removed afterwards
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SPACE_GIB=6
bench="${QCTL_BENCH_DIR:-$QCTL_CACHE/bench}"
mkdir -p "$bench"
bench="$(cd "$bench" && pwd)"
[ "$(free_gib "$bench")" -ge "$SPACE_GIB" ] || die "$bench has less than $SPACE_GIB GiB free" "QCTL_BENCH_DIR=/path on another disk"

need_rust
if etcd="${QCTL_TEST_ETCD:-$(find_etcd)}"; then PATH="$(dirname "$etcd"):$PATH"; fi
target="$(target_dir)"
say "bench: building the release binaries"
(cd "$QCTL_ROOT" && CARGO_TARGET_DIR="$target" cargo build --release --workspace --bins --locked --quiet)
# The large vocabulary of the golden cases where they are, else the demo's small one.
tokenizer="${QCTL_REFERENCE_DATA:-$QCTL_ROOT/../shared}/golden/tokenizer"
if [ ! -e "$tokenizer/tokenizer.json" ]; then
    python="$("$QCTL_ROOT/scripts/bootstrap.sh")"
    "$python" "$QCTL_ROOT/examples/quickstart/make_input.py" "$bench/input" >&2
    tokenizer="$bench/input/model_hf"
fi
work="$(mktemp -d "$bench/work.XXXXXX")"
trap 'rm -rf "$work"' EXIT

status=0
"$target/release/qctl-convert" bench --dir "$work" || status=1
python="${QCTL_TEST_PYTHON:-python3}"
beside=()
if "$python" -c 'import tokenizers' 2>/dev/null; then beside=(--python "$python"); fi
"$target/release/qctl-tokenize" bench --tokenizer "$tokenizer" --directory "$work" --memory "${beside[@]}" || status=1
"$target/release/qctl-bench" --directory "$work" --fleet-seconds "${QCTL_BENCH_FLEET_SECONDS:-60}" || status=1
exit "$status"
