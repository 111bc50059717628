#!/usr/bin/env python3
"""Trains a Qwen2-like model on the CPU under the command line of MindSpeed-LLM's `pretrain_gpt.py`."""

import atexit
import math
import os
import signal
import sys
import time
import traceback

import args as command_line
from trainlog import flops_per_iteration, memory_line, say, stamp, training_line

stop_asked = False
exit_code = 1


def end_quietly():
    """Ends the process after MindSpore has left its cluster, skipping the destructors of its libraries.

    They race with its network threads and now and then turn a finished run into a crash.
    """
    leave(exit_code)


def ask_to_stop(_signal, _frame):
    global stop_asked
    stop_asked = True


def join_world(a):
    """Enters MindSpore's cluster as the launcher's environment says; one rank without it works alone."""
    import mindspore as ms
    from parallel import World
    ms.set_device("CPU")
    # Queued dispatch spins several threads per rank, which costs a multiple of the work itself where ranks share cores.
    ms.set_context(pynative_synchronize=True, runtime_num_threads=1)
    rank, size = 0, 1
    if os.environ.get("MS_ROLE"):
        from mindspore.communication import get_group_size, get_rank, init
        init()
        rank, size = get_rank(), get_group_size()
    command_line.check_world(a, size)
    return World(rank, a.tensor_model_parallel_size, a.pipeline_model_parallel_size)


def maybe_fail(a, world, iteration):
    """The injected fault, in the first attempt only: a restarted job must be able to pass the same point."""
    if a.fail and a.fail[:2] == (world.rank, iteration) and os.environ.get("QCTL_ATTEMPT_NUMBER", "1") in ("", "1"):
        _, _, how, code = a.fail
        say(f"[Rank {world.rank}] injected fault at iteration {iteration}: {how}{code if how == 'exit' else ''}")
        if how == "exit":
            os._exit(code)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exception":
            raise RuntimeError(f"injected fault at iteration {iteration}")
        while True:
            signal.pause()


class Trainer:
    def __init__(self, a, world, samples):
        import checkpoint
        from network import Microbatch, Stage
        from optimizer import Optimizer
        from schedule import Schedule
        from shapes import random_start
        self.a, self.world, self.samples, self.schedule = a, world, samples, Schedule(a)
        loaded = checkpoint.load(a, world)
        weights = loaded.weights if loaded else random_start(a, world.tp_rank, world.pp_rank)
        self.stage = Stage(a, world, weights)
        self.optimizer = Optimizer(a, world, self.stage)
        self.microbatch = Microbatch(self.stage)
        self.iteration = self.consumed = self.schedule_samples = 0
        if loaded:
            self.iteration, self.consumed = loaded.iteration, loaded.consumed
            if loaded.optimizer:
                self.optimizer.restore(loaded.optimizer)
                self.schedule_samples = loaded.schedule_samples
            if world.rank == 0:
                say(" checkpoint version 3.0")
                say(f"  successfully loaded checkpoint from {a.load} [ t 1/{world.tp}, p 1/{world.pp} ] at iteration {self.iteration}")

    def barrier(self):
        self.agree([])

    def agree(self, values):
        """Sums a few numbers over the world; returns them as floats."""
        import numpy as np
        from mindspore import Tensor
        total = self.world.sum(Tensor(np.array([*values, 1.0], np.float32))).asnumpy()
        if total[-1] != self.world.size:
            raise RuntimeError(f"{total[-1]} of {self.world.size} ranks answered")
        return [float(x) for x in total[:-1]]

    def step(self):
        """One iteration; returns (loss, gradient norm, whether someone was told to stop)."""
        a, count = self.a, self.a.global_batch_size // self.a.micro_batch_size
        total, loss = None, 0.0
        for i in range(count):
            window = self.samples.batch(self.consumed + i * a.micro_batch_size, a.micro_batch_size)
            part, gradients = self.microbatch(window)
            flat = self.optimizer.flatten(gradients)
            total = flat if total is None else total + flat
            if self.world.last:
                loss += float(part.asnumpy()) / count
        if count > 1:
            total = total * (1.0 / count)
        total = self.optimizer.tie(total)
        mine = loss if self.world.last and self.world.tp_rank == 0 else 0.0
        square = float(self.optimizer.square_norm(total).asnumpy()[0])
        loss, square, stops = self.agree([mine, square, float(stop_asked)])
        if not (math.isfinite(loss) and math.isfinite(square)):
            raise RuntimeError(f"found NaN or infinity at iteration {self.iteration + 1}: lm loss {loss}, squared gradient norm {square}")
        norm = math.sqrt(square)
        self.optimizer.step(total, norm, self.schedule.at(self.schedule_samples))
        self.iteration += 1
        self.consumed += a.global_batch_size
        self.schedule_samples += a.global_batch_size
        return loss, norm, stops > 0

    def save(self):
        import checkpoint
        checkpoint.save(self.a, self.world, self.iteration, self.consumed, self.optimizer, self.schedule_samples, self.barrier)

    def run(self):
        a, world = self.a, self.world
        if world.rank == 0:
            say("training ...")
            say(f"[before the start of training step] datetime: {stamp()} ")
        losses, began, saved, reported = [], time.monotonic(), self.iteration, False
        while self.iteration < a.train_iters:
            maybe_fail(a, world, self.iteration + 1)
            loss, norm, stop = self.step()
            losses.append(loss)
            if self.iteration % a.log_interval == 0:
                elapsed = (time.monotonic() - began) / len(losses)
                if world.rank == world.size - 1:
                    flops = flops_per_iteration(a) / (elapsed * 1e12 * world.size) if a.log_throughput else None
                    say(training_line(self.iteration, a.train_iters, self.consumed, elapsed * 1e3,
                                      self.schedule.at(self.schedule_samples), a.global_batch_size,
                                      sum(losses) / len(losses), norm, 0, flops))
                losses, began = [], time.monotonic()
                if not reported:
                    say(memory_line(world.rank, self.iteration))
                    reported = True
            if a.save and a.save_interval and self.iteration % a.save_interval == 0:
                self.save()
                saved = self.iteration
            if stop and a.exit_signal_handler:
                if a.save and saved != self.iteration:
                    self.save()
                if world.rank == 0:
                    say(f"exiting program after receiving SIGTERM. datetime: {stamp()} ")
                return
        if world.rank == 0:
            say(f"[after training is done] datetime: {stamp()} ")
        if a.save and saved != self.iteration:
            self.save()


def main():
    global exit_code
    a = command_line.parse()
    from data import NoData, Samples
    try:
        # Before the world is joined: a wrong path must not cost a rendezvous.
        samples = Samples(a.data_path[0], a.seq_length, a.seed, a.split, a.padded_vocab_size)
    except NoData as e:
        say(f"error: {e}")
        say("no data loaded, you might give wrong data path.")
        return 1
    atexit.register(end_quietly)  # before MindSpore registers its own: the last registered runs first
    world = join_world(a)
    if a.exit_signal_handler:
        signal.signal(signal.SIGTERM, ask_to_stop)
    from checkpoint import LoadError
    try:
        Trainer(a, world, samples).run()
    except LoadError as e:
        say(f"error: {e}")
        leave(1)
    except Exception:
        traceback.print_exc()
        leave(1)
    exit_code = 0
    return 0


def leave(code):
    """Ends at once: an orderly end would wait for peers that this failure leaves behind."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
