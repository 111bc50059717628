"""AdamW with Megatron's conventions, over one flat float32 vector per rank.

Weight decay is decoupled and spares norms and biases. The gradient's norm is
the whole model's: replicated weights count once, a tied embedding once.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from shapes import decays, replicated


class Optimizer:
    def __init__(self, a, world, stage):
        self.a, self.world, self.stage = a, world, stage
        self.parameters = stage.parameters()
        self.sizes = [int(np.prod(p.shape)) for p in self.parameters]
        total = sum(self.sizes)
        self.master = ops.concat([p.value().reshape(-1) for p in self.parameters])
        self.m, self.v = ops.zeros(total, ms.float32), ops.zeros(total, ms.float32)
        self.steps = 0
        copy = "output_layer.weight" if stage.tied and not world.first and world.last else None
        self.decay = self._mask(lambda n: decays(n)) * a.weight_decay
        self.counts = self._mask(lambda n: n != copy and (world.tp_rank == 0 or not replicated(n)))
        self.shared = world.pp > 1 and stage.tied

    def _mask(self, test):
        parts = [np.full(n, float(test(p.name)), np.float32) for p, n in zip(self.parameters, self.sizes)]
        return Tensor(np.concatenate(parts))

    def flatten(self, gradients):
        return ops.concat([g.reshape(-1) for g in gradients])

    def tie(self, flat):
        """Sums the embedding's gradient with that of its copy in the last stage."""
        if not self.shared:
            return flat
        w, rows, h = self.world, self.stage.rows, self.a.hidden_size
        n, at = rows * h, None
        if w.first:
            at = 0
        elif w.last:
            at = len(flat) - n  # the copy is the last tensor of the last stage
        buffer = np.zeros((w.tp, n), np.float32)
        if at is not None:
            buffer[w.tp_rank] = flat[at: at + n].asnumpy()
        summed = w.sum(Tensor(buffer))
        if at is None:
            return flat
        return ops.concat((flat[:at], summed[w.tp_rank], flat[at + n:]))

    def square_norm(self, flat):
        """This rank's share of the squared norm, as a tensor of one element."""
        return ops.sum(flat * flat * self.counts).reshape(1)

    def step(self, flat, norm: float, lr: float):
        a = self.a
        if a.clip_grad > 0:
            scale = a.clip_grad / (norm + 1.0e-6)
            if scale < 1.0:
                flat = flat * scale
        self.steps += 1
        self.m = self.m * a.adam_beta1 + flat * (1.0 - a.adam_beta1)
        self.v = self.v * a.adam_beta2 + flat * flat * (1.0 - a.adam_beta2)
        first, second = 1.0 - a.adam_beta1 ** self.steps, 1.0 - a.adam_beta2 ** self.steps
        update = self.m * (1.0 / first) / (ops.sqrt(self.v * (1.0 / second)) + a.adam_eps)
        self.master = self.master - (update + self.master * self.decay) * lr
        self.publish()

    def publish(self):
        """Copies the master weights into the model."""
        for p, piece in zip(self.parameters, ops.split(self.master, self.sizes)):
            p.assign_value(piece.reshape(p.shape))

    def _named(self, flat):
        flat, out, at = flat.asnumpy(), {}, 0
        for p, n in zip(self.parameters, self.sizes):
            out[p.name] = flat[at: at + n].reshape(p.shape)
            at += n
        return out

    def weights(self) -> dict:
        return self._named(self.master)

    def state(self) -> dict:
        """Everything an exact resume needs; arrays are float32."""
        return {"step": self.steps, "fp32_params": self.weights(), "exp_avg": self._named(self.m), "exp_avg_sq": self._named(self.v)}

    def restore(self, state: dict):
        """Takes back what `state` gave; the caller has checked names and shapes."""
        join = lambda part: Tensor(np.concatenate([state[part][p.name].reshape(-1) for p in self.parameters]))  # noqa: E731
        self.steps, self.master = int(state["step"]), join("fp32_params")
        self.m, self.v = join("exp_avg"), join("exp_avg_sq")
        self.publish()
