"""Several sources in fixed shares: which source gives row number n, and which of its rows, as a pure function of n.

After n rows, source 0 has given ``floor(n · w0)``; of the m rows it left, source 1 has given ``floor(m · w1 / (1 - w0))``, and so
on down the list. Each of these counts grows by 0 or 1 with every row and they always add up to n, so long-run shares are exact
(counts never drift: their error stays below the number of sources, however small a weight) without any state. Inside a block of
rows the order is then shuffled, so that sources do not alternate mechanically.

A source that runs out starts its next epoch, in a new order. An epoch of the mixture is *as many rows as the sources have
together* in their first epoch: with shares that differ from the sizes, a small source with a large weight is repeated within it
and another is not finished. Sources without weights are not mixed but joined into one set, each document once per epoch,
which is exactly "in proportion to the tokens". Mixtures may be nested.

>>> shares = Shares([Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)])
>>> shares.before(6), shares.before(6_000_001)
((3, 2, 1), (3000000, 2000000, 1000001))
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lichen.config.errors import UsageError
from lichen.core.streams import Stream
from lichen.dataset.plan import DEFAULT_WINDOW, DocumentSet, Piece, Plan, RowSource

BLOCK_ROWS = 256
"""Rows shuffled together."""

BLOCKS_HELD = 4


class Joined:
    """Several document sets read as one, numbered one after the other."""

    weight = None

    def __init__(self, parts: Sequence[DocumentSet]):
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in self.parts)
        self.linked = any(part.linked for part in self.parts)
        self.lengths = np.concatenate([part.lengths for part in self.parts])
        self._bytes: np.ndarray | None = None
        self.offsets = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])]).astype(np.int64)

    @property
    def bytes(self) -> np.ndarray:
        """``[N]`` UTF-8 bytes per document of all parts."""
        if self._bytes is None:
            self._bytes = np.concatenate([part.bytes for part in self.parts])
        return self._bytes

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def tokens(self, i: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Tokens ``start … stop`` of document ``i``."""
        part, number = self._find(i)
        return part.tokens(number, start, stop)

    def links(self, i: int) -> np.ndarray:
        """The links of document ``i``."""
        part, number = self._find(i)
        return part.links(number)

    def _find(self, i: int) -> tuple[DocumentSet, int]:
        part = int(np.searchsorted(self.offsets, i, side="right")) - 1
        return self.parts[part], i - int(self.offsets[part])


@dataclass(frozen=True)
class Shares:
    """Exact counts per source for shares that add up to 1."""

    weights: Sequence[Fraction]

    def before(self, rows: int) -> tuple[int, ...]:
        """How many of the first ``rows`` rows each source gives."""
        counts, left, weight_left = [], rows, Fraction(1)
        for weight in self.weights:
            share = weight / weight_left if weight_left else Fraction(1)
            counts.append(math.floor(left * share))
            left -= counts[-1]
            weight_left -= weight
        return tuple(counts)


class Mixture:
    """Row sources mixed in fixed shares. Document numbers of its pieces refer to ``documents``, all sources joined.

    ``weights`` are positive and are divided by their sum. Raises UsageError otherwise, or if row lengths differ.
    """

    def __init__(self, plans: Sequence[RowSource], weights: Sequence[float], seed: int, block_rows: int = BLOCK_ROWS):
        if len(plans) != len(weights) or not plans or not all(0 < weight < math.inf for weight in weights):
            raise UsageError(
                f"a mixture needs one weight above 0 for each of its {len(plans)} sources, not {list(weights)}"
            )
        if len({plan.capacity for plan in plans}) > 1:
            raise UsageError(f"sources of a mixture need rows of one length, not {[plan.capacity for plan in plans]}")
        self.plans = tuple(plans)
        self.documents = Joined([plan.documents for plan in plans])
        self.capacity = plans[0].capacity
        self.block_rows = block_rows
        exact = [Fraction(str(float(weight))) for weight in weights]  # 0.1 is meant as a tenth
        self.shares = Shares([weight / sum(exact) for weight in exact])
        self._stream = Stream(seed, f"mixture/{self.documents.name}")
        self._held: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def rows_in_epoch(self, epoch: int) -> int:
        """As many rows as the sources have together in their first epoch, whichever ``epoch`` it is."""
        return sum(plan.rows_in_epoch(0) for plan in self.plans)

    def rows_before(self, epoch: int) -> int:
        """The number of the epoch's first row."""
        return epoch * self.rows_in_epoch(0)

    def source(self, counter: int) -> tuple[int, int]:
        """(source, number of the row within that source) of row number ``counter``."""
        block, place = divmod(counter, self.block_rows)
        sources, rows = self._block(block)
        return int(sources[place]), int(rows[place])

    def row(self, counter: int) -> tuple[Piece, ...]:
        """The pieces of row number ``counter``."""
        source, row = self.source(counter)
        offset = int(self.documents.offsets[source])
        return tuple(piece._replace(document=piece.document + offset) for piece in self.plans[source].row(row))

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and row within the source for every place of a block, both ``[block_rows]``."""
        if block not in self._held:
            before = self.shares.before(block * self.block_rows)
            after = self.shares.before((block + 1) * self.block_rows)
            counts = np.subtract(after, before)
            sources = self._stream.numpy(block).permutation(np.repeat(np.arange(len(counts)), counts))
            rows = np.empty(self.block_rows, dtype=np.int64)
            for source, first in enumerate(before):
                places = np.flatnonzero(sources == source)
                rows[places] = first + np.arange(len(places))
            self._held[block] = sources, rows
            if len(self._held) > BLOCKS_HELD:
                self._held.popitem(last=False)
        return self._held[block]


def given_weight(documents: DocumentSet) -> float | None:
    """The weight someone chose for a set; None for none, and for a set weighted with its own number of tokens."""
    weight = documents.weight
    return None if weight is None or weight == int(np.sum(documents.lengths, dtype=np.int64)) else weight


def plan_rows(
    documents: Sequence[DocumentSet],
    capacity: int,
    seed: int,
    window: int = DEFAULT_WINDOW,
) -> RowSource:
    """The rows of one or several sources: joined when none has a weight, mixed when all have one.

    Raises UsageError when only some have a weight, since a share beside "in proportion to the tokens" means nothing;
    LichenError when a source has nothing to learn from.
    """
    if not documents:
        raise UsageError("no source of documents was given")
    weights = [weight for part in documents if (weight := given_weight(part)) is not None]
    if len(documents) == 1:
        return Plan(documents[0], capacity, seed, window)
    if not weights:
        return Plan(Joined(documents), capacity, seed, window)
    if len(weights) < len(documents):
        missing = ", ".join(part.name for part in documents if given_weight(part) is None)
        raise UsageError(f"give a weight to every source or to none; without one: {missing}")
    return Mixture([Plan(part, capacity, seed, window) for part in documents], weights, seed)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
