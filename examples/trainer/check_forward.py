#!/usr/bin/env python3
"""The loss of a Hugging Face model on token files, by numpy alone.

Shares no code with the trainer: it reads the Hugging Face files (not the
Megatron shards) and builds the samples from the written rule, so that
agreement of the two proves conversion, sampling and forward pass together.

The rule: sequences of the training part of `--split` are shuffled by
`RandomState(seed)`, laid end to end and cut into windows of S + 1 tokens that
overlap by one; the windows are shuffled by the same generator. `--batch i..j`
are windows i to j - 1 of that order. With a global batch of G, iteration n of
a training run consumes `--batch (n-1)*G..n*G`.
"""

import argparse
import json
import os
import struct
import sys

import numpy as np


class Refused(Exception):
    """Input that cannot be judged."""


def read_safetensors(path):
    with open(path, "rb") as f:
        raw = f.read()
    if len(raw) < 8:
        raise Refused(f"`{path}` is too short for a safetensors file")
    size = struct.unpack("<Q", raw[:8])[0]
    if size > len(raw) - 8:
        raise Refused(f"`{path}`: the header of {size} bytes does not fit the file")
    header, body = json.loads(raw[8: 8 + size]), memoryview(raw)[8 + size:]
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in kinds:
            raise Refused(f"`{path}`: `{name}` has dtype {entry['dtype']}")
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(body[begin:end], kinds[entry["dtype"]])
        if entry["dtype"] == "BF16":
            flat = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
        out[name] = flat.astype(np.float32).reshape(entry["shape"])
    return out


def read_model(folder):
    """(configuration, name -> float32 array) of a Hugging Face directory."""
    try:
        with open(os.path.join(folder, "config.json")) as f:
            config = json.load(f)
    except (OSError, ValueError) as e:
        raise Refused(f"`{folder}` has no readable config.json: {e}") from e
    files = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    if not files:
        raise Refused(f"`{folder}` has no *.safetensors file")
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index) as f:
            files = sorted(set(json.load(f)["weight_map"].values()))
    weights = {}
    for name in files:
        weights.update(read_safetensors(os.path.join(folder, name)))
    return config, weights


def read_windows(prefix, seq, seed, split, first, end):
    """Windows `first` to `end - 1` of the first epoch, int64 [end - first, seq + 1]."""
    with open(prefix + ".idx", "rb") as f:
        raw = f.read()
    if raw[:9] != b"MMIDIDX\0\0" or raw[17] != 4:
        raise Refused(f"`{prefix}.idx` is not an index of int32 tokens")
    count = struct.unpack_from("<Q", raw, 18)[0]
    lengths = np.frombuffer(raw, "<i4", count, 34).astype(np.int64)
    offsets = np.frombuffer(raw, "<i8", count, 34 + 4 * count)
    tokens = np.fromfile(prefix + ".bin", "<i4")
    parts = [float(x) for x in split.split(",")]
    used = int(round(count * parts[0] / sum(parts)))
    rng = np.random.RandomState(seed)
    order = np.arange(used)
    rng.shuffle(order)
    stream = np.concatenate([tokens[offsets[i] // 4: offsets[i] // 4 + lengths[i]] for i in order] or [tokens[:0]])
    windows = np.arange(max(0, (len(stream) - 1) // seq))
    rng.shuffle(windows)
    if not 0 <= first < end <= len(windows):
        raise Refused(f"--batch {first}..{end} lies outside the {len(windows)} samples of one epoch")
    return np.stack([stream[k * seq: k * seq + seq + 1] for k in windows[first:end]]).astype(np.int64)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + np.concatenate((-x[..., half:], x[..., :half]), -1) * sin


def mean_loss(config, w, window):
    """Mean cross-entropy of one window of S + 1 tokens."""
    get = lambda n: w[n]  # noqa: E731
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    size = config.get("head_dim") or config["hidden_size"] // heads
    eps, s = config["rms_norm_eps"], len(window) - 1
    frequency = 1.0 / config.get("rope_theta", 10000.0) ** (np.arange(0, size, 2) / size)
    angle = np.arange(s)[:, None] * frequency[None]
    angle = np.concatenate((angle, angle), 1)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    x = get("model.embed_tokens.weight")[window[:-1]]
    future = np.triu(np.ones((s, s), bool), 1)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."

        def project(name, y):
            z = y @ get(f"{at}{name}.weight").T
            return z + w[f"{at}{name}.bias"] if f"{at}{name}.bias" in w else z

        y = rms_norm(x, get(at + "input_layernorm.weight"), eps)
        q = rotate(project("self_attn.q_proj", y).reshape(s, heads, size).transpose(1, 0, 2), cos, sin)
        k = rotate(project("self_attn.k_proj", y).reshape(s, groups, size).transpose(1, 0, 2), cos, sin)
        v = project("self_attn.v_proj", y).reshape(s, groups, size).transpose(1, 0, 2)
        mixed = np.empty((s, heads, size), np.float32)
        for head in range(heads):
            group = head * groups // heads
            score = q[head] @ k[group].T / np.sqrt(size)
            score[future] = -np.inf
            score = np.exp(score - score.max(-1, keepdims=True))
            mixed[:, head] = score / score.sum(-1, keepdims=True) @ v[group]
        x = x + project("self_attn.o_proj", mixed.reshape(s, heads * size))
        y = rms_norm(x, get(at + "post_attention_layernorm.weight"), eps)
        gate = project("mlp.gate_proj", y)
        x = x + project("mlp.down_proj", gate / (1.0 + np.exp(-gate)) * project("mlp.up_proj", y))
    x = rms_norm(x, get("model.norm.weight"), eps)
    head = get("model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight")
    logits = (x @ head.T).astype(np.float64)
    top = logits.max(-1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    return float((total - logits[np.arange(s), window[1:]]).mean())


def loss_of(folder, prefix, seq, first, end, seed=1234, split="100,0,0"):
    """Mean loss of the model in `folder` over windows `first` to `end - 1`."""
    config, weights = read_model(folder)
    windows = read_windows(prefix, seq, seed, split, first, end)
    if windows.max() >= len(weights["model.embed_tokens.weight"]) or windows.min() < 0:
        raise Refused(f"token id {windows.max()} lies outside the model's vocabulary: were text and model tokenized alike?")
    try:
        return float(np.mean([mean_loss(config, weights, w) for w in windows]))
    except KeyError as e:
        raise Refused(f"`{folder}` lacks {e}") from e


def batch_range(text):
    first, dots, end = text.partition("..")
    if not (dots and first.isdigit() and end.isdigit()):
        raise argparse.ArgumentTypeError(f"`{text}` is not i..j")
    return int(first), int(end)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hf-dir", required=True)
    p.add_argument("--data-path", required=True, help="prefix without .bin and .idx")
    p.add_argument("--seq-length", type=int, required=True)
    p.add_argument("--batch", type=batch_range, required=True, metavar="I..J")
    p.add_argument("--seed", type=int, default=1234)
    p.add_argument("--split", default="100,0,0")
    a = p.parse_args(argv)
    try:
        loss = loss_of(a.hf_dir, a.data_path, a.seq_length, *a.batch, a.seed, a.split)
    except (Refused, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(json.dumps({"loss": loss, "samples": a.batch[1] - a.batch[0], "tokens": (a.batch[1] - a.batch[0]) * a.seq_length}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
