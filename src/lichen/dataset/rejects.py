"""Counting what is read, kept, dropped and rejected, and the verdict on sources that are mostly unreadable.

A source is bad when it is damaged, holds nothing, or more than ``max_bad_fraction`` of its lines are rejected: judged at
its end, so that a few bad lines at its beginning stop nothing, and before that only when most of many lines are bad. Empty
lines are rejected too, but not judged: a blank one at the end of a short file is no sign of damage. A bad
source stops the work, or (``bad_source: skip``) is left out whole: its documents are dropped as ``bad_source``, and the
report says why.

>>> tally = Tally([], CleanConfig(max_bad_fraction=0.5))
>>> summary = {"source": "poems", "read": 4, "kept": 2, "bytes": 80, "dropped": {"empty": 1}, "rejects": {"nul": 1}}
>>> tally.add(summary | {"first_reject": None, "last": True, "error": ""})
>>> tally.decide("poems", np.array([0, 2]))
>>> tally.report().dropped
{'empty': 1, 'near_duplicate': 1, 'rejected': 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lichen.config.cleaning import CleanConfig
from lichen.dataset.duplicates import REASONS
from lichen.dataset.sources import Source, SourceError

EARLY = 10_000  # lines after which a source that is mostly bad is given up before its end


@dataclass(frozen=True)
class CleanReport:
    """What became of everything that was read: ``read == kept + sum(dropped.values())``, in all and per source."""

    read: int
    kept: int
    dropped: dict[str, int]
    rejects: dict[str, int]
    """Rejected lines by cause; their sum is ``dropped["rejected"]``."""
    sources: dict[str, dict[str, Any]]
    """Per source: read, kept, dropped, rejects, bytes, and the error of one that was skipped ('' otherwise)."""

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class _Count:
    """One source's part."""

    read: int = 0
    kept: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    first: dict[str, Any] | None = None
    error: str = ""

    def to_data(self) -> dict[str, Any]:
        counts = {"dropped": _sorted(self.dropped), "rejects": _sorted(self.rejects)}
        return {"read": self.read, "kept": self.kept, **counts, "bytes": self.bytes, "error": self.error}


class Tally:
    """Adds up the summaries of scanned chunks (see `lichen.dataset.cleaning.scan_chunk`), in order."""

    def __init__(self, sources: Iterable[Source], config: CleanConfig):
        self._config = config
        self._counts = {source.name: _Count() for source in sources}
        self.chunk_sources: list[str] = []
        """The source of every chunk."""

    @property
    def chunks(self) -> int:
        """How many chunks were added."""
        return len(self.chunk_sources)

    def add(self, summary: Mapping[str, Any]) -> None:
        """Count one chunk. Raises `SourceError` where its source proves bad, unless such sources are skipped."""
        name = summary["source"]
        count = self._counts.setdefault(name, _Count())
        self.chunk_sources.append(name)
        count.read += summary["read"]
        count.bytes += summary["bytes"]
        count.dropped.update(summary["dropped"])
        count.rejects.update(summary["rejects"])
        if summary["rejects"]:
            count.dropped["rejected"] += sum(summary["rejects"].values())
        count.first = count.first or summary["first_reject"]
        count.error = summary["error"] or self._verdict(name, count, summary["last"])
        if count.error and self._config.bad_source == "stop":
            raise SourceError(count.error, name)

    def error(self, source: str) -> str:
        """Why the source is left out; '' if it is not."""
        return self._counts[source].error

    def decide(self, source: str, codes: np.ndarray) -> None:
        """Count a chunk's documents that passed the filters, by their code in `duplicates.REASONS`."""
        count = self._counts[source]
        if count.error:
            count.dropped["bad_source"] += len(codes)
            return
        for code, times in enumerate(np.bincount(codes, minlength=len(REASONS)).tolist()):
            if not code:
                count.kept += times
            elif times:
                count.dropped[REASONS[code]] += times

    def report(self) -> CleanReport:
        """The counts so far; whole once every chunk was decided."""
        counts = self._counts.values()
        dropped = sum((count.dropped for count in counts), Counter())
        rejects = sum((count.rejects for count in counts), Counter())
        read, kept = sum(count.read for count in counts), sum(count.kept for count in counts)
        assert read == kept + dropped.total(), "everything read is kept or dropped"
        sources = {name: count.to_data() for name, count in self._counts.items()}
        return CleanReport(read, kept, _sorted(dropped), _sorted(rejects), sources)

    def _verdict(self, name: str, count: _Count, last: bool) -> str:
        bad = count.rejects.total() - count.rejects["empty_line"]  # nothing is lost with an empty line
        limit = self._config.max_bad_fraction
        early = count.read >= EARLY and bad > max(limit, 0.5) * count.read and self._config.bad_source == "stop"
        if last and count.read == count.rejects["empty_line"]:
            return f"source {name} holds no document; give one with documents or leave it out"
        if not (early or last) or bad <= limit * count.read:
            return ""
        first = f"; first {count.first['file']}:{count.first['line']}: {count.first['detail']}" if count.first else ""
        return (
            f"source {name}: {bad} of {count.read} lines are bad ({in_words(count.rejects)}), more than the"
            f" {limit:.3g} of clean.max_bad_fraction{first}; repair them (all are in rejects.jsonl) or raise the limit"
        )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """By name: the order in which reasons were met depends on the chunks."""
    return {name: counts[name] for name in sorted(counts)}


def in_words(counts: Mapping[str, int]) -> str:
    """Counts, largest first.

    >>> in_words({"empty": 1, "too_short": 20})
    'too_short 20, empty 1'
    """
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
