"""Tests without MindSpore: sampling, schedule, log lines, command line, checkpoints, the numpy check."""

import contextlib
import io
import json
import os
import re
import sys
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import args as command_line  # noqa: E402
import check_forward  # noqa: E402
import checkpoint  # noqa: E402
import data  # noqa: E402
import evaluate  # noqa: E402
import example_model as example  # noqa: E402
import pickle_pt  # noqa: E402
import schedule  # noqa: E402
import shapes  # noqa: E402
import trainlog  # noqa: E402
from example_model import REFERENCE, Folder  # noqa: E402
from seat import Seat  # noqa: E402

PATHS = ["--data-path", "d", "--lr", "1e-3", "--train-iters", "10", "--global-batch-size", "4", "--micro-batch-size", "4"]


def flags(tp=2, pp=2, extra=()):
    return example.trainer_flags(example.CONFIG, 32, tp, pp) + PATHS + list(extra)


class DataTest(Folder):
    def samples(self, **changed):
        values = dict(prefix=self.path("t"), seq_length=32, seed=1234, split="100,0,0", vocab=96)
        values.update(changed)
        return data.Samples(**values)

    def test_samples_follow_the_rule_that_the_check_builds_on_its_own(self):
        example.write_tokens(self.path("t"), 96)
        for split in ("100,0,0", "80,20,0"):
            for seed in (1234, 7):
                mine = self.samples(seed=seed, split=split)
                theirs = check_forward.read_windows(self.path("t"), 32, seed, split, 0, mine.per_epoch)
                np.testing.assert_array_equal(mine.batch(0, mine.per_epoch), theirs)

    def test_an_epoch_shows_each_window_once_and_the_next_in_another_order(self):
        docs = example.write_tokens(self.path("t"), 96)
        s = self.samples()
        self.assertEqual(s.per_epoch, (sum(map(len, docs)) - 1) // 32)
        first, second = s.batch(0, s.per_epoch), s.batch(s.per_epoch, s.per_epoch)
        self.assertEqual(len({w.tobytes() for w in first}), s.per_epoch)
        self.assertFalse(np.array_equal(first, second))
        np.testing.assert_array_equal(s.batch(3, 4), first[3:7])
        stored = np.concatenate(docs)
        used = np.bincount(first[:, :-1].reshape(-1), minlength=96)
        self.assertTrue((used <= np.bincount(stored, minlength=96)).all())
        self.assertFalse(np.array_equal(self.samples(seed=5).batch(0, 4), first[:4]))

    def test_what_cannot_be_trained_on_is_refused_with_the_reason(self):
        with self.assertRaisesRegex(data.NoData, "prefix without"):
            self.samples()
        example.write_tokens(self.path("t"), 96)
        self.assertRaisesRegex(data.NoData, "outside the padded vocabulary", lambda: self.samples(vocab=20).batch(0, 4))
        self.assertRaisesRegex(data.NoData, "fewer than", lambda: self.samples(seq_length=100000))
        self.assertRaisesRegex(data.NoData, "fewer than", lambda: self.samples(split="0,100,0"))
        self.assertRaisesRegex(data.NoData, "no positive sum", lambda: self.samples(split="0,0,0"))
        self.assertRaisesRegex(data.NoData, "not a list", lambda: self.samples(split="all"))
        whole = example.read(self.path("t.idx"), "rb")
        for raw, why in ((b"x" * 40, "MMIDIDX"), (whole[:-1], "promises"), (whole[:17] + b"\x06" + whole[18:], "type code 6"), (b"", "MMIDIDX")):
            with open(self.path("t.idx"), "wb") as f:
                f.write(raw)
            self.assertRaisesRegex(data.NoData, why, self.samples)
        with open(self.path("t.idx"), "wb") as f:
            f.write(whole)
        os.truncate(self.path("t.bin"), 400)
        self.assertRaisesRegex(data.NoData, "points outside", self.samples)

    def test_the_reference_preprocessors_files_are_read(self):
        prefix = os.path.join(REFERENCE, "golden", "pre_parquet_default", "alpaca_text_document")
        if not os.path.exists(prefix + ".idx"):
            print(f"skipped: no reference data at {prefix}.idx")
            return
        s = data.Samples(prefix, 128, 1234, "100,0,0", 152064)
        self.assertEqual(s.sequences, 1231)
        np.testing.assert_array_equal(s.batch(0, s.per_epoch), check_forward.read_windows(prefix, 128, 1234, "100,0,0", 0, s.per_epoch))


class ScheduleTest(unittest.TestCase):
    def at(self, *extra):
        base = [f for f in flags() if f not in ("--lr-decay-style", "cosine")]
        return schedule.Schedule(command_line.parse(base + list(extra)))

    def test_rates_at_the_edges(self):
        table = [
            (["--lr-decay-style", "cosine", "--min-lr", "1e-4"], {0: 1e-3, 20: 5.5e-4, 40: 1e-4, 99: 1e-4}),
            (["--lr-decay-style", "cosine", "--min-lr", "1e-4", "--lr-warmup-fraction", "0.1"], {0: 0.0, 2: 5e-4, 4: 1e-3, 22: 5.5e-4, 40: 1e-4}),
            (["--lr-decay-style", "linear", "--lr-warmup-iters", "2"], {4: 5e-4, 8: 1e-3, 24: 5e-4, 40: 0.0}),
            (["--lr-decay-style", "constant", "--min-lr", "1e-4"], {0: 1e-3, 400: 1e-3}),
            (["--lr-decay-style", "linear", "--lr-decay-iters", "20"], {40: 5e-4, 80: 0.0}),
        ]
        for extra, points in table:
            for samples, want in points.items():
                self.assertAlmostEqual(self.at(*extra).at(samples), want, 12, f"{extra} at {samples}")

    def test_a_published_run_is_reproduced(self):
        """Rates that an Ascend run of Qwen2.5-7B printed after iterations 1 and 2 of 10, batch 128, to its seven digits."""
        base = "--lr-decay-style cosine --min-lr 1.25e-7 --lr-warmup-fraction 0.03".split()
        argv = [f for f in flags() if f not in ("--lr-decay-style", "cosine")] + base
        for name, value in (("--lr", "1.25e-6"), ("--global-batch-size", "128"), ("--micro-batch-size", "1")):
            argv[argv.index(name) + 1] = value
        s = schedule.Schedule(command_line.parse(argv))
        self.assertEqual([f"{s.at(128):.6E}", f"{s.at(256):.6E}"], ["1.235606E-06", "1.166872E-06"])

    def test_a_warmup_without_end_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "does not end"):
            self.at("--lr-warmup-iters", "10")


class LogLineTest(unittest.TestCase):
    def test_the_line_is_megatrons_to_the_letter(self):
        line = trainlog.training_line(2, 10, 256, 9344.62, 1.166872e-06, 128, 9.5, 20.1497, 0, 733.44, "2025-05-06 15:54:36")
        self.assertEqual(line, " [2025-05-06 15:54:36] iteration        2/      10 | consumed samples:          256 | "
                         "elapsed time per iteration (ms): 9344.6 | throughput per GPU (TFLOP/s/GPU): 733.4 | learning rate: 1.166872E-06 | "
                         "global batch size:   128 | lm loss: 9.500000E+00 | loss scale: 1.0 | grad norm: 20.150 | "
                         "number of skipped iterations:   0 | number of nan iterations:   0 |")

    def test_loss_and_throughput_are_optional(self):
        line = trainlog.training_line(1, 2, 4, 1.0, 0.0, 4, 0.0, 0.0, 0)
        self.assertNotIn("lm loss", line)
        self.assertNotIn("throughput", line)
        self.assertRegex(line, r"^ \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] iteration")


class ArgumentTest(unittest.TestCase):
    def refusal(self, argv):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as caught:
            command_line.parse(argv)
        self.assertEqual(caught.exception.code, 2)
        return said.getvalue()

    def test_the_tutorials_command_lines_are_accepted(self):
        for name in ("scenario1_no_recompute.txt", "scenario2_recompute.txt"):
            path = os.path.join(REFERENCE, "golden", "argv", name)
            if not os.path.exists(path):
                print(f"skipped: no reference data at {path}")
                return
            lines = example.read(path).splitlines()
            a = command_line.parse(lines[lines.index("pretrain_gpt.py") + 1:])
            self.assertEqual((a.num_layers, a.num_query_groups, a.kv_channels, a.save_interval), (28, 4, 128, 2000))

    def test_what_cannot_be_honoured_is_refused_by_name(self):
        table = {
            "--eval-iters 10": "--eval-iters is `10`", "--normalization LayerNorm": "--normalization", "--hidden-dropout 0.1": "--hidden-dropout",
            "--fp16": "--fp16", "--num-experts 4": "--num-experts", "--lr-decay-style WSD": "--lr-decay-style", "--num-query-groups 1": "--num-query-groups",
            "--tensor-model-parallel-size 3": "multiple of --tensor-model-parallel-size 3", "--pipeline-model-parallel-size 3": "--num-layers 4",
            "--global-batch-size 6": "--micro-batch-size", "--save-interval 3": "needs --save", "--fail 1:2:burn": "none of exitN",
            "--fail 1:x:kill": "rank:iteration:how", "--train-iters 0": "--train-iters", "--lr-warmup-fraction 0.1 --lr-warmup-iters 3": "exclude",
            "--ckpt-format torch_dist": "--ckpt-format", "--data-path a b": "blending",
        }
        for extra, want in table.items():
            self.assertIn(want, self.refusal(flags() + extra.split()), extra)
        for missing in ("--swiglu", "--disable-bias-linear"):
            self.assertIn(missing, self.refusal([f for f in flags() if f != missing]))
        without = flags()
        at = without.index("--attention-dropout")
        self.assertIn("--attention-dropout is `0.1`", self.refusal(without[:at] + without[at + 2:]))

    def test_faults_are_understood(self):
        for text, want in {"2:8:exit3": (2, 8, "exit", 3), "2:8:exit 3": (2, 8, "exit", 3), "0:1:kill": (0, 1, "kill", 0),
                           "1:4:hang": (1, 4, "hang", 0), "1:4:exception": (1, 4, "exception", 0)}.items():
            self.assertEqual(command_line.parse_fail(text), want)

    def test_ranks_beyond_the_layout_are_refused(self):
        a = command_line.parse(flags())
        command_line.check_world(a, 4)
        for world in (1, 2, 8):
            with self.assertRaisesRegex(SystemExit, "data parallelism is not implemented"):
                command_line.check_world(a, world)


class CheckpointTest(Folder):
    def setUp(self):
        super().setUp()
        self.weights = example.make_weights(example.CONFIG)
        example.write_shards(self.path("mc"), example.CONFIG, self.weights, 2, 2)

    def load(self, *extra, seat=Seat(1, 2, 2), load="mc"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            found = checkpoint.load(command_line.parse(flags(extra=("--load", self.path(load), *extra))), seat)
        return found, said.getvalue()

    def test_each_rank_loads_its_own_shard(self):
        for rank in range(4):
            seat = Seat(rank, 2, 2)
            found, _ = self.load("--no-load-optim", seat=seat)
            self.assertEqual((found.iteration, found.consumed), (1, 4))
            self.assertEqual({n: v.shape for n, v in found.weights.items()}, shapes.shard_shapes(command_line.parse(flags()), seat.pp_rank))
        np.testing.assert_array_equal(found.weights["output_layer.weight"], self.weights["lm_head.weight"][48:])

    def test_the_tests_own_conversion_is_invertible(self):
        shards = {(t, p): pickle_pt.load(self.path("mc", "iter_0000001", f"mp_rank_{t:02d}_{p:03d}", "model_optim_rng.pt"))["model"]
                  for t in (0, 1) for p in (0, 1)}
        back = example.merge_shards(example.CONFIG, shards)
        self.assertEqual(set(back), set(self.weights))
        for name, value in self.weights.items():
            np.testing.assert_array_equal(back[name], value, name)

    def test_without_a_tracker_megatron_starts_from_random(self):
        found, said = self.load("--no-load-optim", load="mc/iter_0000001", seat=Seat(0, 2, 2))
        self.assertIsNone(found)
        self.assertIn("WARNING: could not find the metadata file", said)
        self.assertIn("will not load any checkpoints and will start from random", said)
        with self.assertRaisesRegex(checkpoint.LoadError, "exit-on-missing-checkpoint"):
            self.load("--exit-on-missing-checkpoint", load="mc/iter_0000001")

    def test_what_does_not_fit_is_refused_by_name(self):
        table = {
            (): "holds no optimizer state: pass --no-load-optim",
            ("--num-layers", "2", "--no-load-optim"): "num_layers = 4",
            ("--ffn-hidden-size", "96", "--no-load-optim"): "linear_fc1.weight` has shape",
            ("--num-layers", "2", "--finetune"): "decoder.layers.1",
            ("--ckpt-step", "9", "--no-load-optim"): "cannot be read",
        }
        for extra, want in table.items():
            with self.assertRaisesRegex(checkpoint.LoadError, want):
                self.load(*extra)
        found, _ = self.load("--finetune")
        self.assertEqual((found.iteration, found.consumed), (0, 0))
        with open(self.path("mc", "latest_checkpointed_iteration.txt"), "w") as f:
            f.write("release")
        with self.assertRaisesRegex(checkpoint.LoadError, "`release`, which is no iteration"):
            self.load("--no-load-optim")
        self.assertIsNotNone(self.load("--no-load-optim", "--ckpt-step", "1")[0])

    def test_a_value_that_is_not_finite_is_refused(self):
        self.weights["model.norm.weight"][0] = np.inf
        example.write_shards(self.path("bad"), example.CONFIG, self.weights, 2, 2)
        with self.assertRaisesRegex(checkpoint.LoadError, "not finite"):
            self.load("--no-load-optim", load="bad", seat=Seat(2, 2, 2))

    def test_the_tracker_moves_only_after_all_shards(self):
        class Kept:
            def __init__(self, weights):
                self.kept = weights

            def weights(self):
                return self.kept

            def state(self):
                return {"step": 1, "fp32_params": self.kept, "exp_avg": self.kept, "exp_avg_sq": self.kept}

        a = command_line.parse(flags(extra=("--save", self.path("out"), "--load", self.path("out"))))
        tracker, seen = self.path("out", checkpoint.TRACKER), []
        for rank in (3, 2, 1, 0):
            seat = Seat(rank, 2, 2)
            weights = {n: np.full(s, rank + 0.1, np.float32) for n, s in shapes.shard_shapes(a, seat.pp_rank).items()}
            with contextlib.redirect_stdout(io.StringIO()) as said:
                checkpoint.save(a, seat, 7, 28, Kept(weights), 24, lambda: seen.append(os.path.exists(tracker)))
        self.assertEqual(seen, [False] * 7 + [True])
        self.assertEqual(example.read(tracker), "7")
        self.assertIn("  successfully saved checkpoint from iteration       7 to ", said.getvalue())
        with contextlib.redirect_stdout(io.StringIO()):
            back = checkpoint.load(a, Seat(3, 2, 2))
        self.assertEqual((back.iteration, back.consumed, back.schedule_samples, back.optimizer["step"]), (7, 28, 24, 1))
        exact = np.float32(3.1)
        self.assertTrue((back.optimizer["fp32_params"]["output_layer.weight"] == exact).all())
        self.assertTrue((back.weights["output_layer.weight"] == pickle_pt.bf16_to_f32(pickle_pt.f32_to_bf16(np.array([exact])))).all())


class CheckTest(Folder):
    def setUp(self):
        super().setUp()
        self.config, self.weights = dict(example.CONFIG), example.make_weights(example.CONFIG)
        example.write_tokens(self.path("t"), 96)

    def loss(self, weights, config=None):
        example.write_hf(self.path("hf"), config or self.config, weights)
        return check_forward.loss_of(self.path("hf"), self.path("t"), 32, 4, 8)

    def test_every_swap_and_every_setting_shows_in_the_loss(self):
        right = self.loss(self.weights)

        def swapped(a, b):
            w = dict(self.weights)
            for n in self.weights:
                if a in n and n.replace(a, b) in w:
                    w[n], w[n.replace(a, b)] = self.weights[n.replace(a, b)], self.weights[n]
            return w

        for a, b in (("gate_proj", "up_proj"), ("k_proj", "v_proj"), ("layers.1.", "layers.2."),
                     ("layers.0.input_layernorm", "layers.0.post_attention_layernorm"), ("embed_tokens", "embed_tokens")):
            if a != b:
                self.assertGreater(abs(self.loss(swapped(a, b)) - right), 1e-2, f"{a} <-> {b}")
        w = dict(self.weights)
        w["model.layers.0.self_attn.q_proj.weight"] = np.roll(w["model.layers.0.self_attn.q_proj.weight"], 8, 0)
        self.assertGreater(abs(self.loss(w) - right), 1e-2, "heads turned by one")
        w = {n: v for n, v in self.weights.items() if not n.endswith("proj.bias")}
        self.assertGreater(abs(self.loss(w) - right), 1e-2, "no QKV bias")
        for key, value in (("rope_theta", 50.0), ("num_key_value_heads", 1), ("tie_word_embeddings", True)):
            changed, w = {**self.config, key: value}, dict(self.weights)
            if key == "num_key_value_heads":
                for n in list(w):
                    if ".k_proj" in n or ".v_proj" in n:
                        w[n] = w[n][:8]
            self.assertGreater(abs(self.loss(w, changed) - right), 1e-3, key)
        self.assertEqual(self.loss(self.weights), right)

    def test_the_loss_of_equal_logits_is_the_logarithm_of_the_vocabulary(self):
        w = dict(self.weights)
        w["lm_head.weight"] = np.zeros_like(w["lm_head.weight"])
        self.assertAlmostEqual(self.loss(w), np.log(96), 12)

    def test_the_command_line_prints_json_and_refuses_with_a_reason(self):
        example.write_hf(self.path("hf"), self.config, self.weights)
        base = ["--hf-dir", self.path("hf"), "--data-path", self.path("t"), "--seq-length", "32", "--batch"]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(check_forward.main([*base, "4..8"]), 0)
        self.assertEqual(set(json.loads(out.getvalue())), {"loss", "samples", "tokens"})
        for batch, want in (("0..9999", "outside the"), ("4..4", "outside the")):
            with contextlib.redirect_stderr(io.StringIO()) as err:
                self.assertEqual(check_forward.main([*base, batch]), 1)
            self.assertIn(want, err.getvalue())

    def test_evaluation_sees_a_better_model_and_a_worse_one(self):
        example.write_hf(self.path("a"), self.config, self.weights)
        flat = dict(self.weights)
        flat["lm_head.weight"] = np.zeros_like(flat["lm_head.weight"])
        example.write_hf(self.path("b"), self.config, flat)
        rest = ["--data-path", self.path("t"), "--seq-length", "32", "--samples", "8", "--min-fall", "5"]
        for before, after, code in (("a", "b", 0), ("b", "a", 1), ("a", "a", 1)):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertEqual(evaluate.main(["--before", self.path(before), "--after", self.path(after), *rest]), code)
            self.assertRegex(out.getvalue(), r'"fall_percent": ')


class IndependenceTest(unittest.TestCase):
    def test_the_check_imports_nothing_of_the_trainer(self):
        text = example.read(check_forward.__file__)
        found = set(re.findall(r"^\s*(?:import|from)\s+(\w+)", text, re.M))
        self.assertEqual(found - set(sys.stdlib_module_names), {"numpy"})


if __name__ == "__main__":
    unittest.main()
