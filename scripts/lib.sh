# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run.

QCTL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
QCTL_CACHE="${QCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qctl}"
mkdir -p "$QCTL_CACHE"
QCTL_CACHE="$(cd "$QCTL_CACHE" && pwd)"
export QCTL_CACHE

say() { printf '%s\n' "$*" >&2; }

# die WHAT HINT: what is wrong, and the next thing to try.
die() {
    say "error: $1"
    [ $# -lt 2 ] || say "hint: $2"
    exit 1
}

# Free space where $1 is or will be, in GiB.
free_gib() {
    df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }'
}

# The build needs cargo of at least the workspace's rust-version, and a C compiler for a few crates.
need_rust() {
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || die "\`cargo\` is not on the PATH" \
        "install stable Rust with rustup (see rust-lang.org/tools/install), then open a new shell"
    local want have
    want="$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$QCTL_ROOT/Cargo.toml" | head -n 1)"
    have="$(rustc --version | awk '{ print $2 }')"
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] || die \
        "rustc is $have, the workspace needs at least $want" "run \`rustup update stable\`"
    command -v cc >/dev/null || die "no C compiler: \`cc\` is not on the PATH" \
        "apt-get install build-essential, or your distribution's gcc"
}

# Where cargo puts what it builds. CI starts from a fresh clone each time, so its builds go to the cache.
target_dir() {
    if [ -z "${CARGO_TARGET_DIR:-}" ] && [ "${CI:-}" = true ]; then
        export CARGO_TARGET_DIR="$QCTL_CACHE/target"
    fi
    printf '%s\n' "${CARGO_TARGET_DIR:-$QCTL_ROOT/target}"
}

# Seconds since the epoch, with milliseconds.
now() { date +%s.%3N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# Path of an etcd to test with; nothing where there is none. Debian's package is unpacked into the cache, which needs no root.
find_etcd() {
    local kept="$QCTL_CACHE/etcd/usr/bin/etcd" into
    command -v etcd && return 0
    if [ ! -x "$kept" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        into="$(mktemp -d "$QCTL_CACHE/etcd.XXXXXX")"
        (
            cd "$into" || exit 1
            apt-get download etcd-server || { apt-get update && apt-get download etcd-server; }
            dpkg -x ./etcd-server_*.deb unpacked
        ) >/dev/null 2>&1 && { rm -rf "$QCTL_CACHE/etcd" && mv "$into/unpacked" "$QCTL_CACHE/etcd"; }
        rm -rf "$into"
    fi
    [ -x "$kept" ] && printf '%s\n' "$kept"
}
