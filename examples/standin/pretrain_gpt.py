"""A stand-in for a training rank: Megatron's flags, log lines and checkpoints, and no training.

For tests of what happens around training: it starts in a blink, steps at a fixed pace, and fails
when told to. Nothing is learnt: the loss is a formula, the shards hold no tensors. Only Python's
standard library is used.

Beside the training script's own flags (options.py lists them):

    --step-ms N              how long one iteration takes; 200 unless told
    --first-loss X           the loss at iteration 1; 2.0 unless told, ln(vocabulary) where --load found nothing
    --fail RANK:ITERATION:HOW   HOW is exitN, kill, hang, exception or torn; may be given more than once.
                             It strikes as that iteration begins, or for `torn` in the middle of
                             writing its shard; in the first attempt only (QCTL_ATTEMPT_NUMBER unset or 1)
    --fail-always            in every attempt
    --collective-timeout S   how long a rank waits for its peers; 30 unless told
    --record FILE            a line for whatever this rank completes: the boot clock's nanoseconds, QCTL_ATTEMPT, rank,
                             and `iteration N`, `saved N` or `tracker N`

The environment is MindSpore's: MS_ROLE, MS_WORKER_NUM, MS_NODE_ID, MS_SCHED_HOST, MS_SCHED_PORT.
With MS_ROLE=MS_SCHED this same script is the scheduler.
"""

import os
import signal
import sys
import time

import options
import shard
from collective import Alone, Collective, PeerLost, SchedulerLost


def say(text):
    print(text, flush=True)


def stamp(text):
    say("[%s] datetime: %s " % (text, time.strftime("%Y-%m-%d %H:%M:%S")))


class Failure:
    """What --fail asks of this rank."""

    def __init__(self, given, rank):
        attempt = os.environ.get("QCTL_ATTEMPT_NUMBER", "1")
        armed = given.fail_always or attempt == "1"
        self.at = {i: how for r, i, how in given.fail if r == rank and armed}

    def announce(self, iteration):
        print("stand-in: failing on purpose at iteration %d: %s" % (iteration, self.at[iteration]),
              file=sys.stderr, flush=True)

    def tears(self, iteration):
        return self.at.get(iteration) == "torn"

    def strike(self, iteration):
        how = self.at.get(iteration)
        if how is None or how == "torn":
            return
        self.announce(iteration)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exception":
            raise RuntimeError("a failure that was asked for")
        while how == "hang":  # As in a collective: signals with a Python handler are noted and do nothing.
            time.sleep(3600)
        sys.exit(int(how[len("exit"):]))


class Rank:
    def __init__(self, given, rank, world, peers):
        self.given, self.rank, self.world, self.peers = given, rank, world, peers
        tp, pp = given.tensor_model_parallel_size, given.pipeline_model_parallel_size
        if world % (tp * pp):
            sys.exit("error: world size %d is not divisible by %d x %d" % (world, tp, pp))
        self.dp_size = world // (tp * pp)
        self.tp, self.dp, self.pp = rank % tp, rank // tp % self.dp_size, rank // (tp * self.dp_size)
        if given.global_batch_size % (given.micro_batch_size * self.dp_size):
            sys.exit("error: global batch size (%d) is not divisible by micro batch size (%d) times data parallel size (%d)"
                     % (given.global_batch_size, given.micro_batch_size, self.dp_size))
        self.failure = Failure(given, rank)
        self.stop_wanted = False
        self.attempt = os.environ.get("QCTL_ATTEMPT", "-")
        self.first_loss = 2.0 if given.first_loss is None else given.first_loss

    def say_first(self, text):
        if self.rank == 0:
            say(text)

    def record(self, what):
        """One write at the end of the file, so that ranks may share it."""
        if self.given.record:
            line = "%d %s %d %s\n" % (time.clock_gettime_ns(time.CLOCK_BOOTTIME), self.attempt, self.rank, what)
            with open(self.given.record, "ab", buffering=0) as file:
                file.write(line.encode())

    def load(self):
        """The iteration to go on from; 0 where --load has none."""
        given = self.given
        if not given.load:
            return 0
        iteration = given.ckpt_step
        if iteration is None:
            iteration = shard.read_tracker(given.load)
        if iteration is None:
            self.say_first("WARNING: could not find the metadata file %s" % shard.tracker_path(given.load))
            if given.exit_on_missing_checkpoint:
                self.say_first(">> '--exit-on-missing-checkpoint' set ... exiting. <<")
                sys.exit(255)
            self.say_first("    will not load any checkpoints and will start from random")
            if given.first_loss is None and given.padded_vocab_size:
                self.first_loss = given.random_loss()
            return 0
        self.say_first(" loading checkpoint from %s at iteration %d" % (given.load, iteration))
        path = self.shard_path(given.load, iteration)
        shard.check(path)
        self.say_first(" checkpoint version 3.0")
        if given.finetune or given.no_load_optim:
            self.say_first("stand-in: the optimizer begins afresh")
        elif shard.has_optimizer(path):
            self.say_first("stand-in: the optimizer goes on")
        else:
            raise shard.Broken("Unable to load optimizer from checkpoint %s. Specify --no-load-optim or --finetune to "
                               "prevent attempting to load the optimizer state, exiting ..." % path)
        self.say_first("  successfully loaded checkpoint from %s [ t %d/%d, p %d/%d ] at iteration %d" % (
            given.load, self.tp + 1, given.tensor_model_parallel_size, self.pp + 1,
            given.pipeline_model_parallel_size, iteration))
        return 0 if given.finetune else iteration

    def shard_path(self, directory, iteration):
        return shard.path(directory, iteration, self.tp, self.pp, self.given.pipeline_model_parallel_size)

    def save(self, iteration):
        """Every shard by rename, then all ranks meet, then rank 0 names the iteration in the tracker."""
        given = self.given
        if not given.save:
            return
        self.say_first("saving checkpoint at iteration %7d to %s in torch format" % (iteration, given.save))
        if self.dp == 0:
            path = self.shard_path(given.save, iteration)
            tears = self.failure.tears(iteration)
            write = shard.write_half if tears else shard.write
            write(path, given.checkpoint_args(iteration), iteration, with_optimizer=not given.no_save_optim)
            if tears:
                self.failure.announce(iteration)
                os.kill(os.getpid(), signal.SIGKILL)
            self.record("saved %d" % iteration)
        self.peers.meet("saved-%d" % iteration)
        if self.rank == 0:
            shard.write_tracker(given.save, iteration)
            self.record("tracker %d" % iteration)
            say("  successfully saved checkpoint from iteration %7d to %s" % (iteration, given.save))
        self.peers.meet("tracked-%d" % iteration)

    def loss(self, iteration):
        return self.first_loss / (1.0 + 0.02 * (iteration - 1))

    def log(self, iteration, seconds):
        given = self.given
        if self.rank != self.world - 1 or iteration % given.log_interval:
            return
        speed = ""
        if given.log_throughput:
            flops = 6.0 * given.parameters() * given.seq_length * given.global_batch_size
            speed = " throughput per GPU (TFLOP/s/GPU): %.1f |" % (flops / (seconds * self.world * 1e12))
        say(" [%s] iteration %8d/%8d | consumed samples: %12d | elapsed time per iteration (ms): %.1f |%s"
            " learning rate: %.6E | global batch size: %5d | lm loss: %.6E | loss scale: 1.0 | grad norm: %.3f |"
            " number of skipped iterations: %3d | number of nan iterations: %3d |" % (
                time.strftime("%Y-%m-%d %H:%M:%S"), iteration, given.train_iters,
                iteration * given.global_batch_size, seconds * 1000, speed, given.learning_rate(iteration),
                given.global_batch_size, self.loss(iteration), 1.0 / iteration ** 0.5, 0, 0))

    def want_stop(self, *_):
        self.stop_wanted = True

    def train(self):
        given = self.given
        iteration = self.load()
        self.say_first("training ...")
        if self.rank == 0:
            stamp("before the start of training step")
        saved = iteration
        while iteration < given.train_iters:
            iteration += 1
            self.failure.strike(iteration)
            began = time.monotonic()
            time.sleep(given.step_ms / 1000)
            stop = self.peers.meet("iteration-%d" % iteration, self.stop_wanted)
            self.record("iteration %d" % iteration)
            self.log(iteration, time.monotonic() - began)
            if stop or (given.save_interval and iteration % given.save_interval == 0):
                self.save(iteration)
                saved = iteration
            if stop:
                if self.rank == 0:
                    stamp("exiting program after receiving SIGTERM.")
                return
        if self.rank == 0:
            stamp("after training is done")
        if saved != iteration:
            self.save(iteration)


def main():
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        import scheduler

        return scheduler.main()
    given = options.parse(sys.argv[1:])
    world = int(os.environ.get("MS_WORKER_NUM", "1"))
    rank = int(os.environ.get("MS_NODE_ID", os.environ.get("RANK_ID", "0")))
    if not 0 <= rank < world:
        sys.exit("error: MS_NODE_ID is %d, MS_WORKER_NUM is %d" % (rank, world))
    # Before the peers are met: a SIGTERM while they gather must not kill a rank that was to save.
    wanted = []
    if given.exit_signal_handler:
        signal.signal(signal.SIGTERM, lambda *_: wanted.append(True))
    try:
        peers = Collective(rank, world, given.collective_timeout) if world > 1 else Alone()
        me = Rank(given, rank, world, peers)
        if given.exit_signal_handler:
            signal.signal(signal.SIGTERM, me.want_stop)
            me.stop_wanted = bool(wanted)
        me.train()
        peers.leave()
    except PeerLost as error:
        print("RuntimeError: wait receiving failed: peer lost: %s" % error, file=sys.stderr, flush=True)
        return 1
    except SchedulerLost as error:
        # MindSpore's heartbeat thread ends the process by a signal, whatever Python's handlers say.
        print("scheduler lost: %s" % error, file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return 1
    except shard.Broken as error:
        print("error: %s" % error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
