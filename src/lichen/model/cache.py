"""Keys and values of tokens already read, in memory allocated once.

Every row has its own length, so that prompts of different lengths are prefilled together, padded on the right: what the
padding leaves behind is never looked at and is overwritten by the tokens that follow. Lengths live on the host; the model
needs no look at the device to know where a row stands.

>>> config = ModelConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> cache = Cache(config, rows=2, max_length=4)
>>> batch = cache.batch(torch.zeros(2, 3, dtype=torch.long), lengths=(3, 1))
>>> batch.positions.tolist(), batch.lengths
([[0, 1, 2], [0, 1, 2]], ((3,), (1,)))
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.core.batch import IGNORE_TARGET, PADDING_SEGMENT, Batch


class Cache:
    """Room for ``rows`` texts of at most ``max_length`` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        shape = (config.num_hidden_layers, rows, config.key_value_heads, max_length, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = [0] * rows
        self._start: int | None = 0
        self._index: tuple[Tensor, Tensor] | None = None
        self._span = 0

    @property
    def rows(self) -> int:
        """How many texts."""
        return self.keys.shape[1]

    @property
    def max_length(self) -> int:
        """How many tokens a row can hold."""
        return self.keys.shape[3]

    def batch(self, tokens: Tensor, lengths: Sequence[int] | None = None) -> Batch:
        """The next ``tokens [R, t]`` of all rows, of which row r has ``lengths[r]`` (unset, all t); the rest is padding."""
        rows, width = tokens.shape
        real = tuple(lengths) if lengths is not None else (width,) * rows
        starts = torch.tensor(self.lengths, device=tokens.device)
        offsets = torch.arange(width, device=tokens.device)
        ends = torch.tensor(real, device=tokens.device)
        padding = offsets >= ends[:, None]
        return Batch(
            tokens=tokens,
            targets=torch.full_like(tokens, IGNORE_TARGET),
            positions=starts[:, None] + offsets,
            segments=torch.zeros_like(tokens).masked_fill_(padding, PADDING_SEGMENT),
            lengths=tuple((count,) for count in real),
        )

    def prepare(self, batch: Batch) -> Tensor | None:
        """Make ready to take ``batch``; the mask over keys ``[R or 1, 1, t, K]`` bool, or None: attention is causal among
        the batch's own tokens (``fresh``), or over everything. Raises UsageError where the cache is too small.
        """
        width, device = batch.tokens.shape[1], batch.tokens.device
        if batch.rows != self.rows:
            raise UsageError(f"a batch of {batch.rows} rows does not fit a cache of {self.rows} rows")
        self._span = max(self.lengths) + width
        if self._span > self.max_length:
            raise UsageError(
                f"the cache holds {self.max_length} tokens per row, {self._span} are needed: allocate a longer one"
            )
        level = len(set(self.lengths)) == 1
        self._start = self.lengths[0] if level else None
        if self._start == 0 or (level and width == 1):
            return None
        starts = torch.tensor(self.lengths[:1] if level else self.lengths, device=device)
        ends = starts[:, None] + torch.arange(width, device=device)
        if not level:
            self._index = (torch.arange(self.rows, device=device)[:, None], ends)
        return (torch.arange(self._span, device=device) <= ends[..., None])[:, None]

    @property
    def fresh(self) -> bool:
        """Whether the batch prepared is the first: then attention is causal among its own tokens."""
        return self._start == 0

    @property
    def reach(self) -> int:
        """How many tokens the longest row will hold, padding counted, once the batch prepared is in."""
        return self._span

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``keys`` and ``values`` ``[R, Hkv, t, d]`` of the batch prepared; returns all there are ``[R, Hkv, K, d]``."""
        all_keys, all_values = self.keys[layer], self.values[layer]
        if self._start is not None:
            all_keys[:, :, self._start : self._span] = keys
            all_values[:, :, self._start : self._span] = values
        else:
            assert self._index is not None
            rows, columns = self._index
            all_keys[rows, :, columns] = keys.transpose(1, 2).to(all_keys.dtype)
            all_values[rows, :, columns] = values.transpose(1, 2).to(all_values.dtype)
        if self.fresh:
            return keys, values
        return all_keys[:, :, : self._span].to(keys.dtype), all_values[:, :, : self._span].to(values.dtype)

    def advance(self, batch: Batch) -> None:
        """Count the real tokens of ``batch`` in; called once all layers have been updated."""
        self.lengths = [length + sum(row) for length, row in zip(self.lengths, batch.lengths, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows: row i becomes what row ``rows[i]`` was."""
        index = torch.tensor(list(rows), device=self.keys.device, dtype=torch.long)
        self.keys, self.values = self.keys.index_select(1, index), self.values.index_select(1, index)
        self.lengths = [self.lengths[row] for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget the end of every row, so that row r has at most ``lengths[r]`` tokens."""
        self.lengths = [min(old, new) for old, new in zip(self.lengths, lengths, strict=True)]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
