#!/usr/bin/env bash
# Installs what the tests need, runs all of them, and ends with one line: N passed, N failed, N skipped.
#
# Every section runs, whatever became of the one before. Give names to run only these: test.sh fmt rust python
#
#   CARGO_TARGET_DIR      where cargo builds (with CI=true and none given: the cache)
#   QCTL_REFERENCE_DATA   the golden cases (default: ../shared); tests that need them skip without
#   QCTL_TEST_ETCD        an etcd, instead of the one on the PATH or Debian's
#   QCTL_SKIP_ETCD        passes over the tests that need an etcd where there is none (set here if none can be had)
#   QCTL_FUZZ_SECONDS     how long each reader of foreign bytes is fuzzed (default: 20, two at a time)
#   QCTL_TEST_PYTHON      an interpreter with mindspore, instead of the one that bootstrap.sh makes
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$QCTL_ROOT" || exit 1

need_rust
CARGO_TARGET_DIR="$(target_dir)"
export CARGO_TARGET_DIR CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}" PYTHONDONTWRITEBYTECODE=1
mkdir -p "$CARGO_TARGET_DIR"
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

passed=0 failed=0 skipped=0
asked=("$@")
summary=()

wanted() {
    [ "${#asked[@]}" -eq 0 ] && return 0
    local one
    for one in "${asked[@]}"; do [ "$one" = "$1" ] && return 0; done
    return 1
}

# section NAME COUNTER COMMAND…: runs the command, shows what it says, adds up what COUNTER finds in it.
section() {
    local name="$1" counter="$2" log began code p f s
    shift 2
    log="$logs/${name//[^a-z0-9]/_}.log"
    began="$(now)"
    printf '== %s: %s\n' "$name" "$*"
    "$@" </dev/null 2>&1 | tee "$log"
    code="${PIPESTATUS[0]}"
    read -r p f s < <("$counter" "$log")
    # A section that ends badly counts, even where its runner counted nothing.
    [ "$code" -eq 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    summary+=("$(printf '%-34s %5d passed %4d failed %4d skipped %8s s' "$name" "$p" "$f" "$s" "$(since "$began")")")
    return "$code"
}

# Cargo: the sums over every test binary.
rust_counts() {
    awk '/^test result: / { for (i = 2; i <= NF; i++) {
            if ($i == "passed;") p += $(i - 1); if ($i == "failed;") f += $(i - 1); if ($i == "ignored;") s += $(i - 1) } }
        END { print p + 0, f + 0, s + 0 }' "$1"
}

# unittest: `Ran N tests in …`, then OK or FAILED with what was not plain success.
python_counts() {
    awk '/^Ran [0-9]+ tests? in / { ran += $2 }
        /^(OK|FAILED)/ { line = $0; gsub(/[(),]/, " ", line); n = split(line, words, " ")
            for (i = 1; i <= n; i++) { split(words[i], pair, "=")
                if (pair[1] == "failures" || pair[1] == "errors") f += pair[2]
                if (pair[1] == "skipped") s += pair[2] } }
        END { p = ran - f - s; print (p > 0 ? p : 0), f + 0, s + 0 }' "$1"
}

# fuzz.sh: `fuzz N passed M failed`, or a line that says why it is skipped.
fuzz_counts() {
    awk '/^skipped: / { s = 1 } /^fuzz [0-9]+ passed [0-9]+ failed/ { p = $2; f = $4 } END { print p + 0, f + 0, s + 0 }' "$1"
}

# A check without tests in it is one that passed, or, by its exit code, one that failed.
passes_as_one() { [ "$code" -eq 0 ] && echo 1 0 0 || echo 0 1 0; }

if wanted python || wanted rust; then
    if [ -z "${QCTL_TEST_PYTHON:-}" ]; then
        say "== bootstrap"
        QCTL_TEST_PYTHON="$("$QCTL_ROOT/scripts/bootstrap.sh")" || {
            say "error: no Python to test with; its tests are counted as one failure"
            QCTL_TEST_PYTHON=""
            failed=$((failed + 1))
        }
    fi
    export QCTL_TEST_PYTHON
fi
export QCTL_REFERENCE_DATA="${QCTL_REFERENCE_DATA:-$QCTL_ROOT/../shared}"

wanted fmt && section fmt passes_as_one cargo fmt --all --check
wanted clippy && section clippy passes_as_one cargo clippy --workspace --all-targets --locked -- -D warnings
if wanted rust; then
    QCTL_TEST_ETCD="${QCTL_TEST_ETCD:-$(find_etcd)}"
    if [ -z "$QCTL_TEST_ETCD" ]; then
        say "no etcd is installed, and none could be fetched (Debian: etcd-server): QCTL_SKIP_ETCD=1, its tests are skipped"
        export QCTL_SKIP_ETCD=1
    fi
    export QCTL_TEST_ETCD
    # The tests that span crates start the binaries themselves, which `cargo test` alone would not build.
    section build passes_as_one cargo build --workspace --bins --locked
    section rust rust_counts cargo test --workspace --locked --no-fail-fast
fi
wanted fuzz && section fuzz fuzz_counts scripts/fuzz.sh "${QCTL_FUZZ_SECONDS:-20}"
if wanted python && [ -n "$QCTL_TEST_PYTHON" ]; then
    while IFS= read -r directory; do
        section "python ${directory#"$QCTL_ROOT/"}" python_counts \
            "$QCTL_TEST_PYTHON" -m unittest discover -s "$directory" -t "$directory"
    done < <(find "$QCTL_ROOT/scripts" "$QCTL_ROOT/examples" -name 'test_*.py' -printf '%h\n' | sort -u)
fi

printf '\n'
printf '%s\n' "${summary[@]}"
[ $((passed + failed)) -gt 0 ] || failed=1
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
