"""Which entries of a bank the text speaks of: every place where an entry's object stands after its subject.

A place links the object of an entry, at most ``window`` characters behind its subject in the same document. Names are whole
words where words are spaced and stand anywhere in scripts without spaces; of names that lie in one another the longest
counts, from left to right. A name is matched as it is spelt, and, where it begins with a small letter, also with a capital
(as sentences begin), never the other way round: turkey is not Turkey. Of several subjects with that object the nearest
counts; all entries of this subject and object answer (London may be where someone was born and where he died).

One pass over the text looks at its words; only a word with which a name begins costs more, one look-up for each length of
such names. (A hash of first words does here what the automaton of Aho and Corasick does, 1975, at Python's speed.)

On disk links are a sparse column, one row per link (``LINK``). ``checksum`` stands for the ids of the object's tokens, so
that one can see without reading them whether they are those of the entry; 0 where tokens reach over the object's borders.

>>> from lichen.dataset.facts import made_fact
>>> facts = [made_fact("Ada", "place of birth", "London"), made_fact("Ada", "field", "logic"), made_fact("杜甫", "地", "巩县")]
>>> linker = Linker(facts)
>>> text = "London: Ada was born there. Ada did logic in London. 杜甫生于巩县。"
>>> [(text[found.start : found.stop], found.entries) for found in linker.find(text)]
[('logic', (1,)), ('London', (0,)), ('巩县', (2,))]
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from lichen.dataset.facts import Fact
from lichen.dataset.units import UNSPACED_SCRIPTS

MOST_ENTRIES = 4
"""Entries of one subject and object that a link names; further ones are left out."""

LINK = np.dtype(
    [
        ("document", "<i4"),  # within its shard
        ("subject", "<i4"),  # token offset of the subject's first token within the document
        ("start", "<i4"),  # of the object's first token
        ("count", "u1"),  # tokens of the object
        ("checksum", "<u4"),
        ("entries", "<i4", (MOST_ENTRIES,)),  # -1 fills up
    ]
)
"""A row of the links column, in the order of documents and of places in them."""

NO_LINKS = np.zeros(0, LINK)
MOST_TOKENS = 255
"""Objects of more tokens are not linked."""

_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS) + "\U00020000-\U0003ffff"
_MARKS = "".join(  # vowel signs and accents of their own, which go on with a word
    chr(code)
    for code in range(0x300, 0x1E00)
    if unicodedata.category(chr(code)).startswith("M")
    and not any(first <= code <= last for first, last in UNSPACED_SCRIPTS)
)
_WORD = re.compile(rf"[^\W{_UNSPACED}]+(?:[{_MARKS}]+[^\W{_UNSPACED}]*)*|[{_UNSPACED}]")
_WITHIN_A_WORD = re.compile(rf"(?:[^\W{_UNSPACED}]|[{_MARKS}]){{2}}")

Normalisation = Literal["nfc", "nfkc", "none"]


class Found(NamedTuple):
    """A link in characters of a text."""

    start: int
    """Where the object begins."""
    stop: int
    """Behind the object."""
    subject: int
    """Where the subject before it begins."""
    entries: tuple[int, ...]
    """Numbers of the entries that say this, ascending."""


class Linker:
    """Finds the links of texts to ``facts``, numbered in their order.

    ``window``: characters at most between subject and object. ``normalisation``: that of the texts; names are brought to
    the same form. Plain sentences (facts without subject or object) and names without a letter are never found.
    A million facts take about 0.3 GB beside the facts themselves.
    """

    def __init__(self, facts: Sequence[Fact], window: int = 200, normalisation: Normalisation = "nfc"):
        self.window = window
        self._form = None if normalisation == "none" else normalisation.upper()
        self._numbers: dict[str, int] = {}
        self._entries: dict[int, int | tuple[int, ...]] = {}
        self._read(facts)
        self._shapes: dict[str, tuple[tuple[int, int], ...]] = {}
        self._index()

    def _read(self, facts: Sequence[Fact]) -> None:
        """Number the names, and note which pairs of them are subject and object of which entries."""
        pairs = [
            (self._number(fact.subject), self._number(fact.object)) if fact.subject and fact.object else (-1, -1)
            for fact in facts
        ]
        self._count = len(self._numbers)
        self._subjects, self._objects = bytearray(self._count), bytearray(self._count)
        for entry, (subject, object) in enumerate(pairs):
            if subject < 0:
                continue
            self._subjects[subject] = self._objects[object] = 1
            key = subject * self._count + object
            before = self._entries.get(key)
            if before is None:
                self._entries[key] = entry  # a bare number is a third as big
            elif isinstance(before, int):
                self._entries[key] = (before, entry)
            elif len(before) < MOST_ENTRIES:
                self._entries[key] = (*before, entry)

    def _number(self, name: str) -> int:
        spelt = unicodedata.normalize(self._form, name) if self._form and not name.isascii() else name  # type: ignore[arg-type]
        return self._numbers.setdefault(spelt, len(self._numbers))

    def _index(self) -> None:
        """Per first word the shapes of the names beginning with it: characters before the word, and in all; longest first."""
        for name in list(self._numbers):
            if name[:1].islower():
                self._numbers.setdefault(name[0].upper() + name[1:], self._numbers[name])
        shapes: dict[str, set[tuple[int, int]]] = {}
        for name in self._numbers:
            if word := _WORD.search(name):
                shapes.setdefault(word.group(), set()).add((word.start(), len(name)))
        self._shapes = {word: tuple(sorted(found, key=lambda shape: -shape[1])) for word, found in shapes.items()}

    def find(self, text: str) -> list[Found]:
        """The links of ``text`` in the order of their places; their objects do not overlap."""
        found: list[Found] = []
        subjects: deque[tuple[int, int, int]] = deque()
        for start, stop, name in self._mentions(text):
            while subjects and start - subjects[0][1] > self.window:
                subjects.popleft()
            if self._objects[name]:
                for place, _, subject in reversed(subjects):
                    entries = self._entries.get(subject * self._count + name)
                    if entries is not None:
                        numbers = entries if isinstance(entries, tuple) else (entries,)
                        found.append(Found(start, stop, place, numbers))
                        break
            if self._subjects[name]:
                subjects.append((start, stop, name))
        return found

    def _mentions(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(start, stop, name) of the names in ``text``, from left to right, the longest at every place."""
        shapes_of, number_of = self._shapes.get, self._numbers.get
        behind = 0
        for word in _WORD.finditer(text):
            shapes = shapes_of(word.group())
            if shapes is None:
                continue
            place = word.start()
            for before, length in shapes:
                start = place - before
                if start < behind or start + length > len(text):
                    continue
                number = number_of(text[start : start + length])
                if number is not None and not _WITHIN_A_WORD.match(text, start + length - 1):
                    behind = start + length
                    yield start, behind, number
                    break


def checksums(tokens: np.ndarray) -> np.ndarray:
    """One number for every row of ids ``[N, C]``, -1 filling up from the right: uint32 ``[N]``, never 0, equal for equal ids.

    >>> first, second, third = checksums(np.array([[5, 6, -1], [6, 5, -1], [5, 6, -1]])).tolist()
    >>> first == third != second
    True
    """
    total = np.full(len(tokens), 0x811C9DC5, np.uint64)
    for column in tokens.T:
        total = np.where(column < 0, total, (total ^ (column + 1).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15))
    return np.maximum(total >> np.uint64(32), np.uint64(1)).astype(np.uint32)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
