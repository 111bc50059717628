"""Names and shapes of a rank's weights, in Megatron's order, and their random start."""

import zlib

import numpy as np


def shard_shapes(a, pp_rank: int) -> dict:
    """Name -> shape of every tensor that a rank of this pipeline stage holds."""
    tp, h, d = a.tensor_model_parallel_size, a.hidden_size, a.kv_channels
    qkv = (a.num_attention_heads + 2 * a.num_query_groups) * d // tp
    rows, f = a.padded_vocab_size // tp, a.ffn_hidden_size // tp
    last = pp_rank == a.pipeline_model_parallel_size - 1
    out = {}
    if pp_rank == 0:
        out["embedding.word_embeddings.weight"] = (rows, h)
    for i in range(a.num_layers // a.pipeline_model_parallel_size):
        at = f"decoder.layers.{i}."
        out[at + "input_layernorm.weight"] = (h,)
        out[at + "self_attention.linear_proj.weight"] = (h, a.num_attention_heads * d // tp)
        out[at + "self_attention.linear_qkv.weight"] = (qkv, h)
        if a.add_qkv_bias:
            out[at + "self_attention.linear_qkv.bias"] = (qkv,)
        out[at + "pre_mlp_layernorm.weight"] = (h,)
        out[at + "mlp.linear_fc1.weight"] = (2 * f, h)
        out[at + "mlp.linear_fc2.weight"] = (h, f)
    if last:
        out["decoder.final_layernorm.weight"] = (h,)
        if a.untie_embeddings_and_output_weights or pp_rank > 0:
            out["output_layer.weight"] = (rows, h)
    return out


def replicated(name: str) -> bool:
    """Whether all tensor-parallel ranks hold the same values."""
    return name.endswith("layernorm.weight")


def decays(name: str) -> bool:
    """Weight decay spares norms and biases."""
    return not (name.endswith("layernorm.weight") or name.endswith(".bias"))


def random_start(a, tp_rank: int, pp_rank: int) -> dict:
    """Megatron-like initial weights (normal; the two output projections scaled down by depth).

    A tensor's values depend on the seed, its global name and the slice, not on other tensors.
    """
    out = {}
    per_stage = a.num_layers // a.pipeline_model_parallel_size
    for name, shape in shard_shapes(a, pp_rank).items():
        if replicated(name):
            out[name] = np.ones(shape, np.float32)
            continue
        if name.endswith(".bias"):
            out[name] = np.zeros(shape, np.float32)
            continue
        parts = name.split(".")
        if parts[1] == "layers":
            parts[2] = str(int(parts[2]) + pp_rank * per_stage)
        if name == "output_layer.weight" and not a.untie_embeddings_and_output_weights:
            parts = ["embedding", "word_embeddings", "weight"]
        key = zlib.crc32(f"{a.seed}/{tp_rank}/{'.'.join(parts)}".encode())
        std = a.init_method_std
        if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
            std /= (2.0 * a.num_layers) ** 0.5
        out[name] = (np.random.RandomState(key).standard_normal(shape) * std).astype(np.float32)
    return out
