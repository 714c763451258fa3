"""Files of facts, in the shapes people have them: every row becomes a `Fact`, or a `Reject` with file, line and cause.

    {"id", "text", "subject", "relation", "object", "source"}       our own; text alone, or the three parts alone, will do
    {"uuid", "subject", "predicate", "object"}                      LAMA's relation files, PNNN.jsonl with PNNN.patterns.json
    [{"target": [{"sentence", "uuid", "subject", "predicate", "object"}]}]   T-REx, one JSON array, or a row per line
    a sentence per line                                             plain text

Fields are known by any of their names, so that the shapes mix freely. A file holding one JSON array is read row by row, never
whole. A folder with relation files gives these alone, a bank's folder its facts; what is left out is named.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "P19.jsonl"
>>> _ = path.write_text('{"uuid": "a", "subject": "Ada", "predicate": "P19", "object": "London"}\\n{"uuid": 1.5}\\n')
>>> reader = FactReader(BankConfig())
>>> fact, bad = reader.read(reader.find(path))
>>> fact.id, fact.text
('a', 'Ada — place of birth: London')
>>> bad.line, bad.cause, bad.detail
(2, 'wrong_type', 'uuid is a number, not a string')
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import UsageError, nearest
from lichen.config.knowledge import BankConfig
from lichen.dataset.facts import Fact, fact_id, is_untidy, made_text, problem_of, tidy
from lichen.dataset.json_arrays import JsonArray
from lichen.dataset.json_lines import (
    BOM,
    BadLine,
    Damaged,
    Line,
    checked_text,
    decoded,
    is_utf16,
    lines_of,
    open_bytes,
    type_name,
    value_of_line,
)
from lichen.dataset.records import Reject
from lichen.dataset.relations import (
    IDENTIFIER,
    OVERRIDES,
    PATTERNS,
    Relation,
    label_of,
    merged,
    read_overrides,
    read_relations,
)
from lichen.dataset.sources import Source, SourceError, SourceFile, open_source

NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "uuid"),
    "text": ("text", "sentence"),
    "subject": ("subject", "sub_label"),
    "relation": ("relation", "predicate", "predicate_id"),
    "object": ("object", "obj_label"),
    "source": ("source",),
}
"""What each field may be called, the first that is there being taken."""
_KNOWN = frozenset(name for names in NAMES.values() for name in names)
_RELATION_FILE = re.compile(r"(P\d+)\.jsonl(?:\.gz|\.zst)?")
_READABLE = (".jsonl", ".ndjson", ".json", ".txt", ".text")


@dataclass(frozen=True)
class FactSource:
    """A source whose files are known, and those beside them that are not read."""

    source: Source
    root: Path
    """What the files' names are relative to in `Fact.source`."""
    left_out: tuple[str, ...] = ()

    def label(self, file: SourceFile) -> str:
        """How `Fact.source` calls a file: the folder's name and the path below it."""
        return f"{self.root.name}/{file.path.absolute().relative_to(self.root).as_posix()}".lstrip("/")


class FactReader:
    """Reads sources one after the other and remembers what was peculiar about them."""

    def __init__(self, config: BankConfig):
        self._config = config
        self._folders: dict[Path, tuple[dict[str, str], dict[str, Relation]]] = {}
        self.ignored: Counter[str] = Counter()
        """Fields that mean nothing here, and how often they were met."""
        self.respaced = 0
        """Facts with white space that was made single spaces."""
        self.place = ("", 0)
        """File and line of the last row."""
        self.unlabelled: Counter[str] = Counter()
        """Identifiers without a label, which stand for themselves."""

    @property
    def relations(self) -> dict[str, Relation]:
        """By label, the relations that the folders read so far tell of, with their patterns."""
        return merged(relation for _, found in self._folders.values() for relation in found.values())

    def find(self, path: Path) -> FactSource:
        """The files below ``path`` (a file, a folder, a glob). Raises UsageError, SourceError."""
        source = open_source(SourceConfig(path=path, format=self._config.format))
        if not path.is_dir():
            for file in source.files:
                if file.format not in ("jsonl", "text"):
                    raise UsageError(f"{file.label}: facts are read from {', '.join(_READABLE)}; convert the file")
            first = source.files[0].path.absolute()
            shared = all(file.path.absolute().parent == first.parent for file in source.files)
            return FactSource(source, first.parent if shared else Path(first.anchor))
        files, left_out = _files_of_folder(path, source)
        if not files:
            raise SourceError(f"{path}: holds no file of facts ({', '.join(_READABLE)})", source.name)
        return FactSource(replace(source, files=files), path.absolute(), left_out)

    def read(self, found: FactSource) -> Iterator[Fact | Reject]:
        """Everything in the source's files, in order. Raises SourceError at a damaged file."""
        number = 0
        for file in found.source.files:
            folder = file.path.parent
            self._folders.setdefault(folder, (read_overrides(folder), read_relations(folder)))
            line, label = 0, found.label(file)
            try:
                for line, value, excerpt in _values_of(file, self._config):
                    self.place = file.label, line
                    for item in self._items(value, folder, label):
                        if isinstance(item, BadLine):
                            name = found.source.name
                            yield Reject(file.label, line, item.cause, str(item), excerpt, name, number)
                        else:
                            yield item
                        number += 1
            except (Damaged, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                message = f"{file.label}: {reason}, after line {line}; restore the file or leave it out"
                raise SourceError(message, found.source.name) from None

    def _items(self, value: Any, folder: Path, source: str) -> Iterator[Fact | BadLine]:
        """The facts of one row: several where it has targets."""
        rows = value["target"] if isinstance(value, dict) and "target" in value else [value]
        if not isinstance(rows, list):
            yield BadLine("wrong_type", f"target is {type_name(rows)}, not an array")
            return
        if not rows:
            yield BadLine("no_fact", "target is an empty array")
        for row in rows:
            try:
                yield self._fact(row, folder, source)
            except BadLine as bad:
                yield bad

    def _fact(self, row: Any, folder: Path, source: str) -> Fact:
        if isinstance(row, BadLine):
            raise row
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise BadLine("not_an_object", f"{type_name(row)}, not an object")
        if len(row) != sum(name in _KNOWN for name in row):
            self.ignored.update(name for name in row if name not in _KNOWN)
        parts = {field: _text_of(row, names) for field, names in NAMES.items()}
        if any(map(is_untidy, parts.values())):
            parts = {field: tidy(text) for field, text in parts.items()}
            self.respaced += 1
        parts["relation"] = self._label(parts["relation"], folder)
        if not parts["text"]:
            missing = [name for name in ("subject", "relation", "object") if not parts[name]]
            if missing:
                near = nearest(missing[0], row) if row else ""
                raise BadLine("missing_field", f"neither a text nor all three parts: no {', '.join(missing)}{near}")
            parts["text"] = made_text(parts["subject"], parts["relation"], parts["object"])
        parts["id"] = parts["id"] or fact_id(parts["text"], parts["subject"], parts["relation"], parts["object"])
        fact = Fact(**{**parts, "source": parts["source"] or source})
        if problem := problem_of(fact):
            raise BadLine(*problem)
        return fact

    def _label(self, name: str, folder: Path) -> str:
        if not IDENTIFIER.fullmatch(name):
            return name
        label = label_of(name, self._folders[folder][0])
        if label == name:
            self.unlabelled[name] += 1
        return label


def _text_of(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if name == names[0] == "id" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return checked_text(value, name)
    return ""


def _files_of_folder(path: Path, source: Source) -> tuple[tuple[SourceFile, ...], tuple[str, ...]]:
    """The files of a folder that hold its facts, and the names of other files that might."""
    might = [file for file in source.files if file.path.name != OVERRIDES and not file.path.name.endswith(PATTERNS)]
    files = [file for file in might if _suffix(file) in _READABLE]
    if (path / "bank.json").is_file():
        chosen = [file for file in files if file.path == path / "facts.jsonl"]
    else:
        chosen = [f for f in files if f.path.parent == path and _RELATION_FILE.fullmatch(f.path.name)] or files
    names = {file.label for file in chosen}
    return tuple(chosen), tuple(file.label for file in might if file.label not in names and _suffix(file) != ".md")


def _suffix(file: SourceFile) -> str:
    return (file.path.with_suffix("") if file.compression else file.path).suffix.lower()


# --- Values out of files ---

_Value = tuple[int, Any, str]  # the line where it begins, a value or a BadLine, how it looks


def _values_of(file: SourceFile, config: BankConfig) -> Iterator[_Value]:
    if is_utf16(file.path, file.compression):
        raise Damaged("it is UTF-16 or UTF-32; convert it to UTF-8")
    if _suffix(file) == ".json" and file.format == "jsonl" and _is_array(file):
        yield from _values_of_array(file, config.max_line_bytes)
        return
    for number, line in enumerate(lines_of(file.path, file.compression, config.max_line_bytes), start=1):
        excerpt = "" if line.data is None else line.data[:120].decode(errors="backslashreplace")[:80]
        try:
            yield number, _value_of_line(line, file.format, config.max_line_bytes), excerpt
        except BadLine as bad:
            yield number, bad, excerpt


def _value_of_line(line: Line, format: str, limit: int) -> Any:
    if line.data is None:
        raise BadLine("too_long_line", f"longer than {limit} bytes (max_line_bytes)")
    if not line.data.strip():
        raise BadLine("empty_line", "an empty line")
    return decoded(line.data) if format == "text" else value_of_line(line.data, whole=line.whole)


def _is_array(file: SourceFile) -> bool:
    with _readable(file) as stream:
        return stream.read(4096).removeprefix(BOM).lstrip()[:1] == b"["


def _values_of_array(file: SourceFile, limit: int) -> Iterator[_Value]:
    with _readable(file) as stream:
        yield from JsonArray(io.TextIOWrapper(stream, encoding="utf-8-sig"), limit).values()


@contextlib.contextmanager
def _readable(file: SourceFile) -> Iterator[BinaryIO]:
    """The uncompressed bytes of a file; what damages reading becomes `Damaged`."""
    try:
        with open_bytes(file.path, file.compression) as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise Damaged(f"no UTF-8 ({error.reason})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"the compressed data is damaged ({error})") from None


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
