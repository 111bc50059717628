#!/usr/bin/env bash
# The network laboratory: every fault of tests/lab/faults, round after round, and a page of what was measured.
#
#   LAB_ROUNDS      rounds over all faults (default: 1)
#   LAB             names of faults, or parts of them, instead of all
#   LAB_SEED        the first round's seed; each further round has the next one (default: drawn)
#   LAB_REPORT      the page (default: lab.md in cargo's target directory)
#   QCTL_TEST_PYTHON  an interpreter with mindspore; without one, the two passes with MindSpore itself are left out
#   QCTL_TEST_ETCD  an etcd, instead of the one on the PATH or Debian's
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$QCTL_ROOT"

need_rust
CARGO_TARGET_DIR="$(target_dir)"
QCTL_TEST_ETCD="${QCTL_TEST_ETCD:-$(find_etcd)}"
export CARGO_TARGET_DIR QCTL_TEST_ETCD
mkdir -p "$CARGO_TARGET_DIR"
report="$(realpath "${LAB_REPORT:-$CARGO_TARGET_DIR/lab.md}")"

cargo build --workspace --bins --locked
words=(--rounds "${LAB_ROUNDS:-1}" --report "$report")
[ -z "${LAB_SEED:-}" ] || words+=(--seed "$LAB_SEED")
# shellcheck disable=SC2206 # Several names are several words.
[ -z "${LAB:-}" ] && words+=(--all) || words+=($LAB)
code=0
rm -f "$report"
cargo test -p stories --test lab --locked -- "${words[@]}" || code=$?
[ ! -e "$report" ] || say "the page: $report"
exit "$code"
