"""The bank: a folder with facts that a person can open, and their history.

    facts.jsonl     one fact per line, in the order of the entries; UTF-8, nothing escaped
    bank.json       version, number of facts, SHA-256 of the facts, relations with their patterns, settings
    history.jsonl   one line per version: what was done, to which entries, what stood there before and after
    rejects.jsonl, build.json     what `lichen knowledge build` read, and what became of every row

The renaming of ``facts.jsonl`` into place is what makes an edit happen. Its line in the history, with the SHA-256 the facts
will have, is on the disk before, ``bank.json`` follows after; whoever opens the bank between two of them sees the version
that ``facts.jsonl`` really is. Facts changed with an editor are the next version, if every line is one; else the first that
is none is named. ``hash`` is that of the facts, however their lines are laid out.

>>> import tempfile
>>> from lichen.dataset.facts import made_fact
>>> bank = write_bank(Path(tempfile.mkdtemp()) / "bank", [made_fact("Ada", "place of birth", "London", id="a")])
>>> bank.version, len(bank), bank.index_of("a"), sorted(bank.relations)
(1, 1, 0, ['place of birth'])
>>> print((bank.folder / "facts.jsonl").read_text(encoding="utf-8").rstrip())
{"id": "a", "text": "Ada — place of birth: London", "subject": "Ada", "relation": "place of birth", "object": "London"}
>>> Bank.open(bank.folder).hash == bank.hash
True
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.core.disk import disk_errors, rename
from lichen.core.folders import fsync_folder, make_folder, partial_of, remove_folder, write_file
from lichen.dataset import bank_history
from lichen.dataset.facts import Fact, fact_of_data, problem_of
from lichen.dataset.json_lines import BadLine, value_of_line
from lichen.dataset.relations import Relation

_log = logging.getLogger("lichen.knowledge")
FACTS, SUMMARY, HISTORY = "facts.jsonl", "bank.json", bank_history.HISTORY
_quoted: Callable[[str], str] = json.encoder.encode_basestring


@dataclass(frozen=True, eq=False)
class Bank:
    """The facts of one version. Entry number n is ``facts[n]``."""

    folder: Path
    facts: list[Fact]
    version: int
    hash: str
    """SHA-256 of the facts, hexadecimal."""
    relations: dict[str, Relation]
    """By label, every relation of the facts with the patterns that are known; one with patterns stays when its last fact goes."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was built with: knowledge_length, key_length, tokenizer (a path, or None)."""
    state: Literal["stored", "ahead", "by hand"] = "stored"
    """Whether ``bank.json`` tells of this version, or of the one before: after a crash, or after a change with an editor."""

    @classmethod
    def open(cls, folder: str | Path) -> Bank:
        """Read a bank. Raises UsageError where there is none, LichenError naming file and line of what is damaged."""
        folder = bank_folder(folder)
        summary = _read_summary(folder)
        data = _read_bytes(folder / FACTS)
        digest = hashlib.sha256(data).hexdigest()
        version = bank_history.version_of(folder, summary["version"], summary["sha256"], digest)
        facts = read_facts(data, folder / FACTS, trusted=version is not None)
        state = "stored" if version == summary["version"] else "ahead"
        if version is None:
            version, digest = summary["version"], hashlib.sha256(data_of(facts)).hexdigest()
            state = "stored" if digest == summary["sha256"] else "by hand"  # or only laid out otherwise
        if state == "by hand":
            version += 1
            words = "%s was changed by hand after version %d: %d facts instead of %d; it is version %d now"
            _log.warning(words, folder / FACTS, version - 1, len(facts), summary["facts"], version)
        relations = relations_of(facts, summary["relations"])
        return cls(folder, facts, version, digest, relations, summary["settings"], state)

    def __len__(self) -> int:
        return len(self.facts)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {fact.id: number for number, fact in enumerate(self.facts)}

    def index_of(self, id: str) -> int:
        """The entry with this id. Raises UsageError naming the nearest."""
        if id not in self._numbers:
            near = nearest(id, self._numbers, most=4) if len(self) <= 50_000 else ""
            raise UsageError(f"{self.folder}: no fact has the id {id!r}{near}")
        return self._numbers[id]

    def find(self, key: str) -> int:
        """The entry that ``key`` names: an id, or else an entry number. Raises UsageError."""
        if key.isdecimal() and key not in self._numbers and int(key) < len(self):
            return int(key)
        return self.index_of(key)

    def counts(self) -> dict[str, int]:
        """Facts per relation, the most frequent first; '' for plain sentences."""
        return dict(Counter(fact.relation for fact in self.facts).most_common())

    def copy_to(self, folder: str | Path) -> None:
        """Write this version into ``folder``, which must not exist, whatever became of its own folder; with its history."""
        try:
            history = bank_history.lines_until(self.folder, self.version)
        except LichenError as error:
            _log.warning("the copy of the bank in %s has no history: %s", folder, error)
            history = []
        _write(Path(folder), self, self._data(), history)

    def _data(self) -> bytes:
        """The lines of this version, out of its file if they still stand there: encoding a million takes a while."""
        try:
            data = (self.folder / FACTS).read_bytes()
        except OSError:
            data = b""
        return data if hashlib.sha256(data).hexdigest() == self.hash else data_of(self.facts)

    def to_summary(self) -> str:
        """What ``bank.json`` says."""
        relations = {label: relation.to_data() for label, relation in sorted(self.relations.items())}
        summary = {
            "format": 1,
            "version": self.version,
            "facts": len(self.facts),
            "sha256": self.hash,
            "settings": self.settings,
            "counts": self.counts(),
            "relations": relations,
        }
        return json.dumps(summary, ensure_ascii=False, indent=1) + "\n"


def write_bank(
    folder: str | Path,
    facts: Iterable[Fact],
    relations: Mapping[str, Relation] | None = None,
    settings: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
) -> Bank:
    """Make a bank of version 1, whole or not at all.

    Args:
        folder: where; it must not exist.
        facts: with ids that differ.
        relations: by label, those whose patterns or identifiers are known.
        settings: see `Bank.settings`.
        more: further files, by name.

    Raises:
        UsageError: the place is taken, or a fact is none.
        LichenError: the disk is full or read-only.
    """
    facts = list(facts)
    check_facts(facts)
    data = data_of(facts)
    digest = hashlib.sha256(data).hexdigest()
    bank = Bank(Path(folder), facts, 1, digest, relations_of(facts, relations or {}), dict(settings or {}))
    _write(bank.folder, bank, data, [bank_history.Entry(1, "build", digest).to_line()], more)
    return bank


def read_settings(folder: Path) -> dict[str, Any]:
    """`Bank.settings` alone, without reading the facts."""
    return _read_summary(folder)["settings"]


def read_hash(folder: str | Path) -> str:
    """`Bank.hash` alone, without reading the facts unless someone changed their file. Raises as `Bank.open` does."""
    folder = bank_folder(folder)
    summary = _read_summary(folder)
    digest = hashlib.sha256(_read_bytes(folder / FACTS)).hexdigest()
    known = bank_history.version_of(folder, summary["version"], summary["sha256"], digest) is not None
    return digest if known else Bank.open(folder).hash


def bank_folder(spec: str | Path) -> Path:
    """The folder of the bank that ``spec`` names: a bank, or a run that has one. Raises UsageError otherwise."""
    for path in (Path(spec), Path(spec) / "knowledge", Path("runs") / spec / "knowledge"):
        if (path / SUMMARY).is_file() or (path / FACTS).is_file():
            return path
    path = Path(spec)
    if path.is_dir():
        raise UsageError(f"{path}: neither a bank nor a run with one (no {SUMMARY} in it, nor in {path / 'knowledge'})")
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    raise UsageError(f"{path}: there is no such bank or run{nearest(path.name, names)}")


# --- Facts as lines ---


def line_of(fact: Fact) -> str:
    """A fact as it stands in ``facts.jsonl``."""
    fields = ", ".join([f'"{name}": {_quoted(value)}' for name, value in fact.to_data().items()])
    return f"{{{fields}}}\n"


def data_of(facts: Sequence[Fact]) -> bytes:
    """All lines."""
    size = 1 << 14  # facts encoded at once: the text of a million need not be held beside its bytes
    blocks = (facts[start : start + size] for start in range(0, len(facts), size))
    return b"".join("".join(map(line_of, block)).encode() for block in blocks)


def read_facts(data: bytes, path: Path, trusted: bool = False) -> list[Fact]:
    """The facts in the bytes of a ``facts.jsonl``. Raises LichenError naming the first line that is none.

    ``trusted`` says that the checksum is known: lines we wrote ourselves are not looked at again.
    """
    collecting = gc.isenabled()
    gc.disable()  # a million facts are no garbage, but the collector would look through them again and again
    try:
        return _read_trusted(data) if trusted else _read_checked(data, path)
    finally:
        if collecting:
            gc.enable()


def check_facts(facts: Sequence[Fact]) -> None:
    """Raise UsageError at the first fact that can not stand in a bank, or whose id stands there already."""
    seen: set[str] = set()
    for number, fact in enumerate(facts):
        if problem := problem_of(fact):
            raise UsageError(f"fact {number} ({fact.id}): {problem[1]}")
        if fact.id in seen:
            raise UsageError(f"fact {number}: the id {fact.id!r} is used twice")
        seen.add(fact.id)
    if not facts:
        raise UsageError("a bank needs at least one fact")


def _read_trusted(data: bytes) -> list[Fact]:
    facts: list[Fact] = []
    shared: dict[str, str] = {}
    share = shared.setdefault  # many facts have a string in common
    lines = io.BytesIO(data)
    while block := lines.readlines(1 << 22):
        for row in json.loads(b"[" + b",".join(block) + b"]"):  # of one call a line, most time would go into the calls
            for name in ("relation", "object", "source"):
                if name in row:
                    row[name] = share(row[name], row[name])
            facts.append(Fact(**row))
    return facts


def _read_checked(data: bytes, path: Path) -> list[Fact]:
    facts: list[Fact] = []
    lines: dict[str, int] = {}
    number = 0
    for number, line in enumerate(io.BytesIO(data), start=1):
        try:
            fact = _fact_of_line(line)
        except ValueError as error:
            raise LichenError(f"{path}:{number}: {error}; {_remedy(path)}") from None
        if fact.id in lines:
            first = f"{path}:{number}: the id {fact.id!r} stands in line {lines[fact.id]} already"
            raise LichenError(f"{first}; {_remedy(path)}")
        lines[fact.id] = number
        facts.append(fact)
    if not facts:
        raise LichenError(f"{path}:{number}: there is no fact; {_remedy(path)}")
    return facts


def _fact_of_line(line: bytes) -> Fact:
    whole = line.endswith(b"\n")
    row = value_of_line(line.rstrip(b"\r\n"), whole=whole)
    if not isinstance(row, dict):
        raise BadLine("not_an_object", "no fact, but another JSON value")
    fact = fact_of_data(row)
    if problem := problem_of(fact):
        raise BadLine(*problem)
    return Fact(fact.id, fact.text, *map(sys.intern, (fact.subject, fact.relation, fact.object, fact.source)))


def _remedy(path: Path) -> str:
    return f"mend the line, or put back a copy of {path.name} (a run's checkpoints hold one)"


# --- Reading and writing the folder ---


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LichenError(f"{path}: {error.strerror}; restore the bank or build it anew") from None


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    if not path.is_file():
        raise LichenError(f"{path}: missing; restore it, or build a bank anew from {folder / FACTS}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = {label: Relation(row["id"], label, tuple(row["patterns"])) for label, row in data["relations"].items()}
        numbers = {name: int(data[name]) for name in ("version", "facts")}
        return {**numbers, "sha256": str(data["sha256"]), "settings": dict(data["settings"]), "relations": known}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise LichenError(f"{path}: damaged ({type(error).__name__}); restore it from a copy of the bank") from None


def relations_of(facts: Iterable[Fact], known: Mapping[str, Relation]) -> dict[str, Relation]:
    """By label, the relations of the facts in the order they are met, and those of ``known`` that have patterns."""
    labels = dict.fromkeys(fact.relation for fact in facts if fact.relation)
    labels |= dict.fromkeys(label for label, relation in known.items() if relation.patterns)
    return {label: known.get(label) or Relation("", label) for label in labels}


def _write(
    folder: Path, bank: Bank, data: bytes, history: Sequence[str], more: Mapping[str, str] | None = None
) -> None:
    """Everything into a sibling, which is then renamed."""
    if folder.exists():
        raise UsageError(f"{folder}: exists already; choose another folder, or remove it")
    partial = partial_of(folder)
    with disk_errors(folder):
        make_folder(folder.parent)
        remove_folder(partial)
        partial.mkdir()
    try:
        files: dict[str, bytes | str] = {FACTS: data, HISTORY: "".join(history), **(more or {})}
        for name, content in {**files, SUMMARY: bank.to_summary()}.items():
            write_file(partial / name, content)
        with disk_errors(folder):
            rename(partial, folder)
            fsync_folder(folder.parent)
    except BaseException:
        remove_folder(partial)
        raise


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
