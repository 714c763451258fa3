"""The history of a bank: one line per version, enough to go back.

A line is written before the facts are: it holds the SHA-256 they will have. What the last lines say has therefore happened
only if the facts are so; `version_of` decides, and `settle` removes what did not happen and a line that breaks off.

>>> entry = Entry(2, "delete", "ab" * 32, (Change(7, {"id": "a", "text": "moss"}, None),), time="2026-01-02 03:04:05")
>>> Entry.of_line(entry.to_line()) == entry
True
>>> undoable([Entry(1, "build", ""), Entry(2, "add", ""), Entry(3, "edit", ""), Entry(4, "undo", "", of=(3,))])
[2]
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError
from lichen.core.disk import disk_errors, sync, write_all
from lichen.core.folders import write_file

HISTORY = "history.jsonl"
BY_HAND = "by hand"


@dataclass(frozen=True)
class Change:
    """What happened to one entry: ``before`` is None where it was added, ``after`` where it was deleted."""

    entry: int
    before: dict[str, str] | None
    after: dict[str, str] | None


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class Entry:
    """One version. The changes are in the order they were made, each seeing the entries as those before left them."""

    version: int
    action: str
    """build, add, edit, delete, undo, or by hand (in an editor; what stood there before is not known)."""
    sha256: str
    """Of the facts of this version."""
    changes: tuple[Change, ...] = ()
    of: tuple[int, ...] = ()
    """Versions that an undo took back."""
    time: str = field(default_factory=_now)

    def to_line(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def of_line(cls, line: str | bytes) -> Entry:
        """Read it back. Raises ValueError, KeyError or TypeError where it is none."""
        data: dict[str, Any] = json.loads(line)
        changes = tuple(Change(**change) for change in data.pop("changes"))
        return cls(changes=changes, of=tuple(data.pop("of")), **data)


def read_history(folder: Path, until: int | None = None) -> list[Entry]:
    """All versions that happened (up to ``until``), oldest first. Raises LichenError at a line that is none."""
    entries = _read(folder)
    return entries if until is None else [entry for entry in entries if entry.version <= until]


def lines_until(folder: Path, version: int) -> list[str]:
    """The lines of a history up to a version."""
    return [entry.to_line() for entry in read_history(folder, version)]


def version_of(folder: Path, version: int, sha256: str, found: str) -> int | None:
    """Which version facts with the SHA-256 ``found`` are, where ``bank.json`` tells of ``version`` with ``sha256``.

    None where they are no version of ours: someone else changed them.
    """
    if found == sha256:
        return version
    newer = [entry for entry in _read(folder) if entry.version > version]
    return next((entry.version for entry in newer if entry.sha256 == found), None)


def settle(folder: Path, version: int) -> None:
    """Remove what follows ``version``: lines of changes that never happened, and one that breaks off."""
    lines = "".join(lines_until(folder, version))
    path = folder / HISTORY
    if not path.is_file() or path.read_bytes() != lines.encode():
        write_file(path, lines)


def append(folder: Path, entry: Entry) -> None:
    """Write a line to the end, and to the disk."""
    path = folder / HISTORY
    with disk_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, entry.to_line().encode())
            sync(descriptor)
        finally:
            os.close(descriptor)


def undoable(entries: Sequence[Entry]) -> list[int]:
    """Versions that can be taken back, the newest first: no undo, none that was undone, none that an editor stands before."""
    undone = {version for entry in entries for version in entry.of}
    found: list[int] = []
    for entry in reversed(entries):
        if entry.action in ("build", BY_HAND):
            break
        if entry.action != "undo" and entry.version not in undone:
            found.append(entry.version)
    return found


def _read(folder: Path) -> list[Entry]:
    """All lines; the last may break off, and is then left out."""
    path = folder / HISTORY
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LichenError(f"{path}: {error.strerror}") from None
    entries: list[Entry] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(Entry.of_line(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LichenError(f"{path}:{number}: no line of a history; restore it from a copy of the bank") from None
    return entries


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
