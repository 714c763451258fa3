"""Words where words are spaced, characters where they are not: one notion of n-gram for every script, in whole arrays.

A unit is a run of letters and digits, or a single character of a script written without spaces (Chinese, Japanese, Thai,
Lao, Khmer, Burmese, Tibetan). Everything else separates. Case is folded. Units are never made into strings: a block of
documents becomes one array of code points, and every unit a 64-bit polynomial hash of its code points. N-grams are hashes
of the hashes.

>>> units = Units.of(["The moss, the MOSS", "苔藓地衣"])
>>> units.counts.tolist()
[4, 4]
>>> bool(units.hashes[0] == units.hashes[2]), bool(units.hashes[1] == units.hashes[3])
(True, True)
>>> hashes, documents = units.n_grams(2)
>>> documents.tolist()
[0, 0, 0, 1, 1, 1]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEPARATOR, SPACED, UNSPACED = 0, 1, 2
UNSPACED_SCRIPTS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
)
BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Units:
    """The units of a block of documents, one after the other."""

    hashes: np.ndarray
    """uint64 [U]: one per unit."""
    counts: np.ndarray
    """int64 [N]: units per document."""

    @classmethod
    def of(cls, texts: Sequence[str], characters: bool = False) -> Units:
        """The units of ``texts``; with ``characters``, every letter of every script is one."""
        folded = [text.lower() for text in texts]
        codes = np.frombuffer("\n".join([*folded, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _kinds()[codes]
        if characters:
            kinds = np.minimum(kinds, 1) * np.uint8(UNSPACED)
        starts = np.flatnonzero(_begins(kinds))
        hashes = _hash_units(codes, kinds, starts)
        lengths = np.fromiter((len(text) + 1 for text in folded), np.int64, len(folded))
        edges = np.searchsorted(starts, np.cumsum(lengths))
        return cls(hashes, np.diff(edges, prepend=0))

    @functools.cached_property
    def documents(self) -> np.ndarray:
        """int64 [U]: the document of each unit."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def n_grams(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes uint64 [G] of ``size`` units in a row that lie within one document, and their documents int64 [G]."""
        documents = self.documents
        total = len(self.hashes) - size + 1
        if total <= 0:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        combined = self.hashes[:total].copy()
        for shift in range(1, size):
            combined *= BASE
            combined += self.hashes[shift : shift + total]
        if size > 1:
            inside = documents[:total] == documents[size - 1 :]
            return mix(combined[inside]), documents[:total][inside]
        return mix(combined), documents


def mix(values: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of MurmurHash3 (Appleby, 2011): every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _begins(kinds: np.ndarray) -> np.ndarray:
    """Where a unit begins: at every unspaced character, and where a run of spaced ones does."""
    begins = kinds == UNSPACED
    begins[1:] |= (kinds[1:] == SPACED) & (kinds[:-1] != SPACED)
    if len(kinds):
        begins[0] |= kinds[0] == SPACED
    return begins


def _hash_units(codes: np.ndarray, kinds: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A polynomial in BASE over the mixed code points of each unit, wrapping around at 64 bits."""
    if not len(starts):
        return np.empty(0, np.uint64)
    spoken = kinds != SEPARATOR
    first = np.cumsum(spoken)[starts] - 1  # the units' starts among the characters that separate nothing
    lengths = np.diff(first, append=np.count_nonzero(spoken))
    place = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
    powers = np.cumprod(np.full(int(lengths.max()), BASE))
    return mix(np.add.reduceat(_mixed_codes()[codes[spoken]] * powers[place], first))


@functools.cache
def _kinds() -> np.ndarray:
    """uint8 [0x110000]: the kind of every code point."""
    kinds = np.zeros(0x110000, np.uint8)
    kinds[:0x20000] = np.fromiter((chr(code).isalnum() for code in range(0x20000)), np.uint8, 0x20000)
    for first, last in UNSPACED_SCRIPTS:
        kinds[first : last + 1] *= UNSPACED
    kinds[0x20000:0x40000] = UNSPACED  # rare Chinese characters
    return kinds


@functools.cache
def _mixed_codes() -> np.ndarray:
    return mix(np.arange(1, 0x110001, dtype=np.uint64))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
