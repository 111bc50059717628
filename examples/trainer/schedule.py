"""Learning rate as a function of samples consumed since the optimizer began.

The step of an iteration uses the rate at the samples consumed *before* it,
and the log line shows the rate after it, as in Megatron: with a warm-up the
first step therefore has a rate of zero.
"""

import math


class Schedule:
    """Warm-up from zero, then constant, linear or cosine decay to `min_lr`; all lengths in samples."""

    def __init__(self, a):
        decay_iters = a.lr_decay_iters or a.train_iters
        self.decay = decay_iters * a.global_batch_size
        self.warmup = (a.lr_warmup_fraction * self.decay if a.lr_warmup_fraction is not None
                       else a.lr_warmup_iters * a.global_batch_size)
        if self.warmup >= self.decay:
            raise SystemExit(f"error: warm-up of {self.warmup:g} samples does not end before the decay at {self.decay}")
        self.max_lr, self.min_lr, self.style = a.lr, a.min_lr, a.lr_decay_style

    def at(self, samples: int) -> float:
        if self.warmup > 0 and samples <= self.warmup:
            return self.max_lr * samples / self.warmup
        if self.style == "constant":
            return self.max_lr
        if samples > self.decay:
            return self.min_lr
        ratio = (samples - self.warmup) / (self.decay - self.warmup)
        share = 1.0 - ratio if self.style == "linear" else 0.5 * (math.cos(math.pi * ratio) + 1.0)
        return self.min_lr + share * (self.max_lr - self.min_lr)
