"""A large table of learned values behind product keys (Lample et al., 2019; Memory Layers at Scale, Berges et al., 2024).

A key of the table is a pair of half-keys, one of each codebook, and its score the sum of its halves' scores. So the k best of
``num_keys²`` keys are found among the pairs of the k best half-keys of either side: exactly, for ``2 * num_keys`` comparisons a
head. Every head mixes its k values with a softmax over their scores; the heads' mixtures are summed, gated by
``silu(gate_proj(x))`` and, where values are not as wide as the model, projected.

Layers with the same table shape share one (``share_values``). A module's ``lr_scale`` and ``decays`` tell the optimizer that
the values have a learning rate of their own and that neither they nor the half-keys, which are tables, decay.

>>> keys = ProductKeys(heads=1, num_keys=2, key_dim=2, top_k=2)
>>> _ = keys.halves.data.copy_(torch.tensor([1.0, 3.0, 10.0, 20.0]).view(2, 1, 2, 1))
>>> [found.tolist() for found in keys(torch.ones(1, 1, 2))]  # 3 + 20 and 1 + 20, in rows 1 * 2 + 1 and 0 * 2 + 1
[[[[23.0, 21.0]]], [[[3, 1]]]]
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.config.errors import ConfigError
from lichen.config.feed_forward import ProductKeyConfig
from lichen.config.model import ModelConfig
from lichen.model.feed_forward import Aux, FeedForward
from lichen.model.layout import Layout
from lichen.model.norms import RMSNorm


class Values(nn.Module):
    """The table, ``num_keys²`` rows; one for several layers where they share it."""

    decays = False
    """For the optimizer, as is ``lr_scale``."""

    def __init__(self, rows: int, width: int, lr_scale: float):
        super().__init__()
        self.lr_scale = lr_scale
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, indices: Tensor, weights: Tensor) -> Tensor:
        """``indices, weights [N, M]`` → the weighed sums of rows ``[N, width]``; no row is copied."""
        weights = weights.to(self.weight.dtype)
        return F.embedding_bag(indices, self.weight, per_sample_weights=weights, mode="sum")

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Normal, of norm 1 on average, as in both papers."""
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.copy_(drawn * parameter.shape[1] ** -0.5)
        return True

    def active_parameters(self) -> int:
        """None of its own: the layers count the rows they read."""
        return 0


class ProductKeys(nn.Module):
    """The half-keys of every head, and the search; a probe finds what was read by a hook here."""

    decays = False

    def __init__(self, heads: int, num_keys: int, key_dim: int, top_k: int):
        super().__init__()
        self.num_keys, self.top_k = num_keys, top_k
        self.halves = nn.Parameter(torch.empty(2, heads, num_keys, key_dim // 2))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """``queries [N, H, key_dim]`` → scores (float32) and rows of the best keys, best first, ``[N, H, top_k]``."""
        wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
        with torch.autocast(queries.device.type, enabled=False):  # a choice is never half right
            both = torch.einsum("nhsd,shkd->shnk", queries.to(wide).unflatten(-1, (2, -1)), self.halves.to(wide))
        rows = self._best(both.detach())
        scores = both[0].gather(-1, rows // self.num_keys) + both[1].gather(-1, rows % self.num_keys)
        return scores.transpose(0, 1), rows.transpose(0, 1)

    def _best(self, scores: Tensor) -> Tensor:
        """``scores [2, H, N, num_keys]`` of half-keys → rows of the best keys ``[H, N, top_k]``.

        Of two sorted lists, the pair of the i-th and the j-th has i · j - 1 others before it: beyond i · j = k none is needed.
        """
        (one, two), (left, right) = (found.unbind() for found in scores.topk(self.top_k, dim=-1))
        ends = [(i, self.top_k // (i + 1)) for i in range(self.top_k)]
        sums = torch.cat([one[..., i, None] + two[..., :end] for i, end in ends], dim=-1)
        rows = torch.cat([left[..., i, None] * self.num_keys + right[..., :end] for i, end in ends], dim=-1)
        return rows.gather(-1, sums.topk(self.top_k, dim=-1).indices)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Uniform within ``±1 / sqrt(width of a half-key)`` (Lample et al.)."""
        drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.copy_((2 * drawn - 1) * parameter.shape[-1] ** -0.5)
        return True


class ProductKeyMemory(FeedForward):
    """``silu(gate_proj(x)) * sum over heads and their k best keys of softmax(score) * value``."""

    def __init__(self, config: ModelConfig, section: ProductKeyConfig, shared: nn.ModuleDict):
        super().__init__()
        self.section = section
        self._residual_std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
        self.width = width = section.value_dim or config.hidden_size
        self.query_proj = nn.Linear(config.hidden_size, section.heads * section.key_dim, bias=False)
        self.query_norm = RMSNorm(section.key_dim // 2, config.rms_norm_eps) if section.query_norm else None
        self.keys = ProductKeys(section.heads, section.num_keys, section.key_dim, section.top_k)
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False) if section.gate else None
        self.out_proj = None if width == config.hidden_size else nn.Linear(width, config.hidden_size, bias=False)
        self.table = f"values_{section.num_keys}x{section.num_keys}x{width}"
        self.values = self._values(shared, width)

    def _values(self, shared: nn.ModuleDict, width: int) -> Values | None:
        """The table of this layer alone, or None where it is in ``shared``."""
        rows, scale = self.section.num_keys**2, self.section.lr_scale
        if not self.section.share_values:
            return Values(rows, width, scale)
        if self.table not in shared:
            shared[self.table] = Values(rows, width, scale)
        if shared[self.table].lr_scale != scale:
            raise ConfigError(
                f"layers that share a table of {rows} values have lr_scale {shared[self.table].lr_scale} and {scale}:"
                " give them the same, or set share_values to false"
            )
        return None

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """See ``FeedForward.forward``. Count ``reads_per_half_key [2, num_keys]`` int64."""
        flat = x.flatten(0, 1)
        queries = self.query_proj(flat).unflatten(-1, (self.section.heads, 2, -1))  # [N, H, 2, key_dim / 2]
        if self.query_norm is not None:
            queries = self.query_norm(queries)
        scores, rows = self.keys(queries.flatten(-2))
        values = layout.shared[self.table] if self.values is None else self.values
        y = values(rows.flatten(1), scores.softmax(-1).flatten(1)).to(queries.dtype)
        if self.gate_proj is not None:
            y = F.silu(self.gate_proj(flat)) * y
        if self.out_proj is not None:
            y = self.out_proj(y)
        return y.view(x.shape), {"reads_per_half_key": self._reads(rows, layout.real)}

    def _reads(self, rows: Tensor, real: Tensor) -> Tensor:
        """How often every half-key was part of a key read: a value both of whose are never read is dead."""
        number, device = self.section.num_keys, rows.device
        slots = torch.stack([rows // number, rows % number + number])  # [2, N, H, k]
        weights = real.flatten()[:, None, None].expand(rows.shape).to(torch.int64)
        counts = torch.zeros(2 * number, dtype=torch.int64, device=device)
        return counts.scatter_add_(0, slots.flatten(), weights.expand(slots.shape).flatten()).view(2, number)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """The last projection as those of the model that write to the residual stream."""
        if name != "out_proj.weight":
            return False
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * self._residual_std)
        return True

    def active_parameters(self) -> int:
        """Projections, all half-keys, and the values read."""
        table = 0 if self.values is None else self.values.weight.numel()
        read = min(self.section.heads * self.section.top_k, self.section.num_keys**2)
        return super().active_parameters() - table + read * self.width

    def flops_per_token(self) -> int:
        """Two per weight of projections and half-keys, one per sum of two scores, two per number of the values mixed."""
        heads, top_k = self.section.heads, self.section.top_k
        layers = (self.query_proj, self.gate_proj, self.out_proj)
        matrices = sum(layer.weight.numel() for layer in layers if layer is not None) + self.keys.halves.numel()
        sums = sum(top_k // (i + 1) for i in range(top_k))
        return 2 * matrices + heads * sums + 2 * heads * top_k * self.width


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
