"""What the stand-in promises, asked of real processes.

usage: python -m unittest discover -s examples/standin
"""

import os
import pathlib
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = str(HERE / "pretrain_gpt.py")
LINE = re.compile(
    r"^ \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] iteration +(\d+)/ +(\d+) \| consumed samples: +(\d+) \|"
    r" elapsed time per iteration \(ms\): (\d+\.\d) \|( throughput per GPU \(TFLOP/s/GPU\): \d+\.\d \|)?"
    r" learning rate: (\d\.\d{6}E[+-]\d\d) \| global batch size: +(\d+) \| lm loss: (\d\.\d{6}E[+-]\d\d) \|"
    r" loss scale: 1\.0 \| grad norm: (\d+\.\d{3}) \| number of skipped iterations:   0 \|"
    r" number of nan iterations:   0 \|$", re.M)
LIMIT = 60  # Seconds; a run of these takes one or two, and a stuck one must end.


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """A scheduler and its ranks; every process is gone at the end."""

    def __init__(self, directory, flags, world=4, environ=None, scheduler=("-u", SCRIPT)):
        self.directory = pathlib.Path(directory)
        base = dict(os.environ, MS_WORKER_NUM=str(world), MS_SCHED_HOST="127.0.0.1", MS_SCHED_PORT=str(free_port()),
                    MS_NODE_TIMEOUT="4", **(environ or {}))
        base.pop("QCTL_ATTEMPT_NUMBER", None)
        base.update(environ or {})
        self.processes = {}
        self.start("scheduler", list(scheduler), dict(base, MS_ROLE="MS_SCHED"))
        for rank in range(world):
            self.start(rank, [SCRIPT] + flags, dict(base, MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank)))

    def start(self, who, words, environ):
        with open(self.directory / ("%s.log" % who), "w") as log:
            self.processes[who] = subprocess.Popen([sys.executable] + words, env=environ, stdin=subprocess.DEVNULL,
                                                   stdout=log, stderr=subprocess.STDOUT, cwd=str(self.directory))

    def log(self, who):
        return (self.directory / ("%s.log" % who)).read_text()

    def end(self):
        """Every process's exit code."""
        deadline = time.monotonic() + LIMIT
        return {who: p.wait(max(0.1, deadline - time.monotonic())) for who, p in self.processes.items()}

    def end_ranks(self):
        """The ranks' exit codes; the scheduler of a failed world takes MS_NODE_TIMEOUT more."""
        scheduler = self.processes.pop("scheduler")
        try:
            return self.end()
        finally:
            self.processes["scheduler"] = scheduler

    def until(self, true):
        deadline = time.monotonic() + LIMIT
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError("it did not come to pass within %d s" % LIMIT)
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


class StandIn(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.directory = pathlib.Path(held.name)
        self.save = self.directory / "save"

    def flags(self, *more, iterations=6, interval=3, step=5):
        return ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2", "--global-batch-size", "8",
                "--micro-batch-size", "2", "--train-iters", str(iterations), "--save-interval", str(interval),
                "--save", str(self.save), "--step-ms", str(step), "--lr", "1e-3", "--min-lr", "1e-4", *more]

    def world(self, *more, **how):
        kept = {k: how.pop(k) for k in ("iterations", "interval", "step") if k in how}
        return World(self.directory, self.flags(*more, **kept), **how)

    def shards(self, iteration):
        return sorted(str(p.relative_to(self.save / ("iter_%07d" % iteration)))
                      for p in (self.save / ("iter_%07d" % iteration)).rglob("*.pt"))

    def tracker(self):
        return (self.save / "latest_checkpointed_iteration.txt").read_text()

    def iterations(self, log):
        return [int(m[0]) for m in LINE.findall(log)]

    def test_four_ranks_train_log_and_save(self):
        with self.world("--log-throughput") as world:
            self.assertEqual(set(world.end().values()), {0})
            for rank in (0, 1, 2):
                self.assertEqual(self.iterations(world.log(rank)), [])
            lines = LINE.findall(world.log(3))
            self.assertEqual([(int(m[0]), int(m[1]), int(m[2])) for m in lines], [(i, 6, 8 * i) for i in range(1, 7)])
            self.assertTrue(all(m[4] for m in lines))
            losses = [float(m[7]) for m in lines]
            self.assertAlmostEqual(losses[0], 2.0)
            self.assertEqual(losses, sorted(set(losses), reverse=True))
            for mark in ("training ...", "saving checkpoint at iteration       3 to %s in torch format" % self.save,
                         "  successfully saved checkpoint from iteration       6 to %s" % self.save):
                self.assertIn(mark + "\n", world.log(0))
        for iteration in (3, 6):
            self.assertEqual(self.shards(iteration), ["mp_rank_%02d_%03d/model_optim_rng.pt" % (t, p)
                                                      for t in (0, 1) for p in (0, 1)])
        self.assertEqual(self.tracker(), "6")
        self.assertEqual([str(p) for p in self.save.rglob("*.part*")], [])

    def test_a_shard_is_a_zip_that_python_itself_reads(self):
        with self.world() as world:
            world.end()
        path = self.save / "iter_0000006/mp_rank_01_000/model_optim_rng.pt"
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            self.assertEqual(archive.namelist(), ["model_optim_rng/" + n for n in ("data.pkl", "byteorder", "version")])
            self.assertEqual(archive.read("model_optim_rng/version"), b"3\n")
            content = pickle.loads(archive.read("model_optim_rng/data.pkl"))
            for info in archive.infolist():
                self.assertEqual(info.compress_type, zipfile.ZIP_STORED)
                name = len(info.filename) + int.from_bytes(path.read_bytes()[info.header_offset + 28:][:2], "little")
                self.assertEqual((info.header_offset + 30 + name) % 64, 0)
        self.assertEqual((content["iteration"], content["checkpoint_version"], content["model"]), (6, 3.0, {}))
        self.assertEqual(content["args"].consumed_train_samples, 48)
        self.assertEqual(content["args"].tensor_model_parallel_size, 2)
        self.assertIn("optimizer", content)

    def test_every_integer_survives_its_opcodes(self):
        sys.path.insert(0, str(HERE))
        self.addCleanup(sys.path.remove, str(HERE))
        import shard
        for value in (0, 1, -1, 127, 128, 255, 256, -128, -129, 2**31, 2**63, -2**63, 10**18):
            self.assertEqual(pickle.loads(shard.pickled({"v": value}))["v"], value)
        odd = {"t": True, "f": False, "n": None, "x": 1e-300, "s": "ä\U0001f600", "d": {}}
        self.assertEqual(pickle.loads(shard.pickled(odd)), odd)

    def test_a_run_goes_on_from_the_tracker_or_the_named_step(self):
        with self.world(iterations=4, interval=2) as world:
            world.end()
            whole = {int(m[0]): m[7] for m in LINE.findall(world.log(3))}
        for more, first in (((), 5), (("--ckpt-step", "2"), 3)):
            with self.world("--load", str(self.save), *more, iterations=6, interval=0) as world:
                self.assertEqual(set(world.end().values()), {0})
                self.assertEqual(self.iterations(world.log(3)), list(range(first, 7)))
                self.assertIn(" loading checkpoint from %s at iteration %d" % (self.save, first - 1), world.log(0))
                for m in LINE.findall(world.log(3)):
                    self.assertEqual(whole.get(int(m[0]), m[7]), m[7])

    def test_a_directory_without_a_tracker_means_random_weights_and_says_so(self):
        with self.world("--load", str(self.directory / "iter_0000001"), "--padded-vocab-size", "152064") as world:
            self.assertEqual(set(world.end().values()), {0})
            self.assertIn("WARNING: could not find the metadata file", world.log(0))
            self.assertIn("    will not load any checkpoints and will start from random\n", world.log(0))
            self.assertEqual(LINE.findall(world.log(3))[0][7], "1.193206E+01")

    def test_impossible_layouts_and_unknown_flags_are_refused_by_name(self):
        for words, code, said in (
            (self.flags(), 1, "world size 1 is not divisible by 2 x 2"),
            (["--moe-router-topk", "2"], 2, "unrecognized argument: `--moe-router-topk`"),
            (["--bf16=yes"], 2, "`--bf16`"),
            (["--lr"], 2, "argument `--lr` expects a value"),
            (["--train-iters", "many"], 2, "argument `--train-iters`: `many` is not a number"),
            (["--micro-batch-size", "0"], 2, "`--micro-batch-size` must be at least 1"),
            (["--global-batch-size", "3", "--micro-batch-size", "2"], 1, "not divisible by micro batch size (2)"),
            (["--fail", "1:2:explode"], 2, "`1:2:explode`"),
            (["--fail", "1:2:exit256"], 2, "`1:2:exit256`"),
            (["--load", str(self.directory), "--exit-on-missing-checkpoint"], 255, "could not find the metadata file"),
            (["--load", str(self.directory), "--ckpt-step", "9"], 1, "does not exist"),
        ):
            environ = {k: v for k, v in os.environ.items() if not k.startswith("MS_")}
            done = subprocess.run([sys.executable, SCRIPT] + words, env=environ, stdin=subprocess.DEVNULL, timeout=LIMIT,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
            self.assertEqual(done.returncode, code, (words, done.stdout))
            self.assertIn(said, done.stdout)

    def test_a_truncated_shard_is_not_loaded(self):
        with self.world() as world:
            world.end()
        path = self.save / "iter_0000006/mp_rank_01_001/model_optim_rng.pt"
        path.write_bytes(path.read_bytes()[:-30])
        with self.world("--load", str(self.save), "--collective-timeout", "1", iterations=9) as world:
            codes = world.end_ranks()
            self.assertIn("is truncated", world.log(3))
            self.assertNotIn(0, codes.values())
        self.assertEqual(self.tracker(), "6")

    def test_every_kind_of_failure_takes_the_peers_with_it(self):
        for how, code in (("exit3", 3), ("exit 7", 7), ("kill", -signal.SIGKILL), ("exception", 1)):
            with self.subTest(how):
                with self.world("--fail", "1:4:" + how, "--collective-timeout", "1") as world:
                    codes = world.end_ranks()
                    self.assertEqual(codes[1], code)
                    for rank in (0, 2, 3):
                        self.assertEqual(codes[rank], 1)
                        self.assertIn("wait receiving failed: peer lost", world.log(rank))
                    self.assertEqual(self.iterations(world.log(3)), [1, 2, 3])
                self.assertEqual(self.tracker(), "3")

    def test_a_torn_save_leaves_half_a_shard_and_the_tracker_as_it_was(self):
        with self.world("--fail", "1:6:torn", "--collective-timeout", "1") as world:
            self.assertEqual(world.end_ranks()[1], -signal.SIGKILL)
        size = lambda iteration: (self.save / ("iter_%07d/mp_rank_01_000/model_optim_rng.pt" % iteration)).stat().st_size
        self.assertLess(size(6), 0.6 * size(3))
        self.assertEqual(self.tracker(), "3")

    def test_optimizer_state_is_loaded_where_it_is_asked_for_and_there(self):
        with self.world("--no-save-optim", iterations=2, interval=1) as world:
            self.assertEqual(set(world.end().values()), {0})
        load = ["--load", str(self.save)]
        with self.world(*load, iterations=3, interval=0) as world:
            self.assertEqual(set(world.end_ranks().values()), {1})
            self.assertIn("Unable to load optimizer from checkpoint", world.log(0))
        with self.world(*load, "--no-load-optim", iterations=3, interval=1) as world:
            self.assertEqual(set(world.end().values()), {0})
            self.assertIn("stand-in: the optimizer begins afresh\n", world.log(0))
        with self.world(*load, iterations=4, interval=0) as world:
            self.assertEqual(set(world.end().values()), {0})
            self.assertIn("stand-in: the optimizer goes on\n", world.log(0))

    def test_a_hanging_rank_stays_while_its_peers_give_up(self):
        with self.world("--fail", "2:2:hang", "--collective-timeout", "1", "--exit-signal-handler") as world:
            for rank in (0, 1, 3):
                self.assertEqual(world.processes[rank].wait(LIMIT), 1)
            world.processes[2].send_signal(signal.SIGTERM)
            with self.assertRaises(subprocess.TimeoutExpired):
                world.processes[2].wait(0.5)

    def test_a_failure_strikes_in_the_first_attempt_only_unless_told(self):
        for attempt, more, code in (("1", (), 5), ("2", (), 0), ("2", ("--fail-always",), 5)):
            with self.subTest(attempt=attempt, more=more):
                with self.world("--fail", "0:2:exit5", "--collective-timeout", "1", *more,
                                environ={"QCTL_ATTEMPT_NUMBER": attempt}) as world:
                    self.assertEqual(world.end_ranks()[0], code)

    def test_the_scheduler_outlives_a_lost_rank_by_its_timeout(self):
        with self.world("--fail", "3:1:kill", "--collective-timeout", "1") as world:
            world.end_ranks()
            self.assertIsNone(world.processes["scheduler"].poll())
            self.assertEqual(world.end()["scheduler"], 1)
            self.assertIn("rank 3 was lost", world.log("scheduler"))

    def test_sigterm_to_one_rank_saves_on_all_and_ends_with_0(self):
        with self.world("--exit-signal-handler", iterations=100000, interval=100000, step=20) as world:
            world.until(lambda: len(self.iterations(world.log(3))) >= 3)
            world.processes[2].send_signal(signal.SIGTERM)
            self.assertEqual(set(world.end().values()), {0})
            last = self.iterations(world.log(3))[-1]
            self.assertIn("exiting program after receiving SIGTERM.", world.log(0))
        self.assertEqual(self.tracker(), str(last))
        self.assertEqual(len(self.shards(last)), 4)

    def test_sigterm_without_the_handler_kills_and_saves_nothing(self):
        with self.world("--collective-timeout", "1", iterations=100000, interval=100000) as world:
            world.until(lambda: self.iterations(world.log(3)))
            world.processes[0].send_signal(signal.SIGTERM)
            self.assertEqual(world.end_ranks()[0], -signal.SIGTERM)
        self.assertFalse(self.save.exists())

    def test_a_lost_scheduler_ends_every_rank_by_a_signal(self):
        with self.world("--exit-signal-handler", iterations=100000) as world:
            world.until(lambda: self.iterations(world.log(3)))
            world.processes["scheduler"].kill()
            self.assertEqual(set(world.end_ranks().values()), {-signal.SIGTERM})

    def test_the_scheduler_runs_from_its_own_script_too(self):
        with self.world(scheduler=(str(HERE / "scheduler.py"),)) as world:
            self.assertEqual(set(world.end().values()), {0})
            self.assertIn("all 4 ranks have joined", world.log("scheduler"))

    def test_a_taken_port_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            environ = dict(os.environ, MS_ROLE="MS_SCHED", MS_SCHED_HOST="127.0.0.1", MS_SCHED_PORT=str(taken.getsockname()[1]))
            done = subprocess.run([sys.executable, SCRIPT], env=environ, stdin=subprocess.DEVNULL, timeout=LIMIT,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Failed to init the tcp server", done.stdout)

    def test_it_starts_in_under_a_tenth_of_a_second(self):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("MS_")}
        taken = []
        for _ in range(10):
            began = time.monotonic()
            subprocess.run([sys.executable, "-S", "-E", SCRIPT, "--train-iters", "0"], env=environ, check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=LIMIT)
            taken.append(time.monotonic() - began)
        self.assertLess(min(taken), 0.1)

    def test_it_imports_its_own_modules_and_the_standard_library_alone(self):
        probe = ("import sys; sys.argv[1:] = ['--train-iters', '0']; sys.path.insert(0, %r); import pretrain_gpt;"
                 "pretrain_gpt.main(); print(sorted(m for m in sys.modules if 'site-packages' in"
                 " (getattr(sys.modules[m], '__file__', None) or '')))" % str(HERE))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("MS_")}
        done = subprocess.run([sys.executable, "-S", "-c", probe], env=environ, check=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, universal_newlines=True, timeout=LIMIT)
        self.assertEqual(done.stdout.splitlines()[-1], "[]")


if __name__ == "__main__":
    unittest.main()
