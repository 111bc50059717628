"""A small Hugging Face model, its straightforward conversion to Megatron shards, and token files, for the tests."""

import json
import os
import struct
import sys
import tempfile
import unittest
from argparse import Namespace

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import pickle_pt  # noqa: E402

REFERENCE = os.environ.get("QCTL_REFERENCE_DATA", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "..", "shared"))
CONFIG = dict(model_type="qwen2", hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
              num_key_value_heads=2, vocab_size=96, rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False,
              torch_dtype="bfloat16", max_position_embeddings=64)


class Folder(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.dir = held.name

    def path(self, *names):
        return os.path.join(self.dir, *names)


def read(path, mode="r"):
    """The whole of a file."""
    with open(path, mode) as f:
        return f.read()


def make_weights(c, seed=0, std=0.3):
    """Weights large enough that every part of the model matters to the loss; values are exact in bfloat16."""
    rng = np.random.RandomState(seed)
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    d = h // c["num_attention_heads"]
    kv = d * c["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (v, h)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for n, s in {"self_attn.q_proj.weight": (h, h), "self_attn.k_proj.weight": (kv, h), "self_attn.v_proj.weight": (kv, h),
                     "self_attn.q_proj.bias": (h,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,),
                     "self_attn.o_proj.weight": (h, h), "mlp.gate_proj.weight": (f, h), "mlp.up_proj.weight": (f, h),
                     "mlp.down_proj.weight": (h, f), "input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,)}.items():
            shapes[at + n] = s
    out = {}
    for n, s in shapes.items():
        values = rng.standard_normal(s).astype(np.float32) * std + (1.0 if n.endswith("norm.weight") else 0.0)
        out[n] = pickle_pt.bf16_to_f32(pickle_pt.f32_to_bf16(values))
    return out


def write_hf(folder, c, weights):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f)
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for n, w in weights.items():
        raw = pickle_pt.f32_to_bf16(w).astype("<u2").tobytes()
        header[n] = {"dtype": "BF16", "shape": list(w.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + body)


def write_shards(folder, c, w, tp, pp):
    """Hugging Face to Megatron, one (tp, pp) shard at a time, bfloat16, iteration 1."""
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    per, d = c["num_hidden_layers"] // pp, c["hidden_size"] // heads
    r = heads // groups
    for p in range(pp):
        for t in range(tp):
            def rows(x):
                return np.split(x, tp, 0)[t]

            def columns(x):
                return np.split(x, tp, 1)[t]

            m = {}
            if p == 0:
                m["embedding.word_embeddings.weight"] = rows(w["model.embed_tokens.weight"])
            for i in range(per):
                old, new = f"model.layers.{p * per + i}.", f"decoder.layers.{i}."

                def qkv(kind):
                    q, k, v = (w[f"{old}self_attn.{x}_proj.{kind}"] for x in "qkv")
                    blocks = []
                    for g in range(t * groups // tp, (t + 1) * groups // tp):
                        blocks += [q[g * r * d: (g + 1) * r * d], k[g * d: (g + 1) * d], v[g * d: (g + 1) * d]]
                    return np.concatenate(blocks)

                m[new + "input_layernorm.weight"] = w[old + "input_layernorm.weight"]
                m[new + "self_attention.linear_proj.weight"] = columns(w[old + "self_attn.o_proj.weight"])
                m[new + "self_attention.linear_proj._extra_state"] = None
                m[new + "self_attention.linear_qkv.weight"] = qkv("weight")
                m[new + "self_attention.linear_qkv.bias"] = qkv("bias")
                m[new + "pre_mlp_layernorm.weight"] = w[old + "post_attention_layernorm.weight"]
                m[new + "mlp.linear_fc1.weight"] = np.concatenate([rows(w[old + "mlp.gate_proj.weight"]), rows(w[old + "mlp.up_proj.weight"])])
                m[new + "mlp.linear_fc2.weight"] = columns(w[old + "mlp.down_proj.weight"])
            if p == pp - 1:
                m["decoder.final_layernorm.weight"] = w["model.norm.weight"]
                if not c["tie_word_embeddings"]:
                    m["output_layer.weight"] = rows(w["lm_head.weight"])
                elif pp > 1:
                    m["output_layer.weight"] = rows(w["model.embed_tokens.weight"])
            name = f"mp_rank_{t:02d}" + (f"_{p:03d}" if pp > 1 else "")
            shard = os.path.join(folder, "iter_0000001", name)
            os.makedirs(shard, exist_ok=True)
            args = Namespace(num_layers=c["num_hidden_layers"], hidden_size=c["hidden_size"], num_attention_heads=heads,
                             tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
            state = {"args": args, "checkpoint_version": 3.0, "iteration": 1,
                     "model": {k: None if v is None else pickle_pt.Bf16(v) for k, v in m.items()}}
            pickle_pt.save(state, os.path.join(shard, "model_optim_rng.pt"))
    with open(os.path.join(folder, "latest_checkpointed_iteration.txt"), "w") as f:
        f.write("1")


def merge_shards(c, shards):
    """Megatron to Hugging Face: the inverse of `write_shards`; `shards[t, p]` maps names to arrays."""
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    d, r = c["hidden_size"] // heads, heads // groups
    tp, pp = (max(k[i] for k in shards) + 1 for i in (0, 1))
    per, out = c["num_hidden_layers"] // pp, {}

    def join(p, name, axis):
        return np.concatenate([shards[t, p][name] for t in range(tp)], axis)

    out["model.embed_tokens.weight"] = join(0, "embedding.word_embeddings.weight", 0)
    for layer in range(c["num_hidden_layers"]):
        p, old, new = layer // per, f"decoder.layers.{layer % per}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            block = join(p, f"{old}self_attention.linear_qkv.{kind}", 0)
            block = block.reshape(groups, r + 2, d, *block.shape[1:])
            for name, part in (("q", block[:, :r]), ("k", block[:, r]), ("v", block[:, r + 1])):
                out[f"{new}self_attn.{name}_proj.{kind}"] = part.reshape(-1, *block.shape[3:])
        out[new + "self_attn.o_proj.weight"] = join(p, old + "self_attention.linear_proj.weight", 1)
        halves = [np.split(shards[t, p][old + "mlp.linear_fc1.weight"], 2) for t in range(tp)]
        for i, name in enumerate(("gate", "up")):
            out[f"{new}mlp.{name}_proj.weight"] = np.concatenate([h[i] for h in halves])
        out[new + "mlp.down_proj.weight"] = join(p, old + "mlp.linear_fc2.weight", 1)
        out[new + "input_layernorm.weight"] = shards[0, p][old + "input_layernorm.weight"]
        out[new + "post_attention_layernorm.weight"] = shards[0, p][old + "pre_mlp_layernorm.weight"]
    out["model.norm.weight"] = shards[0, pp - 1]["decoder.final_layernorm.weight"]
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = join(pp - 1, "output_layer.weight", 0)
    return out


def write_tokens(prefix, vocab, documents=120, seed=3):
    """Documents whose next token mostly follows from the last one, so that there is something to learn."""
    rng = np.random.RandomState(seed)
    follow = np.random.RandomState(99).randint(0, vocab, vocab)
    docs = []
    for _ in range(documents):
        doc = [int(rng.randint(vocab))]
        for _ in range(int(rng.randint(3, 60))):
            doc.append(int(follow[doc[-1]]) if rng.rand() < 0.7 else int(rng.randint(vocab)))
        docs.append(np.array(doc, "<i4"))
    docs.insert(5, np.zeros(0, "<i4"))  # an empty sequence must not shift anything
    lengths = np.array([len(d) for d in docs], "<i4")
    offsets = np.concatenate(([0], np.cumsum(4 * lengths.astype(np.int64))[:-1])).astype("<i8")
    with open(prefix + ".bin", "wb") as f:
        f.write(b"".join(d.tobytes() for d in docs))
    with open(prefix + ".idx", "wb") as f:
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(docs), len(docs) + 1))
        f.write(lengths.tobytes() + offsets.tobytes() + np.arange(len(docs) + 1, dtype="<i8").tobytes())
    return docs


def trainer_flags(c, seq, tp, pp):
    """The trainer's command line for this model, without paths and rates."""
    out = f"""--use-mcore-models --tensor-model-parallel-size {tp} --pipeline-model-parallel-size {pp} --sequence-parallel
        --num-layers {c['num_hidden_layers']} --hidden-size {c['hidden_size']} --ffn-hidden-size {c['intermediate_size']}
        --num-attention-heads {c['num_attention_heads']} --group-query-attention --num-query-groups {c['num_key_value_heads']}
        --max-position-embeddings {seq} --seq-length {seq} --disable-bias-linear --add-qkv-bias --swiglu
        --normalization RMSNorm --norm-epsilon {c['rms_norm_eps']} --position-embedding-type rope --rotary-base {c['rope_theta']:g}
        --padded-vocab-size {c['vocab_size']} --attention-dropout 0.0 --hidden-dropout 0.0 --bf16 --split 100,0,0
        --lr-decay-style cosine --weight-decay 1e-1 --clip-grad 1.0 --adam-beta1 0.9 --adam-beta2 0.95
        --log-interval 1 --eval-iters 0 --log-throughput --seed 1234""".split()
    return out if c["tie_word_embeddings"] else out + ["--untie-embeddings-and-output-weights"]
