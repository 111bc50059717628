"""Token files and the order of samples.

A prefix names `PREFIX.idx` (lengths and offsets of the sequences) and
`PREFIX.bin` (token ids). The rule that turns sequences into samples is the
one of Megatron's GPTDataset for a single epoch: sequences are shuffled with
the seed, laid end to end, cut into overlapping windows of `seq_length + 1`
tokens (the last token of one is the first of the next), and the windows are
shuffled with the same generator. Epoch e > 0 does it again with seed + e.
"""

import os
import struct

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


class NoData(Exception):
    """The data path holds nothing that can be trained on."""


class TokenFile:
    """Sequences of token ids, mapped from disk.

    `lengths` are in tokens, `starts` are token positions in `tokens`.
    """

    def __init__(self, prefix: str):
        idx, binary = prefix + ".idx", prefix + ".bin"
        for path in (idx, binary):
            if not os.path.isfile(path):
                raise NoData(f"no file `{path}`: --data-path is a prefix without `.bin` and `.idx`")
        with open(idx, "rb") as f:
            head = f.read(34)
            if len(head) < 34 or head[:9] != MAGIC:
                raise NoData(f"`{idx}` is not an index file: it does not begin with MMIDIDX")
            version, code, sequences, documents = struct.unpack("<QBQQ", head[9:])
            if version != 1 or code not in DTYPES:
                raise NoData(f"`{idx}` has version {version} and type code {code}: only version 1 with integer types is known")
            expected = 34 + 12 * sequences + 8 * documents
            if os.path.getsize(idx) != expected:
                raise NoData(f"`{idx}` has {os.path.getsize(idx)} bytes where its header promises {expected}")
            self.lengths = np.frombuffer(f.read(4 * sequences), "<i4").astype(np.int64)
            offsets = np.frombuffer(f.read(8 * sequences), "<i8")
        dtype = np.dtype(DTYPES[code]).newbyteorder("<")
        self.starts = offsets // dtype.itemsize
        self.tokens = np.memmap(binary, dtype, "r") if os.path.getsize(binary) else np.zeros(0, dtype)
        if sequences and (self.lengths.min() < 0 or self.starts.min() < 0
                          or (offsets % dtype.itemsize).any()
                          or (self.starts + self.lengths).max() > len(self.tokens)):
            raise NoData(f"`{idx}` points outside `{binary}`")


def train_part(sequences: int, split: str) -> int:
    """How many leading sequences belong to training under a `train,valid,test` split."""
    try:
        parts = [float(x) for x in split.replace("/", ",").split(",")]
    except ValueError:
        raise NoData(f"--split `{split}` is not a list of numbers") from None
    if not parts or min(parts) < 0 or sum(parts) <= 0:
        raise NoData(f"--split `{split}` has no positive sum")
    return int(round(parts[0] / sum(parts) * sequences))


class Samples:
    """Windows of `seq_length + 1` tokens, addressed by the number of samples consumed before."""

    def __init__(self, prefix: str, seq_length: int, seed: int, split: str, vocab: int):
        self.file, self.seq_length, self.seed, self.vocab = TokenFile(prefix), seq_length, seed, vocab
        self.sequences = train_part(len(self.file.lengths), split)
        self.per_epoch = max(0, (int(self.file.lengths[: self.sequences].sum()) - 1) // seq_length)
        if self.per_epoch == 0:
            raise NoData(
                f"`{prefix}` holds {int(self.file.lengths[: self.sequences].sum())} training tokens in {self.sequences} "
                f"sequences: fewer than the {seq_length + 1} of one sample")
        self._epoch = None

    def _order(self, epoch: int):
        if self._epoch != epoch:
            rng = np.random.RandomState(self.seed + epoch)
            documents = np.arange(self.sequences, dtype=np.int32)
            rng.shuffle(documents)
            windows = np.arange(self.per_epoch, dtype=np.uint32)
            rng.shuffle(windows)
            ends = np.cumsum(self.file.lengths[documents])
            self._epoch, self._documents, self._windows, self._ends = epoch, documents, windows, ends
        return self._documents, self._windows, self._ends

    def sample(self, consumed: int) -> np.ndarray:
        """The sample that follows `consumed` others, as int32 [seq_length + 1]."""
        documents, windows, ends = self._order(consumed // self.per_epoch)
        at = int(windows[consumed % self.per_epoch]) * self.seq_length
        out, have = np.empty(self.seq_length + 1, np.int32), 0
        which = int(np.searchsorted(ends, at, side="right"))
        while have < len(out):
            document = int(documents[which])
            length = int(self.file.lengths[document])
            skip = at + have - (int(ends[which]) - length)
            piece = self.file.tokens[self.file.starts[document] + skip: self.file.starts[document] + length]
            piece = piece[: len(out) - have]
            out[have: have + len(piece)] = piece
            have += len(piece)
            which += 1
        if out.min() < 0 or out.max() >= self.vocab:
            raise NoData(f"sample {consumed} has token id {int(out.max())}, outside the padded vocabulary of {self.vocab}: "
                         "were the text and the model tokenized alike?")
        return out

    def batch(self, consumed: int, count: int) -> np.ndarray:
        """`count` samples from `consumed` on, as int32 [count, seq_length + 1]."""
        return np.stack([self.sample(consumed + i) for i in range(count)])
