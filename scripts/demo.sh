#!/usr/bin/env bash
# The whole pipeline on a small model: prepares, builds, makes the input, runs it, and proves the result.
#
#   demo.sh           run; a second run does again only what changed
#   demo.sh --clean   stop the demo's controller and agents and remove its files
#
#   QCTL_CACHE       the venv, and the default place of all the rest (default: ~/.cache/qctl)
#   QCTL_DEMO_DIR    input, state and results (default: $QCTL_CACHE/demo)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

demo="${QCTL_DEMO_DIR:-$QCTL_CACHE/demo}"
mkdir -p "$demo"
demo="$(cd "$demo" && pwd)"
state="$demo/state"
target="$(target_dir)"
qctl="$target/release/qctl"
began="$(now)"

if [ "${1:-}" = --clean ]; then
    # Not under programs that run: nothing would find them afterwards.
    if [ -d "$state" ]; then
        [ -x "$qctl" ] || die "$qctl is not there to stop what runs in $state" "CARGO_TARGET_DIR as it was for the demo, or make demo again"
        "$qctl" dev stop --state-dir "$state" || die "what runs in $state could not be stopped" "$qctl dev status --state-dir $state"
    fi
    rm -rf "$demo"
    say "demo: removed $demo"
    exit 0
fi
[ $# -eq 0 ] || die "unknown argument \`$1\`" "demo.sh takes --clean or nothing"

need_rust
python="$("$QCTL_ROOT/scripts/bootstrap.sh")"

say "demo: building the release binaries"
(cd "$QCTL_ROOT" && CARGO_TARGET_DIR="$target" cargo build --release --workspace --bins --locked --quiet)

"$python" "$QCTL_ROOT/examples/quickstart/make_input.py" "$demo" >&2

"$qctl" dev --state-dir "$state" --agents 2 --slots 2 --device cpu --detach

say "demo: running examples/quickstart/pipeline.yaml"
ran="$(now)"
status=0
"$qctl" --state-dir "$state" run -f "$QCTL_ROOT/examples/quickstart/pipeline.yaml" \
    --set "workdir=$demo" \
    --set "runtime.python=$python" \
    --set "stages.train.script=$QCTL_ROOT/examples/trainer/pretrain_gpt.py" || status=$?
if [ "$status" -ne 0 ]; then
    say "hint: $qctl --state-dir $state describe quickstart"
    say "hint: $qctl --state-dir $state logs quickstart --stage train"
    exit "$status"
fi
pipeline="$(since "$ran")"

say "demo: tokenizing the rows that training never saw"
"$qctl" preprocess --input "$demo/dataset/held_out.jsonl" --tokenizer-name-or-path "$demo/model_hf" \
    --tokenizer-type PretrainedFromHF --output-prefix "$demo/dataset/held_out" --workers 1 >/dev/null
# A training stage that was reused has its log where it ran: in the earlier job, saved by the earlier demo.
"$qctl" --state-dir "$state" logs quickstart --stage train --rank 3 -o raw >"$demo/last_rank.new"
if [ -s "$demo/last_rank.new" ] || [ ! -e "$demo/last_rank.log" ]; then
    mv "$demo/last_rank.new" "$demo/last_rank.log"
else
    rm "$demo/last_rank.new"
    say "demo: training was reused, so this is its log of the earlier run"
fi

say "demo: proving the result"
"$python" "$QCTL_ROOT/examples/quickstart/prove.py" --log "$demo/last_rank.log" --checkpoints "$demo/checkpoints" \
    --before "$demo/model_hf" --after "$demo/exported/mg2hf" --held-out "$demo/dataset/held_out_text_document"

cat <<TEXT

The pipeline took $pipeline s, the demo $(since "$began") s.
  input        $demo/model_hf, $demo/dataset
  shards       $demo/mcore
  checkpoints  $demo/checkpoints
  result       $demo/exported/mg2hf

The controller and its two agents go on running. Three commands to try next:
  $qctl --state-dir $state describe quickstart
  $qctl --state-dir $state logs quickstart --stage train --rank 3
  $qctl --state-dir $state ckpt ls quickstart
Stop them and remove everything: make clean-demo
TEXT
