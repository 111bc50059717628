"""Checkpoints in Megatron's layout: one small `.pt` file per (tp, pp), and the tracker.

A `.pt` is a stored (uncompressed) zip with `data.pkl`, `version` and `byteorder` under one
directory, payloads aligned to 64 bytes. Zip and pickle are written by hand, since importing
zipfile and pickle would cost more than the whole start-up may.
"""

import binascii
import os
import struct

NAME = "model_optim_rng"
TRACKER = "latest_checkpointed_iteration.txt"
ALIGN = 64
END = b"PK\x05\x06"


class Broken(Exception):
    """A checkpoint that cannot be used."""


def path(directory, iteration, tp, pp, pp_size):
    rank = "mp_rank_%02d" % tp if pp_size == 1 else "mp_rank_%02d_%03d" % (tp, pp)
    return os.path.join(directory, "iter_%07d" % iteration, rank, NAME + ".pt")


def tracker_path(directory):
    return os.path.join(directory, TRACKER)


def read_tracker(directory):
    """The iteration the tracker names, or None where there is no tracker."""
    try:
        with open(tracker_path(directory)) as file:
            text = file.read(64).strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise Broken("`%s` holds `%s`, not an iteration" % (tracker_path(directory), text))
    return int(text)


def write_tracker(directory, iteration):
    replace(tracker_path(directory), str(iteration).encode())


def check(file_path):
    """Is the file there and is its end the end of a zip?"""
    try:
        with open(file_path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 22))
            if not file.read(4) == END:
                raise Broken("`%s` is truncated: its zip directory's end is missing" % file_path)
    except FileNotFoundError:
        raise Broken("`%s` does not exist" % file_path) from None


def write(file_path, args, iteration, with_optimizer):
    replace(file_path, content(args, iteration, with_optimizer))


def write_half(file_path, args, iteration, with_optimizer):
    """What a trainer leaves that writes in place and is killed meanwhile."""
    data = content(args, iteration, with_optimizer)
    os.makedirs(os.path.dirname(file_path), exist_ok=True)
    with open(file_path, "wb") as out:
        out.write(data[:len(data) // 2])


def content(args, iteration, with_optimizer):
    held = {"args": Namespace(args), "checkpoint_version": 3.0, "iteration": iteration, "model": {}}
    if with_optimizer:
        held["optimizer"] = {}
    return stored_zip([("data.pkl", pickled(held)), ("byteorder", b"little"), ("version", b"3\n")])


def has_optimizer(file_path):
    """Whether the pickle has that key: its payload is stored as it is."""
    with open(file_path, "rb") as file:
        return opcodes("optimizer") in file.read()


def replace(file_path, data):
    """Puts `data` at `file_path`, whole or not at all, durable before it returns."""
    directory = os.path.dirname(file_path)
    os.makedirs(directory, exist_ok=True)
    beside = "%s.part-%d" % (file_path, os.getpid())
    with open(beside, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, file_path)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stored_zip(entries):
    body, directory = bytearray(), bytearray()
    for entry, data in entries:
        encoded = (NAME + "/" + entry).encode()
        at, crc = len(body), binascii.crc32(data)
        # The extra field "FB" pads up to the next multiple of ALIGN; its own header takes 4 bytes.
        pad = -(at + 30 + len(encoded) + 4) % ALIGN
        extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
        common = struct.pack("<HHHHIII", 0x0800, 0, 0, 0x21, crc, len(data), len(data))
        body += b"PK\x03\x04" + struct.pack("<H", 20) + common + struct.pack("<HH", len(encoded), len(extra))
        body += encoded + extra + data
        directory += b"PK\x01\x02" + struct.pack("<HH", 20, 20) + common
        directory += struct.pack("<HHHHHII", len(encoded), 0, 0, 0, 0, 0, at) + encoded
    end = END + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return bytes(body + directory + end)


class Namespace:
    """An argparse.Namespace in the file, without argparse here."""

    def __init__(self, values):
        self.values = values


def pickled(value):
    """Pickle protocol 2 of plain values and Namespace."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value):
    if value is None:
        return b"N"
    if value is True:
        return b"\x88"
    if value is False:
        return b"\x89"
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, Namespace):
        return b"cargparse\nNamespace\n)\x81" + opcodes(value.values) + b"b"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
    raise TypeError("no opcode for `%s`" % type(value).__name__)
