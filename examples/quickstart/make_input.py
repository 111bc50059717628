"""Makes the demo's input: real text, a tokenizer trained on it, and a small Qwen2.5-shaped model.

usage: python make_input.py DIRECTORY [--seed N]

    DIRECTORY/dataset/docs.parquet     Alpaca's columns; the text is the standard library's docstrings
    DIRECTORY/dataset/held_out.jsonl   rows that training never sees
    DIRECTORY/model_hf/                config.json, tokenizer, bf16 weights in shards with an index
    DIRECTORY/input.json               the options and every file's digest; written last

The same Python, options and package versions give the same bytes. A directory whose input.json
matches is left alone. Each file is written beside its place and renamed into it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

import docstrings
import hf_model
import hf_tokenizer

FORMAT = 1
ROW_GROUP = 1000


def write(path, data):
    """Puts `data` at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, path)


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(column, pyarrow.string()) for column in docstrings.COLUMNS])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, row_group_size=ROW_GROUP, compression="snappy")
    write(path, sink.getvalue().to_pybytes())


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def options(seed):
    import numpy
    import pyarrow
    import tokenizers

    return {
        "format": FORMAT,
        "seed": seed,
        "python": sys.version.split()[0],
        "packages": {m.__name__: m.__version__ for m in (numpy, pyarrow, tokenizers)},
        "source": {m.__name__: digest(m.__file__) for m in (docstrings, hf_model, hf_tokenizer)},
    }


def is_whole(directory, asked):
    """Is what the marker lists there, unchanged, and made with these options?"""
    try:
        marker = json.loads((directory / "input.json").read_text())
        return marker["options"] == asked and all(
            digest(directory / name) == want for name, want in marker["sha256"].items())
    except (OSError, ValueError, KeyError):
        return False


def make(directory, seed):
    asked = options(seed)
    marker = directory / "input.json"
    if is_whole(directory, asked):
        print("input: nothing to do, %s is whole" % directory)
        return
    marker.unlink(missing_ok=True)

    train, held_out = docstrings.rows()
    write_parquet(directory / "dataset/docs.parquet", train)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held_out)
    write(directory / "dataset/held_out.jsonl", lines.encode())
    print("input: %d rows to train on, %d held out, %.1f MB of text" % (
        len(train), len(held_out), sum(len(row["text"].encode()) for row in train) / 1e6))

    tokens = 0
    for name, data, size in hf_tokenizer.files([row["text"] for row in train]):
        write(directory / "model_hf" / name, data)
        tokens = size
    for name, data in hf_model.files(seed, tokens):
        write(directory / "model_hf" / name, data)
    print("input: %d tokens, a model of %.2f million parameters" % (tokens, hf_model.parameters() / 1e6))

    names = sorted(str(p.relative_to(directory)) for d in ("dataset", "model_hf")
                   for p in (directory / d).iterdir() if p.suffix != ".part" and p.is_file())
    made = {"options": asked, "sha256": {name: digest(directory / name) for name in names}}
    write(marker, (json.dumps(made, indent=2) + "\n").encode())
    print("input: made %s" % directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=20250101)
    given = parser.parse_args()
    make(given.directory.resolve(), given.seed)


if __name__ == "__main__":
    main()
