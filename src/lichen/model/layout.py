"""Who may look at whom, decided once per forward pass on the host and handed to every layer.

A row is a sequence of segments that never see each other; within a segment attention is causal; what follows the last
segment is padding, whose results nobody reads. From the lengths alone, plain integers, follows the cheapest exact way:

- ``causal``: every row is one segment (padding on its right is never looked at): one causal call, and the only way inside a
  compiled region beside ``biased``, since all others depend on lengths that change with every batch;
- ``biased``: rows that are not long, in bfloat16 on a CPU, whose fused kernel is slow backwards: scores plus a bias that
  shuts out what may not be seen; the bias has one shape whatever the segments, so this stays in the compiled region too;
- ``mask``: short rows of several segments away from CUDA, or a cache: a boolean mask over keys;
- ``pieces``: long rows of several segments away from CUDA: one call per segment length, far cheaper than a large mask;
- ``varlen``, ``flex``: several segments on CUDA, in 16 bit through FlashAttention's variable lengths, else FlexAttention;
- ``full``: one new token after a cache: it sees everything.

>>> batch = Batch.of_tokens(torch.zeros(2, 3, dtype=torch.long))
>>> from lichen.config.model import ModelConfig
>>> rope = Rope(ModelConfig(hidden_size=8, num_attention_heads=2))
>>> layout = Layout.of(batch, rope, dtype=torch.float32)
>>> layout.way, layout.cos.shape, layout.real.all().item()
('causal', torch.Size([1, 3, 1, 2]), True)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from lichen.core.batch import PADDING_SEGMENT, Batch
from lichen.model.rope import Rope

Way = Literal["causal", "biased", "mask", "pieces", "varlen", "flex", "full"]

MASK_LENGTH = 512
"""Up to this row length a mask over segments is cheaper than one call per segment."""
BIASED_LENGTH = 1024
"""Up to this length, in bfloat16 on a CPU, scores plus a bias beat the fused kernel, forward and backward together."""


class KeyValueCache(Protocol):
    """What attention needs of a cache: ours, or the adapter to the one of Hugging Face."""

    @property
    def fresh(self) -> bool:
        """Whether attention is causal among the batch's own tokens, which stand at positions 0, 1, 2, …"""
        ...

    @property
    def reach(self) -> int:
        """No position of the batch prepared is as large."""
        ...

    def prepare(self, batch: Batch) -> Tensor | None:
        """Make ready for ``batch``; the mask ``[B or 1, 1, t, K]`` over keys, True where a key may be seen."""
        ...

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``[B, Hkv, t, d]``; all keys and values ``[B, Hkv, K, d]``."""
        ...

    def advance(self, batch: Batch) -> None:
        """All layers have been updated."""
        ...


@dataclass
class Layout:
    """Built by ``Layout.of``; the same object for all layers."""

    way: Way
    """How attention is computed."""
    cos: Tensor
    """``[1 or B, T, 1, head_dim / 2]`` cosines of the positions."""
    sin: Tensor
    """``[1 or B, T, 1, head_dim / 2]`` sines of the positions."""
    real: Tensor
    """``[B, T]`` bool, False on padding: the tokens that losses and counts of feed-forward parts are taken over."""
    dtype: torch.dtype
    """What matrix products are computed in."""
    mask: Tensor | None = None
    """``[B or 1, 1, T, K]`` bool, for ``mask``."""
    bias: Tensor | None = None
    """``[1 or B, T, T]`` 0 or -inf in the dtype of products, for ``biased``."""
    pieces: tuple[int, ...] = ()
    """Lengths that cut the rows, laid end to end, into segments and paddings, for ``pieces`` and ``varlen``."""
    boundaries: Tensor | None = None
    """``[len(pieces) + 1]`` int32 cumulated ``pieces``, for ``varlen``."""
    block_mask: object = None
    """FlexAttention's mask, for ``flex``."""
    cache: KeyValueCache | None = None
    """Keys and values of earlier tokens."""
    shared: Mapping[str, nn.Module] = field(default_factory=dict)
    """The model's banks, that feed-forward parts of several layers use."""
    embedding: Tensor | None = None
    """``[V, D]`` the model's token embeddings, for parts that read tokens."""
    batch: Batch | None = None
    """What is read, with its targets and links: for what teaches a part, never for what it computes."""

    @classmethod
    def of(
        cls,
        batch: Batch,
        rope: Rope,
        *,
        dtype: torch.dtype,
        cache: KeyValueCache | None = None,
        shared: Mapping[str, nn.Module] | None = None,
        embedding: Tensor | None = None,
    ) -> Self:
        """The layout of ``batch``; ``dtype`` is what matrix products will be computed in."""
        mask = cache.prepare(batch) if cache is not None else None
        way = _way(batch, dtype, cache, mask)
        cos, sin = _tables(batch, rope, way, cache)
        layout = cls(
            way=way,
            cos=cos,
            sin=sin,
            real=batch.segments != PADDING_SEGMENT,
            dtype=dtype,
            mask=mask,
            cache=cache,
            shared=shared or {},
            embedding=embedding,
            batch=batch,
        )
        layout._prepare_segments(batch)
        return layout

    def _prepare_segments(self, batch: Batch) -> None:
        if self.way in ("pieces", "varlen"):
            self.pieces = cut(batch.lengths, batch.tokens.shape[1])
        if self.way == "varlen":
            ends = torch.tensor((0, *self.pieces), dtype=torch.int32).cumsum(0, dtype=torch.int32)
            self.boundaries = ends.to(batch.tokens.device, non_blocking=True)
        elif self.way == "flex":
            self.block_mask = _block_mask(batch.segments)
        elif self.way == "mask" and self.cache is None:
            self.mask = _segment_mask(batch.segments)
        elif self.way == "biased":
            self.bias = _bias(batch, self.dtype)


def cut(lengths: tuple[tuple[int, ...], ...], width: int) -> tuple[int, ...]:
    """Segment and padding lengths of all rows laid end to end.

    >>> cut(((2, 3), (4,)), width=6)
    (2, 3, 1, 4, 2)
    """
    pieces: list[int] = []
    for row in lengths:
        pieces.extend(row)
        if rest := width - sum(row):
            pieces.append(rest)
    return tuple(pieces)


def _way(batch: Batch, dtype: torch.dtype, cache: KeyValueCache | None, mask: Tensor | None) -> Way:
    several = any(len(row) > 1 for row in batch.lengths)
    if cache is not None:
        assert not several, "a cache takes one segment per row"
        return "causal" if cache.fresh else "full" if mask is None else "mask"
    if wants_bias(batch.tokens, dtype, MASK_LENGTH if several else BIASED_LENGTH):
        return "biased"
    if not several:
        return "causal"
    if batch.tokens.is_cuda:
        return "varlen" if _has_varlen(dtype, batch.tokens.device) else "flex"
    return "mask" if batch.tokens.shape[1] <= MASK_LENGTH else "pieces"


def wants_bias(rows: Tensor, dtype: torch.dtype, longest: int = BIASED_LENGTH) -> bool:
    """Whether rows ``[B, T, ...]`` are computed with a bias: on a CPU, in bfloat16, up to ``longest`` tokens."""
    return rows.device.type == "cpu" and dtype == torch.bfloat16 and rows.shape[1] <= longest


@functools.cache
def _future(dtype: torch.dtype) -> Tensor:
    size = BIASED_LENGTH
    return torch.full((size, size), float("-inf"), dtype=dtype, device="cpu").triu(1)


@torch.inference_mode(False)
def future_bias(length: int, dtype: torch.dtype) -> Tensor:
    """``[1, length, length]``: -inf where the key comes after the query, else 0.

    >>> future_bias(3, torch.float32)[0].tolist()
    [[0.0, -inf, -inf], [0.0, 0.0, -inf], [0.0, 0.0, 0.0]]
    """
    return _future(dtype)[None, :length, :length]


def _bias(batch: Batch, dtype: torch.dtype) -> Tensor:
    if all(len(row) <= 1 for row in batch.lengths):
        return future_bias(batch.tokens.shape[1], dtype)
    mask = _segment_mask(batch.segments)[:, 0]
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


def _tables(batch: Batch, rope: Rope, way: Way, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
    """Rows of the rotary tables: the first T of them where every row starts at 0, else picked by position."""
    width, device = batch.tokens.shape[1], batch.tokens.device
    if way == "causal" or (way == "biased" and all(len(row) <= 1 for row in batch.lengths)):
        cos, sin = rope.tables(width, device)
        return cos[None, :, None], sin[None, :, None]
    cos, sin = rope.tables(width if cache is None else cache.reach, device)
    return cos[batch.positions][:, :, None], sin[batch.positions][:, :, None]


def _segment_mask(segments: Tensor) -> Tensor:
    """``[B, 1, T, T]`` bool; padding sees padding before it, so that no row of the mask is empty."""
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


@functools.cache
def find_varlen() -> Callable[..., Any] | None:
    """FlashAttention over variable lengths, where this torch has it with grouped heads and causal windows."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if {"enable_gqa", "window_size"} <= set(inspect.signature(varlen_attn).parameters) else None


def _has_varlen(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether FlashAttention's variable lengths serve this dtype on this GPU with this torch."""
    if dtype not in (torch.bfloat16, torch.float16) or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return find_varlen() is not None


def _block_mask(segments: Tensor) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[row, query] == segments[row, key])

    rows, width = segments.shape
    return create_block_mask(visible, rows, None, width, width, device=segments.device)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
