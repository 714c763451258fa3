"""Batches as a pure function of the step: the step gives the row numbers, the plan gives the rows, the shards give the tokens.

``Loader.batch(step)`` holds rows ``step · B … (step + 1) · B`` of the plan; rank r of W reads the r-th of W equal stretches of
them, so that every world size sees the same global batches, and so does accumulation, which splits a rank's stretch
(``Batch.split``). There is no state, hence nothing to save and nothing to restore.

With a ``Rebinder``, batches say which entries of a bank their text speaks of, and some facts in them are changed (see
``rebinding``): every rank looks up the links of all ranks' rows for that, so that all agree. Text that was prepared without
a bank costs nothing.

With workers (see ``loader_workers``), processes build batches ahead; which worker builds a step cannot change it. Validation
reads a fixed number of rows once, the same on every visit, and says how many bytes of source text its targets stand for.

>>> from lichen.dataset.plan import DocumentList, Plan
>>> plan = Plan(DocumentList("tale", [[1, 2, 3, 0], [4, 5, 0]]), capacity=6, seed=0)
>>> batch = Loader(plan, batch_rows=1, pad_id=9).batch(0)
>>> batch.tokens.tolist(), batch.targets.tolist(), batch.lengths
([[1, 2, 3, 4, 5, 9]], [[2, 3, 0, 5, 0, -100]], ((3, 2),))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lichen.config.errors import UsageError
from lichen.core.batch import IGNORE_TARGET, PADDING_SEGMENT, Batch, Links
from lichen.dataset.loader_workers import Arrays, WorkerPool
from lichen.dataset.plan import RowSource, piece_bytes
from lichen.dataset.rebinding import LinkArrays, Rebinder, occurrences


class Loader:
    """Training batches.

    ``source`` says what stands in a row; ``batch_rows`` is B, the rows of one optimizer step over all ranks and micro-batches;
    ``pad_id`` any valid id. ``accumulation`` is only checked. ``rebinder``: what changes facts and labels positions, for a model
    that reads a bank; without one the text is as it is. ``workers`` processes build ``prefetch`` batches each ahead;
    one that delivers nothing for ``timeout`` seconds ends the training. ``pin`` puts batches into memory that a GPU copies from
    at full speed. Raises UsageError when rows cannot be shared out evenly.
    """

    def __init__(
        self,
        source: RowSource,
        batch_rows: int,
        pad_id: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        rebinder: Rebinder | None = None,
        workers: int = 0,
        prefetch: int = 2,
        timeout: float = 120.0,
        pin: bool = False,
    ):
        if batch_rows < 1 or batch_rows % (world_size * accumulation):
            near = max(1, round(batch_rows / (world_size * accumulation))) * world_size * accumulation
            raise UsageError(
                f"a batch of {batch_rows} rows cannot be shared evenly by {world_size} processes with {accumulation} "
                f"micro-batches each: choose a multiple of {world_size * accumulation}, such as {near}"
            )
        self.source = source
        self.batch_rows = batch_rows
        self.pad_id = pad_id
        self.rank = rank
        self.world_size = world_size
        self.rebinder = rebinder if source.documents.linked else None
        self.workers = workers
        self.prefetch = prefetch
        self.timeout = timeout
        self.pin = pin

    def row_numbers(self, step: int) -> range:
        """The global row counters this rank reads at ``step``."""
        share = self.batch_rows // self.world_size
        start = step * self.batch_rows + self.rank * share
        return range(start, start + share)

    def batch(self, step: int) -> Batch:
        """This rank's part of the batch of ``step``, tensors ``[B / world_size, T]`` on the CPU."""
        return to_batch(self.arrays(step), self.row_numbers(step), self.pin)

    def arrays(self, step: int) -> Arrays:
        """The same as NumPy arrays, which is what workers build."""
        numbers = self.row_numbers(step)
        arrays = fill_rows(self.source, numbers, self.pad_id)
        if self.rebinder is None:
            return arrays
        begin = step * self.batch_rows
        found = occurrences(self.source, range(begin, begin + self.batch_rows))
        view = self.rebinder.view(step, found)
        own = found.of_rows(numbers.start - begin, numbers.stop - begin)
        links = self.rebinder.label(view, own, arrays.tokens, arrays.targets, numbers)
        return arrays._replace(links=links)

    def batches(self, start_step: int = 0, stop_step: int | None = None) -> Iterator[Batch]:
        """Batches of ``start_step``, ``start_step + 1``, … up to ``stop_step`` (None: for ever).

        Workers start with the first batch asked for and end with the iterator (``close()`` it, or leave its loop). Raises
        LichenError naming worker and step when one dies or hangs.
        """
        steps = itertools.count(start_step) if stop_step is None else iter(range(start_step, stop_step))
        if not self.workers:
            yield from map(self.batch, steps)
            return
        with WorkerPool(self.arrays, self.workers, self.prefetch, self.timeout) as pool:
            for step, arrays in pool.imap(steps):
                yield to_batch(arrays, self.row_numbers(step), self.pin)


@dataclass(frozen=True)
class ValidationBatch:
    """A batch and how many bytes of source text its targets stand for."""

    batch: Batch
    bytes: int


class ValidationBatches(Sequence[ValidationBatch]):
    """The first rows of a plan's epoch 0, at most ``max_batches`` (None: the whole epoch) batches of ``batch_rows``.

    Bits per byte are the summed losses over all batches and ranks, divided by ln 2 and by the sum of ``bytes``. A document's
    bytes are shared out over its pieces in proportion to their targets; over a whole epoch they add up to the bytes of all
    documents. (A document's first token costs nothing, being no target; its end-of-text token costs without having bytes.)
    Every rank has the same number of batches of the same shape: rows go to the ranks in turn, and where the
    rows end, rows of nothing but padding fill up. With a ``rebinder`` they have links; nothing in them is ever changed.
    """

    def __init__(
        self,
        source: RowSource,
        batch_rows: int,
        pad_id: int,
        *,
        max_batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        rebinder: Rebinder | None = None,
    ):
        if batch_rows < 1 or batch_rows % world_size:
            raise UsageError(
                f"a validation batch of {batch_rows} rows cannot be shared evenly by {world_size} processes: "
                f"choose a multiple of {world_size}"
            )
        self.source = source
        self.batch_rows = batch_rows
        self.pad_id = pad_id
        self.rank = rank
        self.world_size = world_size
        self.rebinder = rebinder if source.documents.linked else None
        limit = source.rows_in_epoch(0) if max_batches is None else max_batches * batch_rows
        self.rows = min(source.rows_in_epoch(0), limit)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_rows)

    def __getitem__(self, index: int) -> ValidationBatch:  # type: ignore[override]  # batches are taken one by one
        if not 0 <= index < len(self):
            raise IndexError(f"validation batch {index} of {len(self)}")
        start = index * self.batch_rows
        numbers = range(start + self.rank, start + self.batch_rows, self.world_size)
        present = [number if number < self.rows else None for number in numbers]
        arrays = fill_rows(self.source, present, self.pad_id)
        if self.rebinder is not None:
            view, found = self.rebinder.unchanged(), occurrences(self.source, present)
            arrays = arrays._replace(links=self.rebinder.label(view, found, arrays.tokens, arrays.targets, present))
        batch = to_batch(arrays, numbers)
        return ValidationBatch(batch, sum(self._bytes(number) for number in present if number is not None))

    @cached_property
    def bytes(self) -> int:
        """The bytes of all batches of all ranks."""
        return sum(self._bytes(number) for number in range(self.rows))

    def _bytes(self, number: int) -> int:
        return sum(piece_bytes(self.source.documents, piece) for piece in self.source.row(number))


def fill_rows(source: RowSource, numbers: Sequence[int | None], pad_id: int) -> Arrays:
    """Read the rows of ``numbers`` (None: a row of padding) into ``tokens`` and ``targets``, int64 ``[rows, T]``.

    Targets are the tokens one later in the same document; after the last one, and in padding, they are ignored.
    """
    tokens = np.full((len(numbers), source.capacity), pad_id, dtype=np.int64)
    targets = np.full_like(tokens, IGNORE_TARGET)
    lengths = []
    for row, number in enumerate(numbers):
        pieces = () if number is None else source.row(number)
        end = 0
        for piece in pieces:
            read = source.documents.tokens(piece.document, piece.start, piece.start + piece.length + 1)
            start, end = end, end + piece.length
            tokens[row, start:end] = read[:-1]
            targets[row, start:end] = read[1:]
        lengths.append(tuple(piece.length for piece in pieces))
    return Arrays(tokens, targets, tuple(lengths))


def to_batch(arrays: Arrays, numbers: Sequence[int], pin: bool = False) -> Batch:
    """Make a batch of filled rows, in pinned memory if asked; positions and segments follow from the lengths."""
    positions = np.zeros_like(arrays.tokens)
    segments = np.full_like(arrays.tokens, PADDING_SEGMENT)
    for row, lengths in enumerate(arrays.lengths):
        end = 0
        for segment, length in enumerate(lengths):
            start, end = end, end + length
            positions[row, start:end] = np.arange(length)
            segments[row, start:end] = segment
    tokens, targets, positions, segments = (
        torch.from_numpy(array).pin_memory() if pin else torch.from_numpy(array)
        for array in (arrays.tokens, arrays.targets, positions, segments)
    )
    return Batch(
        tokens=tokens,
        targets=targets,
        positions=positions,
        segments=segments,
        lengths=arrays.lengths,
        row_numbers=tuple(numbers),
        links=None if arrays.links is None else _links(arrays.links, pin),
    )


def _links(arrays: LinkArrays, pin: bool) -> Links:
    links = Links(**{name: torch.from_numpy(array) for name, array in arrays._asdict().items()})
    return links.pin_memory() if pin else links


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
