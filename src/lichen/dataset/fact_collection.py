"""From sources to the facts of a bank: read, reject, deduplicate, and account for every row.

``read == kept + duplicates + rejected``, per source and in all, each counted by reason. Of facts that say the same the first
is kept: the same parts (casefolded), or the same text (for a sentence that names no parts, whatever said it before). An id
that stands for something else already is a fault of the data and rejected. A source with more bad rows than
``max_bad_fraction`` stops the work; `Collector.rejects` lists them all.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "facts.txt"
>>> _ = path.write_text("Moss is green.\\nMoss is  green.\\n\\nRain is wet.\\n")
>>> collector = Collector(BankConfig())
>>> collector.add(path)
>>> collector.report().counts()
{'read': 4, 'kept': 2, 'duplicates': {'same_text': 1}, 'rejects': {'empty_line': 1}}
"""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lichen.config.knowledge import BankConfig
from lichen.dataset.fact_formats import FactReader, FactSource
from lichen.dataset.facts import Fact, object_place
from lichen.dataset.records import Reject
from lichen.dataset.rejects import EARLY, in_words
from lichen.dataset.relations import Relation
from lichen.dataset.sources import SourceError

Report = Callable[[str, int, int | None], None]
"""Called with a stage, how many rows are done, and of how many (None: unknown)."""
SHOWN = 10_000  # rows between two reports


@dataclass
class _Count:
    """One source's part."""

    read: int = 0
    kept: int = 0
    duplicates: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    first: Reject | None = None

    def to_data(self) -> dict[str, Any]:
        duplicates, rejects = (dict(sorted(counts.items())) for counts in (self.duplicates, self.rejects))
        return {"read": self.read, "kept": self.kept, "duplicates": duplicates, "rejects": rejects}


@dataclass(frozen=True)
class CollectionReport:
    """What became of every row."""

    read: int
    kept: int
    duplicates: dict[str, int]
    rejects: dict[str, int]
    sources: dict[str, dict[str, Any]]
    """The same four per source, by the path it was given as."""
    ignored_fields: dict[str, int]
    """Fields of rows that mean nothing to a bank, and how often they were met."""
    unlabelled: dict[str, int]
    """Relations known by an identifier only (name them in relations.json)."""
    respaced: int
    """Facts in which white space was made single spaces."""
    object_not_in_text: int
    """Kept facts whose text does not hold their object as it is spelt."""
    left_out: tuple[str, ...]
    """Files of facts beside those read: a folder of relation files gives these alone."""

    def counts(self) -> dict[str, Any]:
        """Read, kept, duplicates, rejects."""
        return {name: getattr(self, name) for name in ("read", "kept", "duplicates", "rejects")}

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Duplicates:
    """Knows facts by id, parts and text; says of a new one whether it is new.

    Known by the hash of what is compared, which takes a fraction of the memory; a hit is compared in full.
    """

    def __init__(self, facts: Iterable[Fact] = ()):
        self._by_id: dict[int, Fact] = {}
        self._by_parts: dict[int, Fact] = {}
        self._by_text: dict[int, Fact] = {}
        for fact in facts:
            self.add(fact)

    def earlier(self, fact: Fact) -> tuple[str, Fact] | None:
        """Why ``fact`` is not new ('same_parts', 'same_text', 'id_used_twice') and the fact met before; None if it is."""
        if fact.is_triple:
            found = self._by_parts.get(hash(_parts(fact)))
            if found is not None and _parts(found) == _parts(fact):
                return "same_parts", found
        else:
            found = self._by_text.get(hash(_text(fact)))
            if found is not None and _text(found) == _text(fact):
                return "same_text", found
        found = self._by_id.get(hash(fact.id))
        return ("id_used_twice", found) if found is not None and found.id == fact.id else None

    def add(self, fact: Fact) -> None:
        """Know ``fact`` from now on."""
        self._by_id.setdefault(hash(fact.id), fact)
        self._by_text.setdefault(hash(_text(fact)), fact)
        if fact.is_triple:
            self._by_parts.setdefault(hash(_parts(fact)), fact)


def _parts(fact: Fact) -> tuple[str, str, str]:
    return fact.subject.casefold(), fact.relation.casefold(), fact.object.casefold()


def _text(fact: Fact) -> str:
    return fact.text if fact.text.isascii() else unicodedata.normalize("NFC", fact.text)


class Collector:
    """Adds sources one after the other; ``facts`` are in the order of reading."""

    def __init__(self, config: BankConfig, report: Report = lambda *_: None):
        self._config = config
        self._report = report
        self._reader = FactReader(config)
        self._known = Duplicates()
        self._counts: dict[str, _Count] = {}
        self._left_out: list[str] = []
        self._without_object = 0
        self.fingerprints: list[dict[str, Any]] = []
        """Of every source, see `Source.fingerprint`."""
        self.facts: list[Fact] = []
        self.rejects: list[Reject] = []
        """Every bad row."""

    @property
    def relations(self) -> dict[str, Relation]:
        """By label, those of the facts that were kept."""
        known = self._reader.relations
        labels = dict.fromkeys(fact.relation for fact in self.facts if fact.relation)
        return {label: known.get(label, Relation("", label)) for label in labels}

    def add(self, path: Path) -> None:
        """Read a file, a folder or a glob. Raises UsageError, and SourceError where it is damaged, empty or mostly bad."""
        found = self._reader.find(path)
        count = self._counts.setdefault(str(path), _Count())
        self._left_out += found.left_out
        for item in self._reader.read(found):
            count.read += 1
            if count.read % SHOWN == 0:
                self._report(f"read {path.name}", count.read, None)
            if isinstance(item, Reject):
                self._reject(count, item)
            else:
                self._take(count, item, found)
            if count.read == EARLY and self._bad(count) > max(self._config.max_bad_fraction, 0.5) * EARLY:
                break
        self._judge(path, count)
        self.fingerprints.append(found.source.fingerprint())

    def report(self) -> CollectionReport:
        """The counts so far."""
        counts = list(self._counts.values())
        read, kept = sum(count.read for count in counts), sum(count.kept for count in counts)
        duplicates = sum((count.duplicates for count in counts), Counter())
        rejects = sum((count.rejects for count in counts), Counter())
        assert read == kept + duplicates.total() + rejects.total(), "every row is kept, a duplicate or rejected"
        return CollectionReport(
            read=read,
            kept=kept,
            duplicates=dict(sorted(duplicates.items())),
            rejects=dict(sorted(rejects.items())),
            sources={name: count.to_data() for name, count in self._counts.items()},
            ignored_fields=dict(sorted(self._reader.ignored.items())),
            unlabelled=dict(sorted(self._reader.unlabelled.items())),
            respaced=self._reader.respaced,
            object_not_in_text=self._without_object,
            left_out=tuple(self._left_out),
        )

    def _take(self, count: _Count, fact: Fact, found: FactSource) -> None:
        earlier = self._known.earlier(fact)
        if earlier is None:
            fact = _interned(fact)
            self._known.add(fact)
            self.facts.append(fact)
            count.kept += 1
            self._without_object += bool(fact.object) and object_place(fact) is None
        elif earlier[0] != "id_used_twice":
            count.duplicates[earlier[0]] += 1
        else:
            detail = f"id {fact.id} stands already for {earlier[1].text[:60]!r} ({earlier[1].source})"
            file, line = self._reader.place
            name = found.source.name
            self._reject(count, Reject(file, line, earlier[0], detail, fact.text[:80], name, count.read - 1))

    def _reject(self, count: _Count, reject: Reject) -> None:
        count.rejects[reject.cause] += 1
        self.rejects.append(reject)
        if reject.cause != "empty_line":
            count.first = count.first or reject

    @staticmethod
    def _bad(count: _Count) -> int:
        return count.rejects.total() - count.rejects["empty_line"]  # nothing is lost with an empty line

    def _judge(self, path: Path, count: _Count) -> None:
        bad, limit = self._bad(count), self._config.max_bad_fraction
        if count.read == count.rejects["empty_line"]:
            raise SourceError(f"{path}: holds no fact; give a source with facts, or leave it out", str(path))
        if count.first is None or bad <= limit * count.read:
            return
        first = f"{count.first.file}:{count.first.line}: {count.first.detail}"
        raise SourceError(
            f"{path}: {bad} of {count.read} rows are bad ({in_words(count.rejects)}), more than the {limit:.3g} of"
            f" max_bad_fraction; first {first}; repair them or raise the limit",
            str(path),
        )


def _interned(fact: Fact) -> Fact:
    """The same, sharing the strings that many facts have in common."""
    intern = sys.intern
    parts = (intern(part) for part in (fact.subject, fact.relation, fact.object, fact.source))
    return Fact(fact.id, fact.text, *parts)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
