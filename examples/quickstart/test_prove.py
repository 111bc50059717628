"""Every claim of prove.py fails when its evidence is spoilt.

Needs numpy; run with the venv's interpreter.
"""

import json
import pathlib
import shutil
import struct
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent

try:
    import numpy
except ImportError as error:
    raise unittest.SkipTest("skipped: %s" % error)

import hf_model
import prove
from prove import Unproven

sys.path.insert(0, str(HERE.parent / "standin"))
import shard  # noqa: E402  The stand-in's shards are as whole as a trainer's.


def line(iteration, loss):
    return (" [2025-01-01 00:00:00] iteration %8d/      20 | consumed samples:          160 | elapsed time per iteration (ms):"
            " 1.0 | learning rate: 1.0E-03 | global batch size:     8 | lm loss: %.6E | loss scale: 1.0 |" % (iteration, loss))


def write_model(directory, seed):
    directory.mkdir(parents=True)
    for name, data in hf_model.files(seed, 3000):
        (directory / name).write_bytes(data)


def write_tokens(prefix, sequences):
    """A token file pair: ids one after another, and the index of MMIDIDX version 1."""
    lengths = [len(s) for s in sequences]
    numpy.concatenate(sequences).astype("<i4").tofile(str(prefix) + ".bin")
    offsets = numpy.cumsum([0] + [4 * n for n in lengths[:-1]])
    with open(str(prefix) + ".idx", "wb") as out:
        out.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(lengths), len(lengths) + 1))
        out.write(numpy.array(lengths, "<i4").tobytes() + offsets.astype("<i8").tobytes())
        out.write(numpy.arange(len(lengths) + 1).astype("<i8").tobytes())


class Prove(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.directory = pathlib.Path(held.name)

    def test_training_must_log_every_iteration_and_fall_by_a_tenth(self):
        falling = "\n".join(line(i, 8.0 - 0.1 * i) for i in range(2, 21))
        self.assertIn("19 logged steps", prove.training(falling, 20, 0.10))
        for spoilt, why in (
            (falling.replace("lm loss: 6.500000E+00", "lm loss: nan"), "plain number"),
            ("\n".join(line(i, 8.0) for i in range(2, 21)), "less than 10 % down"),
            ("\n".join(line(i, 8.0 - 0.05 * i) for i in range(2, 21)), "less than 10 % down"),
            ("\n".join(falling.splitlines()[:-1]), "not 2 to 20"),
            ("", "not 2 to 20"),
        ):
            with self.assertRaisesRegex(Unproven, why):
                prove.training(spoilt, 20, 0.10)

    def test_an_iteration_that_was_run_again_counts_once(self):
        self.assertEqual(prove.losses("\n".join((line(2, 9.0), line(3, 8.0), line(2, 7.0)))), {2: 7.0, 3: 8.0})

    def test_checkpoints_must_be_whole_and_no_more_than_the_layout(self):
        for iteration in (5, 10):
            for tp in (0, 1):
                for pp in (0, 1):
                    shard.write(shard.path(str(self.directory), iteration, tp, pp, 2), {}, iteration, False)
        shard.write_tracker(str(self.directory), 10)
        self.assertIn("4 shards", prove.checkpoints(self.directory, [5, 10], 2, 2))
        with self.assertRaisesRegex(Unproven, "tracker names `10`"):
            prove.checkpoints(self.directory, [5], 2, 2)
        with self.assertRaisesRegex(Unproven, "is missing"):
            prove.checkpoints(self.directory, [5, 10, 15], 2, 2)
        one = self.directory / "iter_0000005/mp_rank_01_001/model_optim_rng.pt"
        whole = one.read_bytes()
        one.write_bytes(whole[:-1])
        with self.assertRaisesRegex(Unproven, "zip"):
            prove.checkpoints(self.directory, [5, 10], 2, 2)
        at = whole.index(b"little")
        one.write_bytes(whole[:at] + b"L" + whole[at + 1:])
        with self.assertRaisesRegex(Unproven, "wrong checksum"):
            prove.checkpoints(self.directory, [5, 10], 2, 2)
        one.write_bytes(whole)
        (self.directory / "iter_0000010/mp_rank_02_000").mkdir()
        with self.assertRaisesRegex(Unproven, "holds"):
            prove.checkpoints(self.directory, [5, 10], 2, 2)

    def test_the_export_must_have_the_same_form_and_other_values(self):
        before, after = self.directory / "before", self.directory / "after"
        write_model(before, 1)
        write_model(after, 2)
        self.assertIn("with other values", prove.export(before, after))
        with self.assertRaisesRegex(Unproven, "came out as it went in"):
            prove.export(before, before)
        last = sorted(after.glob("*.safetensors"))[-1]
        data = last.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for old, new, why in ((b"lm_head.weight", b"lm_tail.weight", "names differ"), (b"[3072,128]", b"[128,3072]", "was BF16"),
                              (b'"BF16"', b'"F16" ', "was BF16")):
            last.write_bytes(data[:8] + data[8:8 + size].replace(old, new) + data[8 + size:])
            with self.assertRaisesRegex(Unproven, why):
                prove.export(before, after)
        last.write_bytes(data[:-2])
        with self.assertRaisesRegex(Unproven, "truncated"):
            prove.export(before, after)
        shutil.rmtree(after)
        after.mkdir()
        with self.assertRaisesRegex(Unproven, "no safetensors"):
            prove.export(before, after)

    def test_the_held_out_loss_is_a_real_forward_pass_and_must_fall(self):
        before = self.directory / "before"
        write_model(before, 1)
        prefix = self.directory / "tokens"
        draw = numpy.random.default_rng(7)
        write_tokens(prefix, [draw.integers(0, 3000, 50) for _ in range(20)])
        loss = prove.loss_on(before, prefix, 64, 4)
        self.assertAlmostEqual(loss, numpy.log(3072), delta=0.2)
        with self.assertRaisesRegex(Unproven, "on held-out text went from"):
            prove.held_out(before, before, prefix, 64, 4)
        with self.assertRaisesRegex(Unproven, "could not judge"):
            prove.held_out(before, self.directory / "none", prefix, 64, 4)


if __name__ == "__main__":
    unittest.main()
