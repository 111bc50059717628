"""Tests of the checkpoint file's reader and writer, hostile files included."""

import hashlib
import json
import os
import pickle
import struct
import sys
import unittest
import zipfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import example_model as example  # noqa: E402
import pickle_pt  # noqa: E402
from example_model import REFERENCE, Folder  # noqa: E402


class PickleTest(Folder):
    def test_a_file_comes_back_as_it_was_written(self):
        x = np.arange(12, dtype=np.float32).reshape(3, 4) / 3
        value = {"args": example.Namespace(a=1, b="é", c=(1, [2.5, None])), "n": 300, "big": 1 << 40, "minus": -5, "yes": True,
                 "model": {"w": pickle_pt.Bf16(x), "b": x, "empty": np.zeros((0, 3), np.float32), "s": np.array(2, np.float32)}}
        pickle_pt.save(value, self.path("m.pt"))
        back = pickle_pt.load(self.path("m.pt"))
        self.assertEqual((back["args"].b, back["args"].c, back["n"], back["big"], back["minus"], back["yes"]),
                         ("é", (1, [2.5, None]), 300, 1 << 40, -5, True))
        np.testing.assert_array_equal(back["model"]["b"], x)
        np.testing.assert_array_equal(back["model"]["w"], pickle_pt.bf16_to_f32(pickle_pt.f32_to_bf16(x)))
        self.assertFalse(np.array_equal(back["model"]["w"], x))
        self.assertEqual((back["model"]["empty"].shape, back["model"]["s"].shape), ((0, 3), ()))

    def test_payloads_are_stored_and_aligned(self):
        pickle_pt.save({"w": np.ones(5, np.float32), "x": np.ones(3, np.float32)}, self.path("m.pt"))
        raw = example.read(self.path("m.pt"), "rb")
        with zipfile.ZipFile(self.path("m.pt")) as z:
            self.assertIn("m/version", z.namelist())
            for entry in z.infolist():
                self.assertEqual(entry.compress_type, zipfile.ZIP_STORED)
                name, extra = struct.unpack_from("<HH", raw, entry.header_offset + 26)
                self.assertEqual((entry.header_offset + 30 + name + extra) % 64, 0, entry.filename)

    def test_bfloat16_rounds_to_nearest_even(self):
        table = {0x3F800000: 0x3F80, 0x3F808000: 0x3F80, 0x3F818000: 0x3F82, 0x3F808001: 0x3F81, 0x7F800000: 0x7F80,
                 0xFF800000: 0xFF80, 0x80000000: 0x8000, 0x7F7FFFFF: 0x7F80}
        for bits, want in table.items():
            got = pickle_pt.f32_to_bf16(np.array([bits], np.uint32).view(np.float32))[0]
            self.assertEqual(got, want, hex(bits))
        self.assertTrue(np.isnan(pickle_pt.bf16_to_f32(pickle_pt.f32_to_bf16(np.array([np.nan], np.float32))))[0])

    def hostile(self, pickled, entries=()):
        with zipfile.ZipFile(self.path("h.pt"), "w") as z:
            z.writestr("h/data.pkl", pickled)
            z.writestr("h/version", "3\n")
            for name, raw in entries:
                z.writestr(name, raw)
        return self.path("h.pt")

    def test_a_pickle_that_names_code_is_refused_and_does_nothing(self):
        mark = self.path("ran")

        class Run:
            def __reduce__(self):
                return os.mkdir, (mark,)

        for protocol in (0, 2, 4):
            with self.assertRaisesRegex(pickle_pt.BadCheckpoint, "posix.mkdir"):
                pickle_pt.load(self.hostile(pickle.dumps({"a": Run()}, protocol)))
        for line in (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", b"cos\nsystem\n(X\x04\x00\x00\x00truetR."):
            with self.assertRaisesRegex(pickle_pt.BadCheckpoint, "eval|system"):
                pickle_pt.load(self.hostile(b"\x80\x02" + line))
        self.assertFalse(os.path.exists(mark))

    def test_unknown_classes_of_frameworks_become_inert_markers(self):
        raw = b"\x80\x02}X\x01\x00\x00\x00ecmegatron.core.enums\nModelType\nK\x01\x85Rs."
        self.assertEqual(pickle_pt.load(self.hostile(raw))["e"].args, (1,))

    def test_a_tensor_outside_its_storage_is_refused(self):
        def tensor(numel, offset, shape, stride):
            w = pickle_pt._Writer()
            w.out += b"}"
            w.put("w")
            w.out += b"ctorch._utils\n_rebuild_tensor_v2\n(("
            w.put("storage")
            w.out += b"ctorch\nFloatStorage\n"
            for x in ("0", "cpu", numel):
                w.put(x)
            w.out += b"tQ"
            for x in (offset, shape, stride, False):
                w.put(x)
            return bytes(w.out) + b"NtRs."

        body = [("h/data/0", bytes(16))]
        self.assertEqual(pickle_pt.load(self.hostile(tensor(4, 1, (3,), (1,)), body))["w"].shape, (3,))
        for numel, offset, shape, stride, why in ((4, 2, (3,), (1,), "reaches"), (4, 0, (2, 3), (3, 1), "reaches"),
                                                  (5, 0, (2,), (1,), "16 bytes"), (4, -1, (2,), (1,), "no sense"),
                                                  (4, 0, (2,), (-1,), "no sense")):
            with self.assertRaisesRegex(pickle_pt.BadCheckpoint, why):
                pickle_pt.load(self.hostile(tensor(numel, offset, shape, stride), body))
        with self.assertRaisesRegex(pickle_pt.BadCheckpoint, "missing"):
            pickle_pt.load(self.hostile(tensor(4, 0, (4,), (1,))))

    def test_a_cut_file_is_refused_at_every_length(self):
        pickle_pt.save({"w": np.ones(50, np.float32)}, self.path("m.pt"))
        raw = example.read(self.path("m.pt"), "rb")
        for size in range(0, len(raw), 37):
            with open(self.path("cut.pt"), "wb") as f:
                f.write(raw[:size])
            with self.assertRaises(pickle_pt.BadCheckpoint):
                pickle_pt.load(self.path("cut.pt"))

    def test_a_failed_write_leaves_nothing(self):
        with self.assertRaises(TypeError):
            pickle_pt.save({"w": object()}, self.path("m.pt"))
        self.assertEqual(os.listdir(self.dir), [])

    def test_shards_of_the_reference_converter_are_read(self):
        golden = os.path.join(REFERENCE, "golden", "v1_untied_tp2pp2")
        if not os.path.isdir(golden):
            print(f"skipped: no reference data at {golden}")
            return
        seen = 0
        for case in ("v1_untied_tp2pp2", "v1_tied_tp2pp2", "v1_untied_tp1pp1", "v2_untied_tp2pp2"):
            root = os.path.join(REFERENCE, "golden", case)
            for line in example.read(os.path.join(root, "tensors.tsv")).splitlines():
                cells = line.split("\t")
                if len(cells) < 6 or len(cells[5]) != 64:
                    continue
                path, key, name, dtype, shape, want = cells[:6]
                found = [p for p in (os.path.join(root, path), os.path.join(root, "out", path)) if os.path.exists(p)]
                self.assertTrue(found, path)
                value = pickle_pt.load(found[0])[key][name]
                self.assertIn("bfloat16", dtype)
                self.assertEqual(json.loads(shape.replace("(", "[").replace(")", "]").replace(",]", "]")), list(value.shape))
                self.assertEqual(hashlib.sha256(pickle_pt.f32_to_bf16(value).astype("<u2").tobytes()).hexdigest(), want, name)
                seen += 1
        self.assertGreater(seen, 150)


if __name__ == "__main__":
    unittest.main()
