"""Causal grouped-query attention (Ainslie et al., 2023), confined to segments.

Queries and keys may be normalised per head before rotation (Qwen3). How scores are computed is the layout's choice; here is one
function for each way. All of them take and give ``[B, T, heads, head_dim]``. Attention over several segments is kept out of
compiled regions, where every new set of lengths would compile anew.

>>> config = ModelConfig(hidden_size=8, num_attention_heads=2, num_key_value_heads=1)
>>> Attention(config, layer=0).k_proj.weight.shape
torch.Size([4, 8])
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.config.model import ModelConfig
from lichen.model.layout import Layout, find_varlen, future_bias, wants_bias
from lichen.model.norms import RMSNorm
from lichen.model.regions import eager
from lichen.model.rope import rotate

QUERIES_AT_ONCE = 64
"""Queries whose scores are computed together where there is a bias; longer rows take twice as many."""


class Attention(nn.Module):
    """Projections, rotation, attention, projection back."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_size
        queries = config.num_attention_heads * config.head_size
        keys = config.key_value_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_size, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_size, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """``x [B, T, D]`` → ``[B, T, D]``."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q, k, v = self.q_proj(x).view(heads), self.k_proj(x).view(heads), self.v_proj(x).view(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, layout.cos, layout.sin), rotate(k, layout.cos, layout.sin)
        if layout.bias is not None:
            mixed = biased_attention(q, k, v, layout.bias)
        elif layout.way == "causal" and layout.cache is None:
            mixed = _fused_attention(q, k, v, is_causal=True)
        else:
            mixed = _general_attention(q, k, v, layout, self.layer)
        return self.o_proj(mixed.reshape(*x.shape[:2], -1))


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every row is one segment: ``q [B, T, H, d]``, ``k, v [B, T, Hkv, d]`` → ``[B, T, H, d]``."""
    if wants_bias(q, q.dtype) and q.requires_grad:
        return biased_attention(q, k, v, future_bias(q.shape[1], q.dtype))
    return _fused_attention(q, k, v, is_causal=True)


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax of scores plus ``bias [1 or B, T, T]`` (-inf at least above the diagonal), between two batched products.

    A block of queries at a time, against the keys up to its last query: what lies above the diagonal's blocks is never
    computed. The query heads of a group share one product with their keys.
    """
    rows, width, heads, size = q.shape
    shared = k.shape[2]
    group = heads // shared
    queries = (q * size**-0.5).transpose(1, 2).reshape(rows, shared, group, width, size)
    keys, values = k.permute(0, 2, 3, 1), v.transpose(1, 2)  # [B, Hkv, d, T], [B, Hkv, T, d]
    step = QUERIES_AT_ONCE if width <= 4 * QUERIES_AT_ONCE else 2 * QUERIES_AT_ONCE
    parts = []
    for start in range(0, width, step):
        stop = min(start + step, width)
        count = stop - start
        block = queries[:, :, :, start:stop].reshape(rows, shared, group * count, size)
        scores = (block @ keys[..., :stop]).view(rows, shared, group, count, stop)
        weights = (scores + bias[:, None, None, start:stop, :stop]).softmax(-1)
        mixed = weights.view(rows, shared, group * count, stop) @ values[:, :, :stop]
        parts.append(mixed.view(rows, shared, group, count, size))
    return torch.cat(parts, dim=3).view(rows, heads, width, size).transpose(1, 2)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """PyTorch's fused kernel; ``mask [B, 1, T, K]`` bool."""
    grouped = q.shape[2] != k.shape[2]
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        enable_gqa=grouped,
    )
    return mixed.transpose(1, 2)


@eager
def _general_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, layer: int) -> Tensor:
    """The ways that depend on lengths or on a cache."""
    if layout.cache is not None:
        keys, values = layout.cache.update(layer, k.transpose(1, 2), v.transpose(1, 2))
        k, v = keys.transpose(1, 2), values.transpose(1, 2)
    match layout.way:
        case "causal" | "biased":
            return causal_attention(q, k, v)
        case "full" | "mask":
            return _fused_attention(q, k, v, mask=layout.mask)
        case "pieces":
            return _piecewise_attention(q, k, v, layout.pieces)
        case "varlen":
            return _varlen_attention(q, k, v, layout)
        case "flex":
            return _flex_attention(q, k, v, layout.block_mask)


def _piecewise_attention(q: Tensor, k: Tensor, v: Tensor, pieces: tuple[int, ...]) -> Tensor:
    """One causal call for all pieces of a length. Cutting with ``split`` keeps the backward pass linear in the tokens."""
    cuts = [tensor.flatten(0, 1).split(list(pieces)) for tensor in (q, k, v)]
    places: dict[int, list[int]] = {}
    for place, length in enumerate(pieces):
        places.setdefault(length, []).append(place)
    mixed: list[Tensor] = [q] * len(pieces)
    for group in places.values():
        together = [torch.stack([cut[place] for place in group]) for cut in cuts]
        for place, piece in zip(group, causal_attention(*together).unbind(0), strict=True):
            mixed[place] = piece
    return torch.cat(mixed).view(q.shape)


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """All rows end to end, cut at ``layout.boundaries``."""
    attend = find_varlen()
    assert attend is not None
    longest = max(layout.pieces)
    flat = (tensor.to(layout.dtype).flatten(0, 1).contiguous() for tensor in (q, k, v))
    edges = layout.boundaries
    grouped = q.shape[2] != k.shape[2]
    mixed = attend(*flat, edges, edges, longest, longest, window_size=(-1, 0), enable_gqa=grouped)
    return mixed.view(q.shape)


@functools.cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _flex_attention(q: Tensor, k: Tensor, v: Tensor, block_mask: object) -> Tensor:
    """FlexAttention (Dong et al., 2024) skips the blocks where no segment meets itself."""
    grouped = q.shape[2] != k.shape[2]
    heads = (tensor.transpose(1, 2).contiguous() for tensor in (q, k, v))
    mixed = _compiled_flex_attention()(*heads, block_mask=block_mask, enable_gqa=grouped)
    return mixed.transpose(1, 2)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
