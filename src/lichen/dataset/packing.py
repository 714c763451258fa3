"""Packing: which documents share a row, so that rows are full and no document is cut without need.

Best-fit decreasing (Johnson, 1974): documents from long to short, each into the fullest row that still holds it. Documents
of equal length are interchangeable, and so are rows of equal remaining room; hence the algorithm runs on *counts*: one
``Move`` puts a whole group of equal documents into all rows of one room at once. Filling a row as often as the length fits is
exactly what one document at a time would do, since a row just used is the fullest one. The bits of one integer say which rooms
exist, so that the smallest sufficient room is one shift away.

>>> packed = pack(np.array([3, 7, 5, 5]), capacity=10)
>>> [packed.members(bin).tolist() for bin in range(packed.bins)]
[[1, 0], [2, 3]]
>>> count_bins(np.array([3, 7, 5, 5]), capacity=10), packed.utilisation
(2, 1.0)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Move(NamedTuple):
    """Equal documents going into equal rows."""

    length: int
    """Tokens of each document."""
    room: int
    """What is left in each of the rows; rows of room ``capacity`` are opened by this move."""
    full_bins: int
    """How many rows take ``per_bin`` documents."""
    per_bin: int
    """As many as the room holds."""
    remainder: int
    """How many documents go into one further row of the same room; 0 for no such row."""


@dataclass(frozen=True)
class Packed:
    """Which item lies in which bin (row)."""

    bin_of: np.ndarray
    """``[N]`` int64 bin number per item."""
    order: np.ndarray
    """``[N]`` int64 items, sorted by bin; longest first within a bin."""
    starts: np.ndarray
    """``[bins + 1]`` int64: bin b holds ``order[starts[b]:starts[b + 1]]``."""
    filled: int
    """Tokens of all items together."""
    capacity: int
    """Tokens a bin holds."""

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return len(self.starts) - 1

    @property
    def utilisation(self) -> float:
        """Share of all places that hold a token; 1 when there is nothing to pack."""
        return self.filled / (self.bins * self.capacity) if self.bins else 1.0

    def members(self, bin: int) -> np.ndarray:
        """The items of one bin, int64, longest first."""
        return self.order[self.starts[bin] : self.starts[bin + 1]]


def pack(lengths: np.ndarray, capacity: int) -> Packed:
    """Assign items of ``lengths`` (int ``[N]``, each in 1 … ``capacity``) to bins of ``capacity``; no item is split.

    Items of equal length are taken in the order given, so that a shuffled input gives other neighbours. Time grows with the
    number of distinct lengths more than with N. Raises ValueError for a length out of range.
    """
    lengths = _checked(lengths, capacity)
    by_length = np.argsort(-lengths, kind="stable")
    bin_of = np.empty(len(lengths), dtype=np.int64)
    shelves = _Shelves()
    done = 0
    for move in _moves(np.bincount(lengths, minlength=capacity + 1), capacity):
        group = by_length[done : done + move.full_bins * move.per_bin + move.remainder]
        done += len(group)
        bins = shelves.take(move.room, move.full_bins + (move.remainder > 0), fresh=move.room == capacity)
        bin_of[group] = np.repeat(bins, move.per_bin)[: len(group)]
        shelves.put(move.room - move.per_bin * move.length, bins[: move.full_bins])
        shelves.put(move.room - move.remainder * move.length, bins[move.full_bins :])
    order = by_length[np.argsort(bin_of[by_length], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=shelves.opened))]).astype(np.int64)
    return Packed(bin_of, order, starts, int(lengths.sum()), capacity)


def count_bins(lengths: np.ndarray, capacity: int) -> int:
    """How many bins ``pack`` would use, without assigning a single item."""
    counts = np.bincount(_checked(lengths, capacity), minlength=capacity + 1)
    return sum(move.full_bins + (move.remainder > 0) for move in _moves(counts, capacity) if move.room == capacity)


def _checked(lengths: np.ndarray, capacity: int) -> np.ndarray:
    lengths = np.asarray(lengths, dtype=np.int64)
    if capacity < 1 or (lengths.size and (lengths.min() < 1 or lengths.max() > capacity)):
        raise ValueError(f"lengths to pack must lie in 1 … {capacity}; cut longer documents first")
    return lengths


def _moves(counts: np.ndarray, capacity: int) -> Iterator[Move]:
    """Best-fit decreasing on ``counts [capacity + 1]`` of items per length."""
    rooms: dict[int, int] = {}  # remaining room -> how many bins have it
    mask = 0  # bit r is set when rooms[r] > 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            sufficient = mask >> length
            room = length + (sufficient & -sufficient).bit_length() - 1 if sufficient else capacity
            per_bin = room // length
            available = rooms.pop(room) if sufficient else left
            full, remainder = divmod(min(left, available * per_bin), per_bin)
            left -= full * per_bin + remainder
            if sufficient:
                mask ^= 1 << room
                untouched = available - full - (remainder > 0)
                mask |= _add(rooms, room, untouched)
            mask |= _add(rooms, room - per_bin * length, full)
            mask |= _add(rooms, room - remainder * length, int(remainder > 0))
            yield Move(length, room, full, per_bin, remainder)


def _add(rooms: dict[int, int], room: int, count: int) -> int:
    """Note ``count`` bins of ``room``; the bit to set. Full bins are forgotten."""
    if not count or not room:
        return 0
    rooms[room] = rooms.get(room, 0) + count
    return 1 << room


class _Shelves:
    """Bin numbers by remaining room, in chunks, so that whole groups move without a loop over bins."""

    def __init__(self) -> None:
        self.opened = 0
        self._chunks: dict[int, list[np.ndarray]] = {}

    def take(self, room: int, count: int, fresh: bool) -> np.ndarray:
        """``count`` bins of ``room``, newly opened when ``fresh``."""
        if fresh:
            self.opened += count
            return np.arange(self.opened - count, self.opened)
        chunks = self._chunks[room]
        bins = np.concatenate(chunks) if len(chunks) > 1 else chunks[0]
        self._chunks[room] = [bins[count:]] if count < len(bins) else []
        return bins[:count]

    def put(self, room: int, bins: np.ndarray) -> None:
        """Shelve ``bins`` under their new room."""
        if room and len(bins):
            self._chunks.setdefault(room, []).append(bins)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
