"""Makes the seeds in corpus/: small inputs of our own, sound and broken, one directory for each target.

Needs pyarrow for the parquet ones, which are left as they are without it.
"""

import io
import json
import pathlib
import pickle
import struct
import zipfile

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

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", b"\x80\x02}.")
        out.writestr("archive/data/0", bytes(8))
    keep("zip", "sound", archive.getvalue())
    with zipfile.ZipFile(archive := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data/0", bytes(100))
    keep("zip", "deflated", archive.getvalue())
    keep("pickle", "sound", pickle.dumps({"a": [1, 2.5, None, True, ("x", b"y")], "n": 1 << 70}, protocol=2))
    keep("pickle", "newest", pickle.dumps([{"k": i} for i in range(3)], protocol=5))
    keep("pickle", "global", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.")
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
    keep("tokenizer_json", "sound", json.dumps(TOKENIZER) + "\n---\n" + json.dumps({"eos_token": "<|endoftext|>"}))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
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
