"""Real text from what every Python brings along: the standard library's docstrings.

The sources are parsed, never imported, in sorted order, so the same Python gives the same rows.
"""

import ast
import hashlib
import inspect
import pathlib
import sysconfig
import warnings

COLUMNS = ("instruction", "input", "output", "text")
SHORTEST = 40  # Characters; below it a docstring says little more than its name.
HELD_OUT_ONE_IN = 50

# Packages that only some builds of Python have, and site-packages, which is not the standard library.
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3", "tkinter",
           "turtledemo", "ensurepip", "distutils", "pydoc_data", "config", "__pycache__"}


def sources():
    """Every module of the standard library as (dotted name, path), sorted by path."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.intersection(parts) or any("-" in part for part in parts):
            continue
        found.append((".".join(p for p in parts if p != "__init__"), path))
    return sorted(found, key=lambda pair: (pair[0], str(pair[1])))


def described(module, tree):
    """Yields (kind, qualified name, signature, docstring) for a module and all that is defined in it."""
    todo = [("module", module, tree)]
    while todo:
        kind, name, node = todo.pop(0)
        text = ast.get_docstring(node, clean=False)
        if text:
            signature = "(%s)" % ast.unparse(node.args) if kind == "function" else ""
            yield kind, name, signature, inspect.cleandoc(text).strip()
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                todo.append(("class", name + "." + child.name, child))
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                todo.append(("function", name + "." + child.name, child))


def is_plain(text):
    """Can every reader take it: no NUL, no lone surrogate?"""
    return "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def rows():
    """The rows to train on and the rows held out, each text once in both together."""
    train, held_out, seen = [], [], set()
    for module, path in sources():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Old escapes in string literals are no concern of the reader.
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # A deliberately broken file; the parser's verdict is as deterministic as the file.
        for kind, name, signature, text in described(module, tree):
            number = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            if len(text) < SHORTEST or number in seen or not is_plain(text):
                continue
            seen.add(number)
            row = {
                "instruction": "Explain the %s `%s` of Python's standard library." % (kind, name),
                "input": name.rpartition(".")[2] + signature if signature else "",
                "output": text,
                "text": text,
            }
            chosen = int.from_bytes(number[:4], "big") % HELD_OUT_ONE_IN == 0
            (held_out if chosen else train).append(row)
    return train, held_out
