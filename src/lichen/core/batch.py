"""What travels from the data to the model: rows of tokens cut into segments that never see each other.

All four tensors are ``[B, T]`` int64. ``targets`` are already shifted: ``targets[b, t]`` is the token that follows
``tokens[b, t]`` in its own segment, or ``IGNORE_TARGET``. ``lengths`` repeats the segmentation as plain integers on the
host, so that attention over segments needs no look at the device. ``links`` say which entries of a readable memory the
text speaks of, and how the memory looks in this one step; they teach a model, they never reach what it computes.

>>> batch = Batch.of_tokens(torch.tensor([[5, 6, 7]]))
>>> batch.targets.tolist(), batch.lengths, batch.num_targets
([[6, 7, -100]], ((3,),), 2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

IGNORE_TARGET = -100
PADDING_SEGMENT = -1


@dataclass(kw_only=True)
class Links:
    """Which bank entries the text of a batch speaks of, and how this step sees the bank.

    Positions and nulls belong to rows; the view of the bank (``overridden``, ``tokens``, ``removed``) is one for the whole
    step, the same on every rank and in every micro-batch.

    >>> none = torch.zeros(0, dtype=torch.long)
    >>> links = Links(
    ...     positions=torch.tensor([[0, 4], [2, 1]]), entries=torch.tensor([[7, -1], [3, 5]]), nulls=torch.tensor([[2, 0]]),
    ...     overridden=none, tokens=none.view(0, 9), removed=torch.tensor([6]),
    ... )
    >>> part = links.of_rows(2, 4)
    >>> part.positions.tolist(), part.entries.tolist(), part.nulls.tolist(), part.removed.tolist()
    ([[0, 1]], [[3, 5]], [[0, 0]], [6])
    """

    positions: Tensor
    """``[M, 2]`` int64 (row, column), sorted: positions whose target is a token of a linked object."""
    entries: Tensor
    """``[M, P]`` int64 entry numbers that answer there, any of them; -1 fills up."""
    nulls: Tensor
    """``[Q, 2]`` int64 (row, column), sorted: a sample of the positions where nothing is to be read."""
    overridden: Tensor
    """``[R]`` int64, ascending: entries whose content is another one in this step."""
    tokens: Tensor
    """``[R, L]`` int64: their token ids in this step, as many as the bank has of each."""
    removed: Tensor
    """``[X]`` int64, ascending: entries that are absent in this step."""
    first: Tensor | None = None
    """``[M]`` bool: whether the target is the first token of the object; None where nobody knows."""
    carried: Tensor | None = None
    """``[C, 2]`` int64 (row, column), sorted: positions between a linked object and its subject, which is to be borne in mind."""
    carried_entries: Tensor | None = None
    """``[C]`` int64: an entry about that subject."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same links on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same links in memory that a GPU copies from at full speed."""
        return self._each(lambda tensor: tensor.pin_memory())

    def of_rows(self, start: int, stop: int) -> Self:
        """The links of rows ``start … stop - 1``, which are counted from 0 again, with the whole view of the bank."""
        here, null = self._between(self.positions, start, stop), self._between(self.nulls, start, stop)
        shift = torch.tensor([start, 0], device=self.positions.device)
        carried = slice(0) if self.carried is None else self._between(self.carried, start, stop)
        return replace(
            self,
            positions=self.positions[here] - shift,
            entries=self.entries[here],
            first=None if self.first is None else self.first[here],
            nulls=self.nulls[null] - shift,
            carried=None if self.carried is None else self.carried[carried] - shift,
            carried_entries=None if self.carried_entries is None else self.carried_entries[carried],
        )

    @staticmethod
    def _between(places: Tensor, start: int, stop: int) -> Tensor:
        return (places[:, 0] >= start) & (places[:, 0] < stop)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


@dataclass(kw_only=True)
class Batch:
    """Rows of packed segments.

    An objective that needs more beside the tokens subclasses this; ``split`` and ``to`` carry every tensor field whose
    first dimension is the row along.
    """

    tokens: Tensor
    """``[B, T]`` int64 input ids; padding holds any valid id."""
    targets: Tensor
    """``[B, T]`` int64 next ids, ``IGNORE_TARGET`` where nothing is to be learnt."""
    positions: Tensor
    """``[B, T]`` int64, starting at 0 in every segment."""
    segments: Tensor
    """``[B, T]`` int64, counting from 0 in every row, ``PADDING_SEGMENT`` on padding."""
    lengths: tuple[tuple[int, ...], ...]
    """Per row the lengths of its segments in order; what is left of the row is padding."""
    weights: Tensor | None = None
    """``[B, T]`` float32 weight of every target, or None for one each."""
    pixels: Tensor | None = None
    """Images in the order of their placeholders."""
    row_numbers: tuple[int, ...] = ()
    """The global counters of the rows, for logs and for replaying a batch."""
    links: Links | None = None
    """What the rows say of the entries of a readable memory; None for text that was prepared without one."""

    @classmethod
    def of_tokens(cls, tokens: Tensor, targets: Tensor | None = None) -> Self:
        """One segment per row of ``tokens [B, T]``; targets are the shifted tokens unless given."""
        rows, length = tokens.shape
        if targets is None:
            ending = torch.full((rows, 1), IGNORE_TARGET, dtype=tokens.dtype, device=tokens.device)
            targets = torch.cat([tokens[:, 1:], ending], dim=1)
        positions = torch.arange(length, device=tokens.device).expand(rows, length).contiguous()
        return cls(
            tokens=tokens,
            targets=targets,
            positions=positions,
            segments=torch.zeros_like(tokens),
            lengths=((length,),) * rows,
        )

    @property
    def rows(self) -> int:
        """B."""
        return self.tokens.shape[0]

    @cached_property
    def num_targets(self) -> int:
        """How many targets the rows hold; asked for before the batch leaves the host, it costs no synchronisation."""
        return int((self.targets != IGNORE_TARGET).sum())

    @property
    def num_tokens(self) -> int:
        """How many tokens are not padding."""
        return sum(sum(row) for row in self.lengths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch with every tensor on ``device``; counts taken so far are kept."""
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), (Tensor, Links))
        }
        batch = replace(self, **moved)
        batch.__dict__["num_targets"] = self.num_targets
        return batch

    def split(self, parts: int) -> list[Self]:
        """``parts`` micro-batches of equal row counts, in order. Images follow the rows their placeholders stand in.

        >>> batch = Batch.of_tokens(torch.arange(8).view(4, 2))
        >>> [part.tokens.tolist() for part in batch.split(2)]
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
        """
        if self.rows % parts:
            raise ValueError(f"{self.rows} rows cannot be split into {parts} equal micro-batches")
        if self.pixels is not None:
            raise ValueError("a batch with images is split by its own class, which knows how many images a row has")
        size = self.rows // parts
        return [self._slice(slice(start, start + size)) for start in range(0, self.rows, size)]

    def _slice(self, rows: slice) -> Self:
        parts = {
            field.name: value[rows]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), (Tensor, tuple)) and len(value) == self.rows
        }
        links = None if self.links is None else self.links.of_rows(rows.start, rows.stop)
        return replace(self, **parts, links=links)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
