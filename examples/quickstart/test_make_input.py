"""The demo's input: the same bytes each time, in the formats that the pipeline reads.

Needs numpy, pyarrow and tokenizers; run with the venv's interpreter.
"""

import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = str(HERE / "make_input.py")

try:
    import numpy
    import pyarrow.parquet
    import tokenizers
except ImportError as error:
    raise unittest.SkipTest("skipped: %s" % error)

import docstrings
import hf_model
import hf_tokenizer


def run(directory, *more):
    done = subprocess.run([sys.executable, SCRIPT, str(directory), *more], check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, universal_newlines=True, timeout=300)
    return done.stdout


def digests(directory):
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(directory.rglob("*")) if p.is_file()}


def read_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__")
    return {name: (tuple(entry["shape"]), entry["dtype"], data[8 + size:][slice(*entry["data_offsets"])])
            for name, entry in header.items()}


class MakeInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        held = tempfile.TemporaryDirectory()
        cls.addClassCleanup(held.cleanup)
        cls.scratch = pathlib.Path(held.name)
        cls.made = cls.scratch / "one"
        run(cls.made)
        cls.model = cls.made / "model_hf"

    def tensors(self):
        found = {}
        for path in sorted(self.model.glob("*.safetensors")):
            found.update(read_safetensors(path))
        return found

    def test_two_runs_give_the_same_bytes_and_another_seed_other_weights(self):
        again, other = self.scratch / "two", self.scratch / "three"
        run(again)
        self.assertEqual(digests(again), digests(self.made))
        run(other, "--seed", "1")
        changed = {name for name, d in digests(other).items() if digests(self.made)[name] != d}
        self.assertEqual(changed, {"input.json"} | {"model_hf/" + p.name for p in self.model.glob("*.safetensors")})

    def test_a_whole_directory_is_left_alone_and_a_changed_file_is_made_again(self):
        directory = self.scratch / "four"
        run(directory)
        before, times = digests(directory), {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
        self.assertIn("nothing to do", run(directory))
        self.assertEqual(times, {p: p.stat().st_mtime_ns for p in directory.rglob("*")})
        (directory / "model_hf/config.json").write_text("{}")
        self.assertNotIn("nothing to do", run(directory))
        self.assertEqual(digests(directory), before)

    def test_rows_are_many_unique_and_split_in_two_without_overlap(self):
        file = pyarrow.parquet.ParquetFile(self.made / "dataset/docs.parquet")
        self.assertEqual(tuple(file.schema_arrow.names), docstrings.COLUMNS)
        self.assertGreaterEqual(file.metadata.num_rows, 3000)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self.assertGreaterEqual(len(sizes), 3)
        self.assertEqual(set(sizes[:-1]), {1000})
        train = file.read().column("text").to_pylist()
        lines = (self.made / "dataset/held_out.jsonl").read_text().splitlines()
        held_out = [json.loads(line)["text"] for line in lines]
        self.assertGreaterEqual(len(held_out), 50)
        self.assertEqual(len(set(train) | set(held_out)), len(train) + len(held_out))

    def test_the_tokenizer_is_qwen2s_in_form_and_loses_nothing(self):
        whole = json.loads((self.model / "tokenizer.json").read_text())
        self.assertEqual(whole["normalizer"], {"type": "NFC"})
        split, level = whole["pre_tokenizer"]["pretokenizers"]
        self.assertEqual((split["type"], split["behavior"], split["pattern"]["Regex"]), ("Split", "Isolated", hf_tokenizer.SPLIT))
        self.assertEqual((level["type"], level["add_prefix_space"], level["use_regex"]), ("ByteLevel", False, False))
        made = tokenizers.Tokenizer.from_file(str(self.model / "tokenizer.json"))
        self.assertEqual(made.get_vocab_size(), 3000)
        self.assertEqual([made.token_to_id(t) for t in hf_tokenizer.SPECIAL], [2997, 2998, 2999])
        text = "def é(x):\n    return '日本' + x  # 12345\r\n\n\tdone 😀"
        self.assertEqual(made.decode(made.encode(text).ids, skip_special_tokens=False), text)
        self.assertEqual(made.encode("a<|im_end|>b").ids[1], 2999)
        self.assertEqual(len(made.encode("12345").ids), 5)
        files = json.loads((self.model / "vocab.json").read_text())
        merges = (self.model / "merges.txt").read_text().splitlines()
        self.assertEqual(files, whole["model"]["vocab"])
        self.assertEqual(merges[1:], whole["model"]["merges"])

    def test_the_model_has_qwen25s_names_shapes_and_no_two_tensors_alike(self):
        config = json.loads((self.model / "config.json").read_text())
        tensors = self.tensors()
        self.assertEqual({n: s for n, (s, _, _) in tensors.items()}, dict(hf_model.shapes()))
        self.assertEqual(tensors["model.layers.3.self_attn.k_proj.bias"][0], (32,))
        self.assertEqual(tensors["lm_head.weight"][0], (config["vocab_size"], config["hidden_size"]))
        self.assertEqual({d for _, d, _ in tensors.values()}, {"BF16"})
        self.assertEqual(len({data for _, _, data in tensors.values()}), len(tensors))
        for name, (shape, _, data) in tensors.items():
            values = (numpy.frombuffer(data, "<u2").astype(numpy.uint32) << 16).view(numpy.float32)
            self.assertEqual(values.size, numpy.prod(shape))
            self.assertAlmostEqual(float(values.mean()), 1.0 if name.endswith("norm.weight") else 0.0, delta=0.02)
        index = json.loads((self.model / "model.safetensors.index.json").read_text())
        self.assertEqual(set(index["weight_map"]), set(tensors))
        self.assertEqual(index["metadata"]["total_size"], sum(len(d) for _, _, d in tensors.values()))
        self.assertGreaterEqual(len(set(index["weight_map"].values())), 3)

    def test_bf16_rounds_to_nearest_even(self):
        for bits, want in ((0x3F800000, 0x3F80), (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81),
                           (0x3F807FFF, 0x3F80), (0xBF818000, 0xBF82), (0x00000000, 0)):
            value = numpy.array([bits], numpy.uint32).view(numpy.float32)
            self.assertEqual(int.from_bytes(hf_model.bf16(value), "little"), want, hex(bits))


if __name__ == "__main__":
    unittest.main()
