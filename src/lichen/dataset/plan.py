"""The plan of an epoch: which pieces of which documents stand in row number n, for any n, without a list of all documents.

An epoch visits the documents in the order of a permutation drawn from (seed, epoch). The order is cut into windows; each window
is packed on its own (see ``packing``) and its rows are shuffled. Only the windows in use are held in memory; of the others the
number of rows is counted, which is cheap. Rows are numbered through all epochs: ``row(n)`` is a pure function of n.

A document of t tokens (its closing end-of-text token counted) fills t - 1 places: place i reads token i and has token i + 1 for
target. Nothing is lost by not reading the last token, as it has no target. A document longer than a row is cut into pieces;
a piece's last target is the next piece's first token, so that cutting loses no target either, only context. The first token
of a document is never a target, and a document of a single token has no place at all.

>>> documents = DocumentList("tale", [[1, 2, 3, 0], [4, 5, 0], [6, 7, 8, 9, 0]])
>>> plan = Plan(documents, capacity=5, seed=0)
>>> plan.rows_in_epoch(0), sorted(piece for n in range(2) for piece in plan.row(n))
(2, [Piece(document=0, start=0, length=3), Piece(document=1, start=0, length=2), Piece(document=2, start=0, length=4)])
>>> steps_for_epochs(plan, epochs=3, batch_rows=4)
2
"""

from __future__ import annotations

import bisect
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from lichen.config.errors import LichenError, UsageError
from lichen.core.streams import Stream
from lichen.dataset.linking import NO_LINKS
from lichen.dataset.packing import Packed, count_bins, pack

DEFAULT_WINDOW = 65536
"""Documents packed together: enough for full rows, little enough to hold a few windows in memory."""

WINDOWS_HELD = 3
"""Packed windows kept per plan; consecutive rows need one or two."""


class DocumentSet(Protocol):
    """Tokenised documents that are read by number, usually memory-mapped."""

    @property
    def name(self) -> str:
        """What messages and random streams call the set."""
        ...

    @property
    def weight(self) -> float | None:
        """Share in a mixture; None for in proportion to the tokens."""
        ...

    @property
    def lengths(self) -> np.ndarray:
        """``[N]`` tokens per document, the closing end-of-text token counted."""
        ...

    @property
    def bytes(self) -> np.ndarray:
        """``[N]`` UTF-8 bytes of each document's source text."""
        ...

    @property
    def linked(self) -> bool:
        """Whether (some of) the documents were linked with the entries of a bank."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def tokens(self, i: int, /, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Tokens ``start … stop`` of document ``i``."""
        ...

    def links(self, i: int, /) -> np.ndarray:
        """The links of document ``i``, rows of ``lichen.dataset.linking.LINK``."""
        ...


class Piece(NamedTuple):
    """A stretch of one document that fills ``length`` places of a row; it reads ``length + 1`` tokens from ``start``."""

    document: int
    start: int
    length: int


class RowSource(Protocol):
    """Rows numbered through all epochs: a plan, or a mixture of plans."""

    @property
    def documents(self) -> DocumentSet:
        """What the pieces' document numbers refer to."""
        ...

    @property
    def capacity(self) -> int:
        """Places of a row, T."""
        ...

    def rows_in_epoch(self, epoch: int) -> int:
        """How many rows an epoch has."""
        ...

    def rows_before(self, epoch: int) -> int:
        """The number of the epoch's first row."""
        ...

    def row(self, counter: int) -> tuple[Piece, ...]:
        """What stands in row number ``counter``; the rest of it is padding."""
        ...


class Plan:
    """Order and packing of one set of documents, epoch after epoch.

    ``capacity`` is the length T of a row; ``window`` how many documents are packed together. Raises LichenError when no
    document has a target, UsageError for a capacity or window below 1.
    """

    def __init__(self, documents: DocumentSet, capacity: int, seed: int, window: int = DEFAULT_WINDOW):
        if capacity < 1 or window < 1:
            raise UsageError(f"sequence_length {capacity} and window {window} must be at least 1")
        if not len(documents) or int(np.max(documents.lengths)) < 2:
            raise LichenError(
                f"{documents.name}: none of its {len(documents)} documents has two tokens, so there is nothing to learn from; "
                "look at the preparation's statistics.json and rejects.jsonl, and relax its filters or add sources"
            )
        self.documents = documents
        self.capacity = capacity
        self.windows = math.ceil(len(documents) / window)
        self._stream = Stream(seed, f"plan/{documents.name}")
        self._epoch_ends: list[int] = []  # rows up to and including each epoch counted so far
        self._counted: dict[int, list[int]] = {}  # epoch -> rows up to and including each of its windows counted so far
        self._held: OrderedDict[tuple[int, int], _Window] = OrderedDict()

    @property
    def targets_in_epoch(self) -> int:
        """Places filled in one epoch, which is the number of its targets; padding is not counted."""
        lengths = self.documents.lengths
        return int(lengths.sum(dtype=np.int64)) - int(np.count_nonzero(lengths))

    def rows_in_epoch(self, epoch: int) -> int:
        """How many rows ``epoch`` has; it may differ by a few between epochs when there are several windows."""
        return self._ends(epoch, None)[-1]

    def rows_before(self, epoch: int) -> int:
        """How many rows all epochs before ``epoch`` have together."""
        if self.windows == 1:  # one window packs the same lengths in every epoch
            return epoch * self.rows_in_epoch(0)
        while len(self._epoch_ends) < epoch:
            number = len(self._epoch_ends)
            self._epoch_ends.append(self.rows_in_epoch(number) + (self._epoch_ends[-1] if number else 0))
        return self._epoch_ends[epoch - 1] if epoch else 0

    def position(self, counter: int) -> tuple[int, int]:
        """(epoch, row within the epoch) of row number ``counter``."""
        if counter < 0:
            raise IndexError(f"row numbers start at 0, not {counter}")
        if self.windows == 1:
            return divmod(counter, self.rows_in_epoch(0))
        epoch = bisect.bisect_right(self._epoch_ends, counter)
        while True:
            row = counter - self.rows_before(epoch)
            if row < self._ends(epoch, row)[-1]:
                return epoch, row
            epoch += 1

    def row(self, counter: int) -> tuple[Piece, ...]:
        """The pieces of row number ``counter``, none of which overlaps another row of the same epoch."""
        epoch, row = self.position(counter)
        ends = self._ends(epoch, row)
        window = bisect.bisect_right(ends, row)
        return self._window(epoch, window).row(row - (ends[window - 1] if window else 0))

    def _ends(self, epoch: int, row: int | None) -> list[int]:
        """Cumulative rows of the epoch's windows, counted until ``row`` is covered (None: all of them)."""
        key = 0 if self.windows == 1 else epoch
        if key not in self._counted and len(self._counted) >= 2:
            del self._counted[min(self._counted)]
        ends = self._counted.setdefault(key, [])
        while len(ends) < self.windows and (row is None or not ends or ends[-1] <= row):
            places = self._places(self._members(epoch, len(ends)))
            rests = places % self.capacity
            rows = int((places // self.capacity).sum()) + count_bins(rests[rests > 0], self.capacity)
            ends.append(rows + (ends[-1] if ends else 0))
        return ends

    def _window(self, epoch: int, window: int) -> _Window:
        if (epoch, window) not in self._held:
            documents = self._members(epoch, window)
            generator = self._stream.numpy(epoch, window)
            self._held[epoch, window] = _Window.build(documents, self._places(documents), self.capacity, generator)
            if len(self._held) > WINDOWS_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end((epoch, window))
        return self._held[epoch, window]

    def _members(self, epoch: int, window: int) -> np.ndarray:
        """Documents of a window in the epoch's order; windows are of equal size, give or take one."""
        total = len(self.documents)
        start, stop = (total * number // self.windows for number in (window, window + 1))
        return self._stream.permutation(total, epoch).take(np.arange(start, stop))

    def _places(self, documents: np.ndarray) -> np.ndarray:
        return np.maximum(np.asarray(self.documents.lengths[documents], dtype=np.int64) - 1, 0)


@dataclass(frozen=True)
class _Window:
    """A packed window: first the rows filled by one piece each, then the rows that rests of documents share."""

    capacity: int
    documents: np.ndarray  # [N] in the epoch's order
    full_ends: np.ndarray  # [N] full rows up to and including each document
    sharing: np.ndarray  # [M] positions in `documents` of those with a rest
    rests: np.ndarray  # [M] places of the rest
    packed: Packed  # of the rests
    shuffled: np.ndarray  # [rows] which row stands at which place

    @classmethod
    def build(cls, documents: np.ndarray, places: np.ndarray, capacity: int, generator: np.random.Generator) -> _Window:
        rests = places % capacity
        sharing = np.flatnonzero(rests)
        full_ends = np.cumsum(places // capacity)
        packed = pack(rests[sharing], capacity)
        shuffled = generator.permutation(int(full_ends[-1]) + packed.bins)
        return cls(capacity, documents, full_ends, sharing, rests[sharing], packed, shuffled)

    def row(self, number: int) -> tuple[Piece, ...]:
        row, full = int(self.shuffled[number]), int(self.full_ends[-1])
        if row < full:
            i = int(np.searchsorted(self.full_ends, row, side="right"))
            before = int(self.full_ends[i - 1]) if i else 0
            return (Piece(int(self.documents[i]), (row - before) * self.capacity, self.capacity),)
        return tuple(self._rest(item) for item in self.packed.members(row - full).tolist())

    def _rest(self, item: int) -> Piece:
        i = int(self.sharing[item])
        full = int(self.full_ends[i] - (self.full_ends[i - 1] if i else 0))
        return Piece(int(self.documents[i]), full * self.capacity, int(self.rests[item]))


class DocumentList:
    """Documents held in memory, as lists of token ids: for trying things out and for tests.

    ``links``: those of every document, rows of ``LINK``."""

    def __init__(
        self,
        name: str,
        documents: Sequence[Sequence[int]],
        weight: float | None = None,
        links: Sequence[np.ndarray] | None = None,
    ):
        self.name = name
        self.weight = weight
        self.linked = links is not None
        self._links = links
        self.lengths = np.array([len(document) for document in documents], dtype=np.int32)
        self.bytes = 3 * np.maximum(self.lengths.astype(np.int64) - 1, 0)  # as if a token stood for three bytes
        self._documents = [np.asarray(document, dtype=np.int64) for document in documents]

    def __len__(self) -> int:
        return len(self._documents)

    def tokens(self, i: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Tokens ``start … stop`` of document ``i``, int64."""
        return self._documents[i][start:stop]

    def links(self, i: int) -> np.ndarray:
        """The links of document ``i``."""
        return NO_LINKS if self._links is None else self._links[i]


def piece_bytes(documents: DocumentSet, piece: Piece) -> int:
    """The source bytes that a piece's targets stand for: the document's, in proportion to its targets, in whole bytes.

    Over all pieces of a document they add up to its bytes exactly.
    """
    total, places = int(documents.bytes[piece.document]), int(documents.lengths[piece.document]) - 1
    return total * (piece.start + piece.length) // places - total * piece.start // places


def steps_per_epoch(source: RowSource, batch_rows: int, epoch: int = 0) -> int:
    """Steps of ``batch_rows`` rows that cover one epoch; the last one may reach into the next epoch."""
    return math.ceil(source.rows_in_epoch(epoch) / batch_rows)


def steps_for_epochs(source: RowSource, epochs: float, batch_rows: int) -> int:
    """Steps that cover ``epochs`` (a fraction is allowed), at least one; rows are counted on through epochs, not per epoch."""
    whole = math.floor(epochs)
    rows = source.rows_before(whole)
    if epochs > whole:
        rows += math.ceil((epochs - whole) * source.rows_in_epoch(whole))
    return max(1, math.ceil(rows / batch_rows))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
