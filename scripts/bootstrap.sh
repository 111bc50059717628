#!/usr/bin/env bash
# Prepares the Python side in a cache outside the checkout, without root, and prints the venv's interpreter.
#
#   QCTL_CACHE    where the cache is (default: $XDG_CACHE_HOME/qctl or ~/.cache/qctl)
#   QCTL_PYTHON   the interpreter to build on (default: the first of 3.11, 3.10, 3.9 on the PATH)
#
# pip's own configuration (PIP_* variables, pip.conf) decides where packages come from.
# Standard output is one line: the interpreter's path. Everything else goes to standard error.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SPACE_GIB=5
requirements="$QCTL_ROOT/scripts/requirements.txt"

# mindspore's wheels decide the versions. A name on the PATH is no proof that it runs (pyenv's shims), so each is asked.
pick_python() {
    local name seen="" version
    for name in ${QCTL_PYTHON:+"$QCTL_PYTHON"} python3.11 python3.10 python3.9 python3 python /usr/bin/python3; do
        version="$("$name" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)" || continue
        case "$version" in
            3.9.* | 3.10.* | 3.11.*)
                "$name" -c 'import sys; print(sys.executable)'
                return
                ;;
        esac
        seen="$seen $name=$version"
    done
    die "no CPython 3.9, 3.10 or 3.11 found (seen:${seen:- none}); mindspore 2.7.1 has wheels for these alone" \
        "install one beside your own (apt-get install python3.11, pyenv or conda) and name it: QCTL_PYTHON=/path/to/python3.11"
}

command -v flock >/dev/null || die "\`flock\` is not on the PATH" "apt-get install util-linux"
python="$(pick_python)"
[ -z "${QCTL_PYTHON:-}" ] || [ "$("$QCTL_PYTHON" -c 'import sys; print(sys.executable)' 2>/dev/null)" = "$python" ] ||
    say "bootstrap: \`$QCTL_PYTHON\` is not Python 3.9 to 3.11; using $python"
key="$({ cat "$requirements"; "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum | cut -c 1-12)"
venv="$QCTL_CACHE/venv-$key"
stamp="$venv/.complete"

if [ -e "$stamp" ] && [ -x "$venv/bin/python" ]; then
    say "bootstrap: ready ($venv)"
    printf '%s\n' "$venv/bin/python"
    exit 0
fi

exec 9>"$QCTL_CACHE/bootstrap.lock"
if ! flock -n 9; then
    say "bootstrap: another bootstrap is at work, waiting for it"
    flock 9
fi
if [ -e "$stamp" ] && [ -x "$venv/bin/python" ]; then
    say "bootstrap: ready ($venv)"
    printf '%s\n' "$venv/bin/python"
    exit 0
fi

began="$(now)"
free="$(free_gib "$QCTL_CACHE")"
[ "$free" -ge "$SPACE_GIB" ] || die "$QCTL_CACHE has $free GiB free, the venv needs $SPACE_GIB" \
    "free some space, or name a cache on another disk: QCTL_CACHE=/path"
[ ! -e "$venv" ] || say "bootstrap: removing the unfinished venv $venv"
rm -rf "$venv"

say "bootstrap: making a venv of $("$python" --version 2>&1) ($python)"
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$venv" 9>&- >&2 || die "\`$python -m venv\` failed" "its own message is above"
else
    say "bootstrap: this Python has no ensurepip; fetching pip's wheel instead"
    "$python" -m venv --without-pip "$venv" 9>&- >&2 || die "\`$python -m venv --without-pip\` failed" "apt-get install python3-venv"
    scratch="$(mktemp -d "$QCTL_CACHE/pip.XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
    wheel="$("$python" "$QCTL_ROOT/scripts/fetch_pip.py" "$scratch" 9>&-)"
    "$venv/bin/python" "$wheel/pip" install --quiet --no-index --no-deps --disable-pip-version-check "$wheel" 9>&- >&2
fi

say "bootstrap: installing mindspore and $(($(grep -c == "$requirements") - 1)) other packages (about 400 MB to download, 3 GB on disk)"
"$venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: --no-input --disable-pip-version-check \
    -r "$requirements" 9>&- >&2 || die "pip could not install what $requirements lists" \
    "its own message is above; PIP_INDEX_URL, PIP_CERT and the proxy variables are honoured"

say "bootstrap: trying the imports"
"$venv/bin/python" - 9>&- >&2 <<'P' || die "the new venv cannot import what it should" "its own message is above"
import grpc, grpc_tools, pyarrow.parquet, tokenizers, mindspore
assert mindspore.__version__ == "2.7.1", mindspore.__version__
P
date -u +%Y-%m-%dT%H:%M:%SZ >"$stamp.new"
mv "$stamp.new" "$stamp"
say "bootstrap: ready in $(since "$began") s ($venv)"
printf '%s\n' "$venv/bin/python"
