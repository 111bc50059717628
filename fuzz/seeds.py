"""Makes the seeds in corpus/: small inputs of our own, sound and broken, one directory for each target.

Needs pyarrow for those of parquet and zstd, which are left as they are without it.
"""

import collections
import gzip
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent
REPO = ROOT.parent


def keep(target: str, name: str, content: bytes | str) -> None:
    path = ROOT / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 8, "intermediate_size": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 16,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
VOCAB = {c: i for i, c in enumerate("abcdefgh")} | {"<|endoftext|>": 8}
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 8, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},
    "post_processor": None, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": VOCAB, "merges": []},
}


def safetensors(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def shard() -> bytes:
    """A shard's pickle with two tensors, one of them a view with an offset; torch's names, without torch."""
    for module in ("torch", "torch._utils"):
        sys.modules[module] = types.ModuleType(module)

    def rebuild(*_): raise NotImplementedError
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    sys.modules["torch._utils"]._rebuild_tensor_v2 = rebuild
    storage = type("FloatStorage", (), {"__module__": "torch"})
    sys.modules["torch"].FloatStorage = storage

    class Tensor:
        def __init__(self, *words): self.words = words
        def __reduce__(self): return rebuild, self.words

    class Place(str):
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", storage, str(obj), "cpu", 16) if isinstance(obj, Place) else None

    out = io.BytesIO()
    model = {"a": Tensor(Place("0"), 0, (4, 4), (4, 1), False, collections.OrderedDict()),
             "b": Tensor(Place("0"), 2, (2, 3), (1, 4), False, collections.OrderedDict()), "c._extra_state": None}
    args = {"tensor_model_parallel_size": 2, "num_layers": 1, "bf16": True}
    Pickler(out, 2).dump({"args": args, "checkpoint_version": 3.0, "iteration": 1, "model": model})
    return out.getvalue()


def entry(name: str) -> zipfile.ZipInfo:
    """An archive's entry without the time at which it was made."""
    return zipfile.ZipInfo(name)


def records(target: str) -> None:
    for sample in sorted((REPO / "store/tests/records/v1").glob("*.bin")):
        keep(target, sample.stem, sample.read_bytes()[:6000])


def main() -> None:
    for example in sorted((REPO / "examples").rglob("*.yaml")):
        keep("spec_yaml", f"{example.parent.name}-{example.stem}", example.read_text())
    keep("spec_yaml", "anchors", "a: &a [x]\nb: &b [*a, *a]\nname: *b\nstages: {run: {argv: *b}}\n")
    keep("spec_yaml", "run", "name: a\nstages:\n  hello:\n    run: { argv: [echo, \"\\e[31m\"], count: 2 }\n")
    keep("spec_yaml", "numbers", "name: 1e999\nworkdir: ../..\nparallel: {tp: -1, pp: 18446744073709551616}\n")
    keep("spec_set", "words", "name=b\nstages.train.lr=1e-5\nparallel.tp=2\nstages.train.args=[--a, 'b']\nworkdir=\n")
    keep("spec_set", "broken", "a..b=1\n.=2\nstages.train={\nstages.train.nodes=0x10\n")

    tensor = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
              "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}, "__metadata__": {"format": "pt"}}
    keep("safetensors", "sound", safetensors(tensor, bytes(12)))
    keep("safetensors", "hole", safetensors({"b": tensor["b"]}, bytes(12)))
    keep("safetensors", "overflow", safetensors(
        {"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 2**64 - 1]}}, b""))
    keep("config_json", "sound", json.dumps(CONFIG))
    keep("config_json", "negative", json.dumps(CONFIG | {"hidden_size": -8, "num_attention_heads": 0}))
    index = {"metadata": {"total_size": 12}, "weight_map": {"a": "model-00001-of-00001.safetensors", "b": "../x"}}
    keep("model_dir", "sound", b"\n---\n".join(
        [json.dumps(CONFIG).encode(), json.dumps(index).encode(), safetensors(tensor, bytes(12))]))

    keep("cli_words", "sound", "0,8-15\n3\n10m\n500ms\n2031-02-03T04:05:06Z\n2031-02-03 04:05\n24h\n")
    keep("cli_words", "edges", "-1\n0-65535\n9-1\n99999999999d\n1969-01-01T00:00:00Z\n-9999-01-01\n5\n")

    step = (" [2026-09-11 12:06:52] iteration        3/      10 | consumed samples:           96 | elapsed time per "
            "iteration (ms): 24379.9 | learning rate: 1.406250E-04 | lm loss: 1.107468E+01 | grad norm: 30.066 |\n")
    engine = ('{"type":"progress","done":5,"total":10,"unit":"rows","tokens":7}\n{"type":"warning","message":"w"}\n'
              '{"type":"error","message":"m","hint":"h"}\n{"type":"result","path":"/o","rows":3,"files":'
              '[{"path":"/o/a","size":18446744073709551615,"digest":""},{"path":"/o/b","size":1}]}\n')
    keep("log_lines", "train", "\x80" + step + "[default0]:" + step + "[after training is done] datetime: x\n")
    keep("log_lines", "engine", "\x40" + engine)
    keep("log_lines", "raw", b"\xf0 a\r\n\xff\x1b[31m\n iteration 1/2 | lm loss: nan | loss: inf |")
    stack = ("Traceback (most recent call last):\n" + "  File \"a.py\", line 1\n    boom()\n" * 12 +
             "RuntimeError: Ring AllReduce wait receiving failed\n")
    keep("evidence", "stack", "a\n\x1b[31m" + stack + "chatter\n" * 30)
    keep("evidence", "long", "a" + "x" * 3000 + "\nOSError: [Errno 98] Address already in use")
    for recording in sorted((REPO / "agent/tests/recordings").iterdir()):
        texts = [f"{path.name}\n{path.read_text()}" for path in sorted(recording.glob("*.txt"))]
        keep("npu_smi", recording.name, "\n---\n".join(texts)[:16000])
    keep("pool_journal", "share", 'o{"Share":{"argv":["true"],"cwd":"/w","env":{"A":"b"}}}')
    keep("pool_journal", "start", 'o{"Start":{"attempt":"j/s/0.1","shared":0,"env":{},"at_once":2}}')
    keep("pool_journal", "close", 'o"Close"')
    keep("pool_journal", "exited", 'r{"Exited":{"attempt":"j/s/0.1","log":null,"exit":{"index":0,"code":0,"signal":null,'
         '"error":null,"stopping":false,"mono_us":1,"wall_ms":2}}}')
    keep("pool_journal", "started", 'r{"Started":{"attempt":"j/s/0.1","id":{"pid":1,"start":2},"log":3}}')
    record = b'"Close"'
    keep("pool_journal", "torn", b"O" + 2 * (struct.pack("<II", len(record), zlib.crc32(record)) + record) + b"\x07\0")

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        out.writestr(entry("archive/data.pkl"), b"\x80\x02}.")
        out.writestr(entry("archive/data/0"), bytes(8))
    keep("zip", "sound", archive.getvalue())
    with zipfile.ZipFile(archive := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(entry("archive/data/0"), bytes(100), zipfile.ZIP_DEFLATED)
    keep("zip", "deflated", archive.getvalue())
    keep("pickle", "sound", pickle.dumps({"a": [1, 2.5, None, True, ("x", b"y")], "n": 1 << 70}, protocol=2))
    keep("pickle", "newest", pickle.dumps([{"k": i} for i in range(3)], protocol=5))
    keep("pickle", "global", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.")
    keep("shard", "sound", shard())
    keep("shard", "empty", b"\x80\x02}X\x05\0\0\0model}s.")
    records("records")
    keep("wire", "hello", b"\x00\x0a\x02n1\x12\x01b")
    keep("wire", "output", b"\x01\x0a\x04/out\x12\x06\x0a\x02/a\x10\x09")
    keep("wire", "failure", b"\x02\x0a\x02n1\x10\x03\x32\x04died")

    # Two sequences of one and two ids, a document each.
    idx = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 2, 3)
    keep("token_index", "sound", idx + struct.pack("<iiqqqqq", 1, 2, 0, 4, 0, 1, 2))
    keep("token_index", "lies", idx[:18] + struct.pack("<QQ", 2**62, 3))
    keep("jsonl", "sound", '{"text": "a"}\n{"text": "\\u4f60", "n": 1}\n\n')
    keep("jsonl", "surrogate", b'{"text": "\\ud800"}\n{"text": "\xff"}\n[[[[')
    # The first byte is the format's place in the target's list.
    places = {".arrow": b"\0", ".csv": b"\1", ".txt": b"\2", ".json": b"\3"}
    for path in sorted((REPO / "tokenize/tests/data/read").iterdir()):
        if path.suffix in places and path.name != "expected.json":
            keep("texts", path.name, places[path.suffix] + path.read_bytes())
    keep("texts", "cut.json", b'\3[{"text": "a\\')
    keep("texts", "packed.jsonl", b"\4" + gzip.compress(b'{"text": "a"}\n' * 3, mtime=0) + gzip.compress(b"{}", mtime=0))
    pair = [json.dumps(VOCAB | {"ab": 9}), "#version: 0.2\na b\n"]
    decoder = {"8": {"content": "<|endoftext|>", "special": True}}
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "added_tokens_decoder": decoder}
    keep("slow_tokenizer", "sound", "\n---\n".join([*pair, json.dumps(config)]))
    keep("slow_tokenizer", "broken", "\n---\n".join(['{"a": -1, "b": 1e99}', "a b c\n", json.dumps(config | {"eos_token": "a"})]))
    keep("slow_tokenizer", "half", pair[0])
    keep("tokenizer_json", "sound", json.dumps(TOKENIZER) + "\n---\n" + json.dumps({"eos_token": "<|endoftext|>"}))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    keep("texts", "packed.csv", b"\5" + pa.compress(b"text,n\na,1\n\"b\"\"\",\n", codec="zstd", asbytes=True))
    tables = {
        "sound": pa.table({"text": ["a", None, "b"], "n": [1, 2, 3]}),
        "nested": pa.table({"text": [["a"], ["b"]]}),
        "numbers": pa.table({"text": [1, 2]}),
        "nothing": pa.table({"text": pa.array([], pa.string())}),
    }
    for name, table in tables.items():
        pq.write_table(table, out := io.BytesIO(), compression="snappy")
        keep("parquet", name, out.getvalue())


if __name__ == "__main__":
    main()
