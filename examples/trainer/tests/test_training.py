"""Tests that train: scheduler and ranks as processes on MindSpore's CPU backend. Skipped without MindSpore."""

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import check_forward  # noqa: E402
import example_model as example  # noqa: E402
import launch  # noqa: E402
import pickle_pt  # noqa: E402


@unittest.skipUnless(importlib.util.find_spec("mindspore"), "MindSpore is not installed for this interpreter")
class TrainingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.weights = example.make_weights(example.CONFIG)
        example.write_hf(cls.at("hf"), example.CONFIG, cls.weights)
        example.write_tokens(cls.at("t"), 96)

    @classmethod
    def at(cls, *names):
        return os.path.join(cls.dir, *names)

    def train(self, name, tp, pp, *extra, iters=6, config=example.CONFIG, **how):
        given = [*example.trainer_flags(config, 32, tp, pp), "--micro-batch-size", "4", "--global-batch-size", "4",
                 "--data-path", self.at("t"), "--lr", "1e-2", "--min-lr", "1e-3", "--train-iters", str(iters), *extra]
        return launch.run(self.at(name + ".logs"), tp * pp, given, **how)

    def good(self, run):
        self.assertEqual(run.codes, [0] * len(run.codes), "\n".join(x[-2000:] for x in run.logs))
        return run

    def converted(self, name, tp, pp, config=example.CONFIG, weights=None):
        example.write_shards(self.at(name), config, weights or self.weights, tp, pp)
        return "--load", self.at(name), "--no-load-optim", "--no-load-rng"

    def test_the_first_losses_are_those_of_the_numpy_check_in_every_layout(self):
        # A rate of zero in the first step (warm-up) lets two iterations show the untouched model.
        want = [check_forward.loss_of(self.at("hf"), self.at("t"), 32, 4 * i, 4 * i + 4) for i in (1, 2)]
        seen = []
        for tp, pp in ((1, 1), (2, 1), (1, 2), (2, 2)):
            run = self.good(self.train(f"l{tp}{pp}", tp, pp, *self.converted(f"mc{tp}{pp}", tp, pp), "--lr-warmup-fraction", "0.1", iters=5))
            losses = {n: float(x) for n, x in run.losses().items()}
            self.assertEqual(sorted(losses), [2, 3, 4, 5])
            np.testing.assert_allclose([losses[2], losses[3]], want, atol=1e-3)
            seen.append([losses[4], losses[5]])
        np.testing.assert_allclose(seen[1:], seen[:1] * 3, atol=1e-4)  # and so do the gradients agree

    def test_a_tied_model_trains_alike_in_one_stage_and_in_two(self):
        config = {**example.CONFIG, "tie_word_embeddings": True}
        weights = example.make_weights(config)
        seen = []
        for tp, pp in ((1, 1), (2, 2)):
            run = self.good(self.train(f"t{tp}{pp}", tp, pp, *self.converted(f"tied{tp}{pp}", tp, pp, config, weights), iters=4, config=config))
            seen.append([float(x) for x in run.losses().values()])
        np.testing.assert_allclose(*seen, atol=1e-4)

    def test_a_shard_with_gate_and_up_exchanged_is_found_out(self):
        wrong = dict(self.weights)
        for i in range(4):
            g, u = (f"model.layers.{i}.mlp.{x}_proj.weight" for x in ("gate", "up"))
            wrong[g], wrong[u] = self.weights[u], self.weights[g]
        run = self.good(self.train("wrong", 1, 1, *self.converted("wrong", 1, 1, weights=wrong), iters=2))
        want = check_forward.loss_of(self.at("hf"), self.at("t"), 32, 4, 8)
        self.assertGreater(abs(float(run.losses()[2]) - want), 1e-2)

    def test_a_resumed_run_prints_the_same_losses_to_the_last_digit(self):
        whole = self.good(self.train("whole", 2, 2, "--save", self.at("whole"), "--save-interval", "3"))
        self.assertEqual(sorted(whole.losses()), [1, 2, 3, 4, 5, 6])
        shutil.copytree(self.at("whole"), self.at("part"))
        shutil.rmtree(self.at("part", "iter_0000006"))
        with open(self.at("part", "latest_checkpointed_iteration.txt"), "w") as f:
            f.write("3")
        again = self.good(self.train("part", 2, 2, "--load", self.at("part"), "--save", self.at("part")))
        self.assertEqual(again.losses(), {n: x for n, x in whole.losses().items() if n > 3})
        self.assertIn(" [ t 1/2, p 1/2 ] at iteration 3", again.logs[0])
        for shard in ("mp_rank_00_000", "mp_rank_01_001"):
            a, b = (pickle_pt.load(self.at(d, "iter_0000006", shard, "model_optim_rng.pt")) for d in ("whole", "part"))
            for part in ("fp32_params", "exp_avg", "exp_avg_sq"):
                for name, value in a["optimizer"][part].items():
                    np.testing.assert_array_equal(value, b["optimizer"][part][name], f"{part} {name}")

        # What was saved is the model that was trained: merged back, it has the loss of the next iteration.
        shards = {(t, p): pickle_pt.load(self.at("whole", "iter_0000003", f"mp_rank_{t:02d}_{p:03d}", "model_optim_rng.pt"))
                  for t in (0, 1) for p in (0, 1)}
        for shard in shards.values():
            for name, value in shard["optimizer"]["fp32_params"].items():
                np.testing.assert_array_equal(shard["model"][name], pickle_pt.bf16_to_f32(pickle_pt.f32_to_bf16(value)))
        merged = example.merge_shards(example.CONFIG, {at: s["optimizer"]["fp32_params"] for at, s in shards.items()})
        windows = check_forward.read_windows(self.at("t"), 32, 1234, "100,0,0", 12, 16)
        loss = np.mean([check_forward.mean_loss(example.CONFIG, merged, w) for w in windows])
        self.assertAlmostEqual(loss, float(whole.losses()[4]), delta=1e-3)

    def test_sigterm_saves_and_ends_with_zero_on_every_rank(self):
        run = self.good(self.train("term", 2, 1, "--save", self.at("term"), "--exit-signal-handler", "--use-distributed-optimizer",
                                   iters=100000, term_after="iteration        3/"))
        self.assertIn("exiting program after receiving SIGTERM.", run.logs[0])
        last = max(run.losses())
        self.assertLess(last, 100000)
        self.assertEqual(example.read(self.at("term", "latest_checkpointed_iteration.txt")), str(last))
        again = self.good(self.train("term2", 2, 1, "--load", self.at("term"), iters=last + 1))
        self.assertEqual(sorted(again.losses()), [last + 1])

    def test_an_injected_fault_strikes_once_at_its_iteration(self):
        table = (("exit3", 3), ("kill", -signal.SIGKILL), ("exception", 1))
        for how, code in table:
            run = self.train("fail", 1, 1, "--fail", f"0:2:{how}", iters=3)
            self.assertEqual((run.codes, sorted(run.losses())), ([code], [1]), how)
        run = self.good(self.train("fail", 1, 1, "--fail", "0:2:exit3", iters=3, env={"QCTL_ATTEMPT_NUMBER": "2"}))
        self.assertEqual(sorted(run.losses()), [1, 2, 3])

    def test_training_on_learns_and_accumulation_changes_nothing(self):
        one = self.good(self.train("one", 1, 1, iters=40))
        losses = [float(x) for x in one.losses().values()]
        self.assertLess(np.mean(losses[-5:]), 0.9 * np.mean(losses[:5]))
        many = self.good(self.train("many", 1, 1, "--micro-batch-size", "1", "--lr-decay-iters", "40", iters=5))
        np.testing.assert_allclose([float(x) for x in many.losses().values()], losses[:5], atol=1e-3)

    def test_gradients_are_the_slopes_of_the_loss(self):
        import args as command_line
        from mindspore import Tensor
        from pretrain_gpt import Trainer, join_world
        from data import Samples
        given = [*example.trainer_flags(example.CONFIG, 32, 1, 1), "--micro-batch-size", "2", "--global-batch-size", "2",
                 "--data-path", self.at("t"), "--lr", "1e-2", "--train-iters", "1", *self.converted("grad", 1, 1)]
        a = command_line.parse(given)
        trainer = Trainer(a, join_world(a), Samples(self.at("t"), 32, 1234, "100,0,0", 96))
        window = trainer.samples.batch(0, 2)
        _, gradients = trainer.microbatch(window)
        rng = np.random.RandomState(0)
        for parameter, gradient in zip(trainer.stage.parameters(), gradients):
            start, slope = parameter.asnumpy().copy(), gradient.asnumpy()
            # Along the gradient's own direction, half-way mixed with noise: a slope large enough for float32.
            way = slope / np.linalg.norm(slope) + 0.5 * rng.standard_normal(slope.shape).astype(np.float32) / np.sqrt(slope.size)
            step, found = 1e-2, []
            for sign in (1, -1):
                parameter.assign_value(Tensor((start + sign * step * way).astype(np.float32)))
                found.append(float(trainer.microbatch(window)[0].asnumpy()))
            parameter.assign_value(Tensor(start))
            want = float((slope * way).sum())
            self.assertAlmostEqual((found[0] - found[1]) / (2 * step) / want, 1.0, delta=0.05, msg=parameter.name)


if __name__ == "__main__":
    unittest.main()
