"""A small model with Qwen2.5's architecture, key names and file layout, from a seed.

Weights are N(0, 0.02) (the norms 1 + N(0, 0.02)), each from its own stream of the seed, so that no
two tensors are alike: a converter that swaps any two gives itself away.
"""

import json
import struct

HIDDEN = 128
LAYERS = 4
FFN = 352
HEADS = 8
GROUPS = 2
VOCABULARY = 3072  # More than the tokenizer has, as Qwen2.5's 152,064 is more than its 151,665.
POSITIONS = 512
STD = 0.02
SHARD_BYTES = 1 << 20


def shapes():
    """Every tensor's name and shape, in the order of the model's own modules."""
    head = HIDDEN // HEADS
    found = [("model.embed_tokens.weight", (VOCABULARY, HIDDEN))]
    for layer in range(LAYERS):
        prefix = "model.layers.%d." % layer
        found += [(prefix + "input_layernorm.weight", (HIDDEN,))]
        for name, rows in (("q", HEADS * head), ("k", GROUPS * head), ("v", GROUPS * head)):
            found += [(prefix + "self_attn.%s_proj.weight" % name, (rows, HIDDEN)),
                      (prefix + "self_attn.%s_proj.bias" % name, (rows,))]
        found += [
            (prefix + "self_attn.o_proj.weight", (HIDDEN, HEADS * head)),
            (prefix + "post_attention_layernorm.weight", (HIDDEN,)),
            (prefix + "mlp.gate_proj.weight", (FFN, HIDDEN)),
            (prefix + "mlp.up_proj.weight", (FFN, HIDDEN)),
            (prefix + "mlp.down_proj.weight", (HIDDEN, FFN)),
        ]
    return found + [("model.norm.weight", (HIDDEN,)), ("lm_head.weight", (VOCABULARY, HIDDEN))]


def parameters():
    total = 0
    for _, shape in shapes():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def bf16(values):
    """float32 to bf16 bytes, rounded to nearest, ties to even."""
    import numpy

    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    odd = (bits >> numpy.uint32(16)) & numpy.uint32(1)
    return ((bits + numpy.uint32(0x7FFF) + odd) >> numpy.uint32(16)).astype("<u2").tobytes()


def tensors(seed):
    """Yields (name, shape, bytes)."""
    import numpy

    for number, (name, shape) in enumerate(shapes()):
        stream = numpy.random.Generator(numpy.random.PCG64(numpy.random.SeedSequence([seed, number])))
        values = (stream.standard_normal(shape) * STD).astype(numpy.float32)
        if name.endswith("norm.weight"):
            values += numpy.float32(1)
        yield name, shape, bf16(values)


def safetensors(entries):
    """One file: the header's length, the header padded with spaces to 8, the payloads in the same order."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, data in entries:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in entries)


def shards(seed):
    """The tensors in order, a new shard begun where the next tensor would not fit."""
    found, size = [[]], 0
    for entry in tensors(seed):
        if found[-1] and size + len(entry[2]) > SHARD_BYTES:
            found.append([])
            size = 0
        found[-1].append(entry)
        size += len(entry[2])
    return found


def config(tokens):
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokens - 3,
        "eos_token_id": tokens - 1,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": STD,
        "intermediate_size": FFN,
        "max_position_embeddings": POSITIONS,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": GROUPS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def files(seed, tokens):
    """Yields (file name, bytes) of the model directory, for a tokenizer of `tokens` tokens, the last three special."""
    if tokens > VOCABULARY:
        raise ValueError("the tokenizer has %d tokens, the model room for %d" % (tokens, VOCABULARY))
    generation = {"bos_token_id": tokens - 3, "do_sample": True, "eos_token_id": [tokens - 1, tokens - 3],
                  "pad_token_id": tokens - 3, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
                  "transformers_version": "4.51.0"}
    yield "config.json", (json.dumps(config(tokens), indent=2) + "\n").encode()
    yield "generation_config.json", (json.dumps(generation, indent=2) + "\n").encode()
    parts = shards(seed)
    where, total = {}, 0
    for number, entries in enumerate(parts, 1):
        name = "model-%05d-of-%05d.safetensors" % (number, len(parts))
        for tensor, _, data in entries:
            where[tensor] = name
            total += len(data)
        yield name, safetensors(entries)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    yield "model.safetensors.index.json", (json.dumps(index, indent=2) + "\n").encode()
