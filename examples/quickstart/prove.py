"""Does what the demo left behind prove that the pipeline works? Says what it found; exit code 1 where it does not.

usage: python prove.py --log FILE --checkpoints DIR --before DIR --after DIR --held-out PREFIX

    --log          the last rank's raw log
    --checkpoints  the directory that training saved to
    --before       the model that was put in, in Hugging Face format
    --after        the model that came out
    --held-out     prefix of the token files of the rows that were kept out of training

Needs numpy, and the forward pass of examples/trainer, which shares no code with the trainer.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
CHECK_FORWARD = HERE.parent / "trainer" / "check_forward.py"
LINE = re.compile(r"\biteration\s+(\d+)/\s*(\d+) \|.*\blm loss: ([^ |]+) \|")
DTYPES = {"BF16", "F16", "F32"}


class Unproven(Exception):
    """A claim that does not hold."""


def need(holds, what):
    if not holds:
        raise Unproven(what)


def losses(log):
    """Iteration to loss; where an iteration was run again after a restart, its last line counts."""
    return {int(m[0]): float(m[2]) for m in LINE.findall(log)}


def training(log, iterations, least):
    """The mean of the last five logged losses lies at least `least` (a fraction) under that of the first five."""
    found = losses(log)
    want = list(range(2, iterations + 1))
    need(sorted(found) == want, "the log has iterations %s, not 2 to %d" % (sorted(found), iterations))
    values = [found[i] for i in want]
    need(all(0 < v < 100 for v in values), "a loss is not a plain number: %s" % values)
    first, last = statistics.mean(values[:5]), statistics.mean(values[-5:])
    need(last <= (1 - least) * first, "the mean loss went from %.4f to %.4f: less than %d %% down" % (first, last, 100 * least))
    return "training loss %.3f -> %.3f (mean of the first and last 5 of %d logged steps): %.1f %% down" % (
        first, last, len(values), 100 * (1 - last / first))


def checkpoints(directory, iterations, tp, pp):
    """Every named iteration has all its shards whole, and the tracker names the last."""
    ranks = ["mp_rank_%02d" % t if pp == 1 else "mp_rank_%02d_%03d" % (t, p) for t in range(tp) for p in range(pp)]
    for iteration in iterations:
        where = directory / ("iter_%07d" % iteration)
        for rank in ranks:
            shard = where / rank / "model_optim_rng.pt"
            need(shard.is_file(), "`%s` is missing" % shard)
            try:
                with zipfile.ZipFile(shard) as archive:
                    broken = archive.testzip()
            except zipfile.BadZipFile as error:
                raise Unproven("`%s`: %s" % (shard, error)) from None
            need(broken is None, "`%s`: entry `%s` has a wrong checksum" % (shard, broken))
        there = {p.name for p in where.iterdir() if p.is_dir()}
        need(there == set(ranks), "`%s` holds %s" % (where, sorted(there)))
    tracker = (directory / "latest_checkpointed_iteration.txt").read_text().strip()
    need(tracker == str(iterations[-1]), "the tracker names `%s`, not %d" % (tracker, iterations[-1]))
    return "checkpoints %s: %d shards each, every one whole" % (", ".join(map(str, iterations)), len(ranks))


def tensors(directory):
    """Name to (dtype, shape, bytes) over all safetensors files of a directory."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        need(len(data) >= 8 + size, "`%s` is truncated" % path)
        header = json.loads(data[8:8 + size])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            need(8 + size + end <= len(data), "`%s` is truncated: `%s` ends past it" % (path, name))
            need(name not in found, "`%s` is in two files" % name)
            need(entry["dtype"] in DTYPES, "`%s` has dtype `%s`" % (name, entry["dtype"]))
            found[name] = (entry["dtype"], tuple(entry["shape"]), data[8 + size + begin:8 + size + end])
    need(found, "`%s` holds no safetensors file" % directory)
    return found


def export(before, after):
    """The same names, shapes and dtypes; other values in every matrix."""
    one, two = tensors(before), tensors(after)
    need(set(one) == set(two), "names differ: %s" % sorted(set(one) ^ set(two))[:5])
    same = 0
    for name, (dtype, shape, data) in one.items():
        need(two[name][:2] == (dtype, shape), "`%s` was %s %s and is %s %s" % ((name, dtype, shape) + two[name][:2]))
        if two[name][2] == data:
            need(len(shape) == 1, "`%s` came out as it went in" % name)
            same += 1
    # A norm's weight near 1 moves less in a few steps than bf16 can tell; most must move all the same.
    need(same * 4 <= len(one), "%d of %d tensors came out as they went in" % (same, len(one)))
    return "export: %d tensors with the input's names, shapes and dtypes, %d with other values" % (len(one), len(one) - same)


def loss_on(model, prefix, seq_length, samples):
    done = subprocess.run(
        [sys.executable, str(CHECK_FORWARD), "--hf-dir", str(model), "--data-path", str(prefix),
         "--seq-length", str(seq_length), "--batch", "0..%d" % samples],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, universal_newlines=True)
    need(done.returncode == 0, "`%s` could not judge `%s`" % (CHECK_FORWARD.name, model))
    return json.loads(done.stdout)["loss"]


def held_out(before, after, prefix, seq_length, samples):
    """The loss on rows that training never saw falls too."""
    first, last = (loss_on(model, prefix, seq_length, samples) for model in (before, after))
    need(last < first, "the loss on held-out text went from %.4f to %.4f" % (first, last))
    return "held-out loss %.3f -> %.3f on %d samples that training never saw: %.1f %% down" % (
        first, last, samples, 100 * (1 - last / first))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for flag in ("--log", "--checkpoints", "--before", "--after", "--held-out"):
        parser.add_argument(flag, type=pathlib.Path, required=True)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--save-interval", type=int, default=5)
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--seq-length", type=int, default=128)
    parser.add_argument("--samples", type=int, default=16, help="held-out samples to judge by")
    parser.add_argument("--least", type=float, default=0.10, help="fraction by which the training loss must fall")
    given = parser.parse_args()
    saved = list(range(given.save_interval, given.iterations + 1, given.save_interval))
    claims = (
        lambda: training(given.log.read_text(errors="replace"), given.iterations, given.least),
        lambda: held_out(given.before, given.after, given.held_out, given.seq_length, given.samples),
        lambda: checkpoints(given.checkpoints, saved, given.tp, given.pp),
        lambda: export(given.before, given.after),
    )
    unproven = 0
    for claim in claims:
        try:
            print("proved:     " + claim())
        except (Unproven, OSError, ValueError, KeyError) as error:
            unproven += 1
            print("not proved: %s" % error)
    return 1 if unproven else 0


if __name__ == "__main__":
    sys.exit(main())
