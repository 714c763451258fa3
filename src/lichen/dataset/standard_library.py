"""Real text that every machine with Python has: what the standard library says of itself.

Three kinds: the reference *topics* (``pydoc_data``), the *docstrings* of a module put together, and a module's *source*. A
document is a file (a topic counts as one), and what is held out is held out by file: a module's docstrings and its source
always fall on the same side, since a docstring held out alone would stand word for word in the sources. ``pydoc_data`` and
the standard library's tests are left out of the sources for the same reason.

>>> [held_out("json/decoder.py", fraction) for fraction in (0.0, 1.0)]
[False, True]
>>> docstrings('"One."\\ndef f():\\n    "Two.\\\\n\\\\n    Three."')
'One.\\n\\nTwo.\\n\\nThree.'
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["topics", "docstrings", "sources"]
KINDS: tuple[Kind, ...] = ("topics", "docstrings", "sources")
_LEFT_OUT = {"test", "tests", "idle_test", "pydoc_data", "site-packages", "dist-packages", "__pycache__", "lib2to3"}


@dataclass(frozen=True)
class Document:
    """One file's text of one kind; ``name`` is the file's, relative to the library."""

    kind: Kind
    name: str
    text: str


def held_out(name: str, fraction: float) -> bool:
    """Whether the file belongs to the held-out share: a function of its name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def documents(folder: Path | None = None, minimum: int = 200) -> Iterator[Document]:
    """Every document of at least ``minimum`` characters, in the order of kind and name.

    ``folder`` is the standard library's unless given.
    """
    from pydoc_data import topics

    for name, text in sorted(topics.topics.items()):
        if len(text) >= minimum:
            yield Document("topics", f"topics/{name}", text.strip())
    library = folder or Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in library.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(library).parts))
    for kind in ("docstrings", "sources"):
        for path in paths:
            source = _read(path)
            text = docstrings(source) if kind == "docstrings" else source.strip()
            if len(text) >= minimum:
                yield Document(kind, path.relative_to(library).as_posix(), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def docstrings(source: str) -> str:
    """The docstrings of a module, its classes and functions in their order; empty where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(dict.fromkeys(text for text in texts if text))


@dataclass(frozen=True)
class Collected:
    """What ``collect`` wrote."""

    train: dict[Kind, Path]
    validation: dict[Kind, Path]
    characters: int
    overlap: float
    """Share of the held-out lines of 30 characters or more that stand word for word in the training text."""


def collect(output: Path, fraction: float = 0.03, folder: Path | None = None) -> Collected:
    """Write ``output/{train,validation}/{topics,docstrings,sources}.jsonl`` and measure how far the two sides overlap."""
    texts: dict[tuple[str, Kind], list[Document]] = {}
    for document in documents(folder):
        side = "validation" if held_out(document.name, fraction) else "train"
        texts.setdefault((side, document.kind), []).append(document)
    paths: dict[str, dict[Kind, Path]] = {"train": {}, "validation": {}}
    for (side, kind), found in texts.items():
        path = output / side / f"{kind}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"text": document.text, "name": document.name}, ensure_ascii=False) for document in found)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths[side][kind] = path
    train, validation = (
        [document.text for (side, _), found in texts.items() if side == wanted for document in found]
        for wanted in ("train", "validation")
    )
    return Collected(paths["train"], paths["validation"], sum(map(len, train)), overlap(train, validation))


def overlap(train: list[str], validation: list[str], shortest: int = 30) -> float:
    """Share of the lines of ``validation`` with ``shortest`` characters or more that are lines of ``train`` too.

    >>> overlap(["a line that both of them have, long enough\\nb"], ["a line that both of them have, long enough\\nc"])
    1.0
    """
    known = {line.strip() for text in train for line in text.splitlines()}
    lines = [line.strip() for text in validation for line in text.splitlines() if len(line.strip()) >= shortest]
    return sum(line in known for line in lines) / max(1, len(lines))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
