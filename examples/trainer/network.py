"""One rank's part of the model: its pipeline stage, its tensor-parallel slices, in float32.

Weights are stored as Megatron stores them ([out, in]; fused QKV interleaved
by query group; gate above up), so a checkpoint shard loads without change.
Activations are [tokens, hidden] with tokens = batch x sequence.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from parallel import Onward, Plan, SumBackward, SumForward
from shapes import shard_shapes


class Norm(nn.Cell):
    """RMSNorm with its gradient written out: fewer kernels than differentiating it."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def construct(self, x, w):
        return x * ops.rsqrt(ops.mean(x * x, -1, True) + self.eps) * w

    def bprop(self, x, w, out, dout):
        r = ops.rsqrt(ops.mean(x * x, -1, True) + self.eps)
        n = x * r
        g = dout * w
        return (g - n * ops.mean(g * n, -1, True)) * r, ops.sum(dout * n, 0)


class Loss(nn.Cell):
    """Mean cross-entropy over a vocabulary that is split among the stage's ranks.

    One small reduction carries each rank's log-sum-exp and the target's logit;
    the probabilities of all ranks never meet.
    """

    def __init__(self, world, rows):
        super().__init__()
        self.world, self.first_row, self.rows = world, world.tp_rank * rows, rows
        self.logits = ops.MatMul(transpose_b=True)
        self.outer = ops.MatMul(transpose_a=True)
        slot = np.zeros((world.tp, 1, 1), np.float32)
        slot[world.tp_rank] = 1.0
        self.slot = Tensor(slot)
        self.kept = None

    def construct(self, h, w, target):
        logits = self.logits(h, w)
        p = ops.softmax(logits, -1)
        local = target - self.first_row
        mine = ops.logical_and(local >= 0, local < self.rows).astype(ms.float32)
        row = ops.clamp(local, 0, self.rows - 1)
        hit = ops.gather_elements(logits, 1, row.reshape(-1, 1)).reshape(-1) * mine
        top = ops.amax(logits, -1)
        lse = top - ops.log(ops.amax(p, -1))
        parts = self.world.tp_sum(ops.stack((lse, hit)).expand_dims(0) * self.slot)
        top = ops.amax(parts[:, 0], 0)
        total = top + ops.log(ops.sum(ops.exp(parts[:, 0] - top), 0))
        self.kept = (p, ops.exp(lse - total), mine, row)
        return ops.mean(total - ops.sum(parts[:, 1], 0))

    def bprop(self, h, w, target, out, dout):
        p, share, mine, row = self.kept
        self.kept = None
        scale = dout / h.shape[0]
        share, mine = (share * scale).reshape(-1, 1), (mine * scale).reshape(-1, 1)
        hit = h * mine
        dh = ops.matmul(p, w) * share - ops.gather(w, row, 0) * mine
        dw = self.outer(p, h * share)
        dw = ops.tensor_scatter_sub(dw, row.reshape(-1, 1), hit)
        return self.world.tp_sum(dh), dw, ops.zeros_like(target)


class Stage(nn.Cell):
    """Embedding (first stage), layers, final norm and output (last stage)."""

    def __init__(self, a, world, weights):
        super().__init__()
        self.world, self.layers = world, a.num_layers // world.pp
        self.batch, self.seq = a.micro_batch_size, a.seq_length
        self.groups = a.num_query_groups // world.tp
        self.per_group = a.num_attention_heads // a.num_query_groups
        self.d = a.kv_channels
        self.rows = a.padded_vocab_size // world.tp
        self.bias = a.add_qkv_bias
        tokens = self.batch * self.seq
        self.plan = Plan(world, self.layers, (tokens, a.hidden_size), (world.tp, 2, tokens))
        self.names = list(shard_shapes(a, world.pp_rank))
        self.weights = {n: Parameter(Tensor(weights[n]), name=n) for n in self.names}
        self.linear = ops.MatMul(transpose_b=True)
        self.norm = Norm(a.norm_epsilon)
        self.f, self.g = SumBackward(world), SumForward(world)
        self.onward = Onward(self.plan)
        self.loss = Loss(world, self.rows)
        self.tied = not a.untie_embeddings_and_output_weights
        self._tables(a.rotary_base)

    def parameters(self):
        return [self.weights[n] for n in self.names]

    def _tables(self, base):
        """Rotary angles of the half-rotation form and the causal mask, spread to full size: broadcasts are slow."""
        b, s, g, r, d = self.batch, self.seq, self.groups, self.per_group, self.d
        angle = np.outer(np.arange(s), base ** (-np.arange(0, d, 2) / d))
        angle = np.concatenate((angle, angle), 1)
        full = (b, g, r + 1, s, d)
        self.cos = Tensor(np.broadcast_to(np.cos(angle), full).astype(np.float32).copy())
        # The half that turns into the other carries the sign: rotate(x) = (-x2, x1) = swap(x) * (-1, +1).
        sign = np.where(np.arange(d) < d // 2, -1.0, 1.0)
        self.sin = Tensor(np.broadcast_to(np.sin(angle) * sign, full).astype(np.float32).copy())
        mask = np.triu(np.full((s, s), -1e9, np.float32), 1)
        self.mask = Tensor(np.broadcast_to(np.tile(mask, (r, 1)), (b * g, r * s, s)).copy())

    def embed(self, tokens):
        local = tokens - self.world.tp_rank * self.rows
        mine = ops.logical_and(local >= 0, local < self.rows).astype(ms.float32).reshape(-1, 1)
        row = ops.clamp(local, 0, self.rows - 1)
        return self.g(ops.gather(self.weights["embedding.word_embeddings.weight"], row, 0) * mine)

    def attention(self, x, at):
        b, s, g, r, d = self.batch, self.seq, self.groups, self.per_group, self.d
        w = self.weights
        y = self.linear(x, w[at + "linear_qkv.weight"])
        if self.bias:
            y = y + w[at + "linear_qkv.bias"]
        y = y.reshape(b, s, g, r + 2, d).transpose(0, 2, 3, 1, 4)
        qk, v = ops.split(y, [r + 1, 1], 2)
        low, high = ops.split(qk, d // 2, 4)
        qk = qk * self.cos + ops.concat((high, low), 4) * self.sin
        q, k = ops.split(qk, [r, 1], 2)
        q, k, v = q.reshape(b * g, r * s, d), k.reshape(b * g, s, d), v.reshape(b * g, s, d)
        p = ops.softmax(ops.bmm(q, k.transpose(0, 2, 1)) * (1.0 / d ** 0.5) + self.mask, -1)
        o = ops.bmm(p, v).reshape(b, g * r, s, d).transpose(0, 2, 1, 3).reshape(b * s, g * r * d)
        return self.linear(o, w[at + "linear_proj.weight"])

    def mlp(self, x, at):
        y = self.linear(x, self.weights[at + "linear_fc1.weight"])
        gate, up = ops.split(y, y.shape[1] // 2, 1)
        return self.linear(ops.silu(gate) * up, self.weights[at + "linear_fc2.weight"])

    def body(self, x):
        for i in range(self.layers):
            at = f"decoder.layers.{i}."
            n = self.norm(x, self.weights[at + "input_layernorm.weight"])
            x = x + self.g(self.attention(self.f(n), at + "self_attention."))
            n = self.norm(x, self.weights[at + "pre_mlp_layernorm.weight"])
            x = x + self.g(self.mlp(self.f(n), at + "mlp."))
        return x

    def construct(self, x, target):
        """Tokens or the previous stage's output in; the loss out (on the last stage)."""
        if self.world.first:
            x = self.embed(x)
        x = self.body(x)
        if not self.world.last:
            return ops.sum(self.onward(x))
        x = self.norm(x, self.weights["decoder.final_layernorm.weight"])
        shared = self.tied and self.world.first
        return self.loss(x, self.weights["embedding.word_embeddings.weight" if shared else "output_layer.weight"], target)


class Microbatch:
    """Forward and backward of one microbatch in lock step with all other ranks."""

    def __init__(self, stage: Stage):
        self.stage, self.world = stage, stage.world
        self.run = ms.value_and_grad(stage, None if self.world.first else 0, stage.parameters())

    def __call__(self, window: np.ndarray):
        """`window` is [micro batch, sequence + 1]; returns (loss, gradients); the loss counts on the last stage only."""
        target = Tensor(np.ascontiguousarray(window[:, 1:]).reshape(-1).astype(np.int32))
        if self.world.first:
            x = Tensor(np.ascontiguousarray(window[:, :-1]).reshape(-1).astype(np.int32))
            return self.run(x, target)
        loss, (dx, gradients) = self.run(self.stage.plan.receive(), target)
        self.stage.plan.finish_backward(dx)
        return loss, gradients
