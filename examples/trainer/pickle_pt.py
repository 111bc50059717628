"""PyTorch's zip checkpoints, read and written without PyTorch.

A file is a zip whose entries are stored uncompressed under one top folder:
`data.pkl` (a pickle in which a tensor is a call of `_rebuild_tensor_v2` on a
persistent id), `data/<key>` (raw little-endian storages), `byteorder` and
`version`. Reading never runs code named by the file: a global is either one
of the few known ones, an inert placeholder, or refused by name.
"""

import collections
import io
import os
import pickle
import struct
import zipfile
from argparse import Namespace

import numpy as np

MAX_PICKLE = 64 << 20
# Storage name -> (element type on disk, bytes).
STORAGES = {
    "BFloat16Storage": ("<u2", 2), "HalfStorage": ("<f2", 2), "FloatStorage": ("<f4", 4),
    "DoubleStorage": ("<f8", 8), "LongStorage": ("<i8", 8), "IntStorage": ("<i4", 4),
    "ShortStorage": ("<i2", 2), "CharStorage": ("<i1", 1), "ByteStorage": ("<u1", 1), "BoolStorage": ("<u1", 1),
}
# Packages whose classes occur in checkpoints' arguments as plain markers (enums, dtypes).
MARKERS = ("torch", "megatron", "mindspeed", "mindspeed_llm", "mindspore", "msadapter", "numpy", "pathlib", "transformers")


class BadCheckpoint(Exception):
    """A file is no checkpoint, or one that must not be trusted."""


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """Rounds to nearest, ties to even; NaN stays NaN. The result is the bits as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


class Marker:
    """Stands for an object of a class that is not imported."""

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        raise BadCheckpoint(f"the pickle stores items in a `{type(self).__name__}`")

    def __repr__(self):
        return f"<{type(self).__name__}{self.args!r}>"


class Dict(collections.OrderedDict):
    """A dictionary that may carry attributes (`_metadata`) and a default factory that is never called."""

    def __init__(self, *args):
        super().__init__(*[x for x in args if isinstance(x, (dict, list, tuple))])

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update({k: v for k, v in state.items() if k == "_metadata"})


class Plain(Namespace):
    """The checkpoint's arguments."""

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise BadCheckpoint("the arguments are not a dictionary")
        self.__dict__.update(state)


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, storage):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._storage = storage

    def find_class(self, module, name):
        known = {
            ("collections", "OrderedDict"): Dict, ("collections", "defaultdict"): Dict,
            ("argparse", "Namespace"): Plain, ("builtins", "dict"): Dict, ("__builtin__", "dict"): Dict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor, ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
            ("builtins", "set"): _set, ("__builtin__", "set"): _set,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in STORAGES:
            return name
        if module.split(".")[0] in MARKERS:
            return type(f"{module}.{name}", (Marker,), {})
        raise BadCheckpoint(f"the pickle names `{module}.{name}`, which no checkpoint needs")

    def persistent_load(self, pid):
        try:
            kind, storage, key, _, numel = pid
        except (TypeError, ValueError):
            raise BadCheckpoint(f"persistent id {pid!r} is not a storage") from None
        if kind != "storage" or storage not in STORAGES or not isinstance(numel, int) or numel < 0:
            raise BadCheckpoint(f"persistent id {pid!r} is not a known storage")
        return self._storage(str(key), storage, numel)


def _set(items=()):
    return set(items)


def _tensor(storage, offset, shape, stride, *_):
    """A view of the storage as an array; bfloat16 becomes float32."""
    name, data = storage
    shape, stride = tuple(int(n) for n in shape), tuple(int(n) for n in stride)
    if len(shape) != len(stride) or offset < 0 or any(n < 0 for n in shape + stride):
        raise BadCheckpoint(f"tensor of shape {shape} with strides {stride} at {offset} makes no sense")
    reach = offset + sum((n - 1) * s for n, s in zip(shape, stride)) + 1 if 0 not in shape else offset
    if reach > len(data):
        raise BadCheckpoint(f"tensor of shape {shape} reaches element {reach} of a storage of {len(data)}")
    view = np.lib.stride_tricks.as_strided(data[offset:], shape, tuple(s * data.itemsize for s in stride), writeable=False)
    if name == "BFloat16Storage":
        return bf16_to_f32(view)
    return view.astype(bool) if name == "BoolStorage" else np.array(view)


def _parameter(data, *_):
    return data


def _from_type(func, _kind, args, _state):
    if func is not _tensor:
        raise BadCheckpoint("a tensor subclass is rebuilt by something else than `_rebuild_tensor_v2`")
    return _tensor(*args)


def load(path: str) -> dict:
    """Reads a checkpoint file; tensors become numpy arrays (bfloat16 as float32).

    Raises `BadCheckpoint` with the path for anything that is not one.
    """
    try:
        with zipfile.ZipFile(path) as z:
            names = z.namelist()
            pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise BadCheckpoint(f"holds {len(pickles)} `data.pkl`")
            top = pickles[0].split("/")[0]
            for info in z.infolist():
                if info.compress_type != zipfile.ZIP_STORED:
                    raise BadCheckpoint(f"entry `{info.filename}` is compressed")
            if f"{top}/byteorder" in names and z.read(f"{top}/byteorder") != b"little":
                raise BadCheckpoint("is not little-endian")
            if z.getinfo(pickles[0]).file_size > MAX_PICKLE:
                raise BadCheckpoint(f"`data.pkl` is larger than {MAX_PICKLE} bytes")

            def storage(key, name, numel):
                kind, width = STORAGES[name]
                entry = f"{top}/data/{key}"
                if entry not in names:
                    raise BadCheckpoint(f"storage `{key}` is missing")
                if z.getinfo(entry).file_size != numel * width:
                    raise BadCheckpoint(f"storage `{key}` has {z.getinfo(entry).file_size} bytes, not {numel} x {width}")
                return name, np.frombuffer(z.read(entry), kind)

            found = _Reader(z.read(pickles[0]), storage).load()
    except BadCheckpoint as e:
        raise BadCheckpoint(f"`{path}`: {e}") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError,
            AttributeError, struct.error) as e:
        raise BadCheckpoint(f"`{path}` is not a readable checkpoint: {type(e).__name__}: {e}") from e
    if not isinstance(found, dict):
        raise BadCheckpoint(f"`{path}` holds a {type(found).__name__}, not a dictionary")
    return found


class Bf16:
    """An array of float32 values to be written rounded to bfloat16."""

    def __init__(self, values: np.ndarray):
        self.shape, self.bits = values.shape, f32_to_bf16(values)


class _Writer:
    """Pickle protocol 2, no memo: the values form a tree."""

    def __init__(self):
        self.out, self.storages = bytearray(b"\x80\x02"), []

    def put(self, v):
        o = self.out
        if v is None:
            o += b"N"
        elif v is True or v is False:
            o += b"\x88" if v else b"\x89"
        elif isinstance(v, (int, np.integer)):
            self._int(int(v))
        elif isinstance(v, float):
            o += b"G" + struct.pack(">d", v)
        elif isinstance(v, str):
            raw = v.encode()
            o += b"X" + struct.pack("<I", len(raw)) + raw
        elif isinstance(v, tuple):
            o += b"("
            for x in v:
                self.put(x)
            o += b"t"
        elif isinstance(v, list):
            o += b"]("
            for x in v:
                self.put(x)
            o += b"e"
        elif isinstance(v, Namespace):
            o += b"cargparse\nNamespace\n)\x81"
            self.put(dict(vars(v)))
            o += b"b"
        elif isinstance(v, dict):
            o += b"ccollections\nOrderedDict\n)R(" if isinstance(v, collections.OrderedDict) else b"}("
            for key, value in v.items():
                self.put(key)
                self.put(value)
            o += b"u"
        elif isinstance(v, Bf16):
            self._tensor("BFloat16Storage", v.bits.astype("<u2"), v.shape)
        elif isinstance(v, np.ndarray) and v.dtype == np.float32:
            self._tensor("FloatStorage", v.astype("<f4"), v.shape)
        else:
            raise TypeError(f"a {type(v).__name__} cannot be written into a checkpoint")

    def _int(self, n):
        if 0 <= n < 256:
            self.out += b"K" + bytes([n])
        elif -(1 << 31) <= n < 1 << 31:
            self.out += b"J" + struct.pack("<i", n)
        else:
            raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
            self.out += b"\x8a" + bytes([len(raw)]) + raw

    def _tensor(self, storage, data, shape):
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(data).tobytes())
        o = self.out
        o += b"ctorch._utils\n_rebuild_tensor_v2\n(("
        self.put("storage")
        o += f"ctorch\n{storage}\n".encode()
        for x in (key, "cpu", int(data.size)):
            self.put(x)
        o += b"tQ"
        strides, step = [], 1
        for n in reversed(shape):
            strides.insert(0, step)
            step *= max(1, n)
        for x in (0, tuple(int(n) for n in shape), tuple(strides), False):
            self.put(x)
        o += b"ccollections\nOrderedDict\n)RtR"


def save(value: dict, path: str) -> None:
    """Writes `path` whole or not at all: temporary file, fsync, rename."""
    writer = _Writer()
    writer.put(value)
    top = os.path.splitext(os.path.basename(path))[0]
    entries = [("data.pkl", bytes(writer.out) + b"."), ("byteorder", b"little")]
    entries += [(f"data/{i}", data) for i, data in enumerate(writer.storages)]
    entries.append(("version", b"3\n"))
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as z:
                for name, data in entries:
                    info = zipfile.ZipInfo(f"{top}/{name}", (1980, 1, 1, 0, 0, 0))
                    # Payloads start at multiples of 64, so that a reader may map them in place.
                    begin = f.tell() + 30 + len(info.filename) + 4
                    pad = -begin % 64
                    info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
                    z.writestr(info, data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path) or ".")


def sync_directory(path: str) -> None:
    """Makes a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
