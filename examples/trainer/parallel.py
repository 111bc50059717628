"""Tensor and pipeline parallelism out of one collective: the world's AllReduce.

MindSpore's CPU backend has neither sub-groups nor send and receive. A sum
within one stage is therefore a sum over the world to which all other stages
give zeros, and a transfer is a sum to which only the sender gives something;
both are exact. Every rank must take part in every collective, so each stage
knows how many the others need and joins them while it would otherwise wait.
"""

import mindspore as ms
from mindspore import nn, ops

from seat import Seat


class World(Seat):
    """A seat with the collectives."""

    def __init__(self, rank: int, tp: int, pp: int):
        super().__init__(rank, tp, pp)
        self._reduce = ops.AllReduce() if self.size > 1 else None
        self._zeros = {}

    def zeros(self, shape):
        if shape not in self._zeros:
            self._zeros[shape] = ops.zeros(shape, ms.float32)
        return self._zeros[shape]

    def sum(self, x):
        """Sum over all ranks of the world."""
        return self._reduce(x) if self.size > 1 else x

    def tp_sum(self, x):
        """Sum over the ranks of this stage; the other stages are `idle` meanwhile."""
        return self._reduce(x) if self.tp > 1 else x

    def idle(self, shape):
        """Joins a `tp_sum` of another stage."""
        if self.tp > 1:
            self._reduce(self.zeros(shape))

    def transfer(self, x, sender: int, shape):
        """Moves `x` from stage `sender` to all; `x` is None on the others. Its ranks hold equal values: one gives."""
        give = self.pp_rank == sender and self.tp_rank == 0
        return self._reduce(x if give else self.zeros(shape))


class SumForward(nn.Cell):
    """Megatron's g: sums partial results of the stage's ranks; the gradient passes unchanged."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def construct(self, x):
        return self.world.tp_sum(x)

    def bprop(self, x, out, dout):
        return (dout,)


class SumBackward(nn.Cell):
    """Megatron's f: passes a value to all ranks of the stage; their gradients are summed."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def construct(self, x):
        return x

    def bprop(self, x, out, dout):
        return (self.world.tp_sum(dout),)


class Plan:
    """What the collectives of each stage look like, so that the others can join them.

    `hidden` is the shape of the activations, `small` that of the loss's reduction.
    """

    def __init__(self, world, layers: int, hidden, small):
        self.world, self.layers, self.hidden, self.small = world, layers, hidden, small

    def join_forward(self, stage: int):
        w = self.world
        for _ in range(2 * self.layers + (stage == 0)):
            w.idle(self.hidden)
        if stage == w.pp - 1:
            w.idle(self.small)

    def join_backward(self, stage: int):
        for _ in range(2 * self.layers + (stage == self.world.pp - 1)):
            self.world.idle(self.hidden)

    def receive(self):
        """Sits out the earlier stages' forward passes; returns the input of this one."""
        x = None
        for stage in range(self.world.pp_rank):
            self.join_forward(stage)
            x = self.world.transfer(None, stage, self.hidden)
        return x

    def finish_backward(self, gradient):
        """Hands the gradient to the stage before and sits out the rest of the backward pass."""
        for stage in range(self.world.pp_rank, 0, -1):
            self.world.transfer(gradient if stage == self.world.pp_rank else None, stage, self.hidden)
            self.join_backward(stage - 1)


class Onward(nn.Cell):
    """The end of a stage that is not the last: its output goes forth, its gradient comes back."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan

    def construct(self, h):
        w, plan = self.plan.world, self.plan
        w.transfer(h, w.pp_rank, plan.hidden)
        for stage in range(w.pp_rank + 1, w.pp):
            plan.join_forward(stage)
            if stage < w.pp - 1:
                w.transfer(None, stage, plan.hidden)
        return h

    def bprop(self, h, out, dout):
        w, plan = self.plan.world, self.plan
        gradient = None
        for stage in range(w.pp - 1, w.pp_rank, -1):
            plan.join_backward(stage)
            gradient = w.transfer(None, stage, plan.hidden)
        return (gradient,)
