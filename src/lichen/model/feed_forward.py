"""The part of a layer that works on each token alone, and its variants.

A variant is a ``FeedForward``: ``forward(x, layout) -> (y, aux)``. Adding one takes three places: its own module, its section
(and its name in the union) in ``lichen.config.feed_forward``, and its ``case`` in ``build``; a type checker proves the match
complete.

``aux`` maps a name to ``(sum, weight)``, a loss term over the real tokens (``layout.real``), which the model adds up over its
layers and the step weighs; or to a bare tensor, a count, which the model keeps per layer in ``Output.meters``. A variant with
an ``after_step`` gets its counts back, summed over ranks, after every step taken. What several layers use lies in ``shared``:
a variant puts it there when it is built and finds it in ``layout.shared``.

>>> layer = build(ModelConfig(hidden_size=64, num_attention_heads=2), 0, nn.ModuleDict())
>>> y, aux = layer(torch.zeros(1, 3, 64), None)
>>> y.shape, aux, list(layer.state_dict())
(torch.Size([1, 3, 64]), {}, ['gate_proj.weight', 'up_proj.weight', 'down_proj.weight'])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.config.feed_forward import (
    DenseConfig,
    ExpertsConfig,
    KnowledgeConfig,
    NothingConfig,
    ProductKeyConfig,
)
from lichen.config.model import ModelConfig

if TYPE_CHECKING:
    from lichen.model.layout import Layout

Aux = dict[str, tuple[Tensor, Tensor] | Tensor]


class FeedForward(nn.Module):
    """What a layer does after attention."""

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """``x [B, T, D]``, normalised → what is added to the residual stream ``[B, T, D]``, and losses and counts."""
        raise NotImplementedError

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Fill ``parameter``, called ``name`` in this module, in place; False leaves it to the model's default."""
        return False

    def after_step(self, counts: Mapping[str, Tensor]) -> None:
        """Called after every optimizer step taken (never a skipped one) with this layer's counts, summed over ranks."""

    def active_parameters(self) -> int:
        """How many parameters one token meets, rows that it reads from a bank in ``shared`` among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of the forward pass per token, searching and reading included: two per weight of every
        matrix it meets, unless a variant knows better.
        """
        vectors = sum(parameter.numel() for parameter in self.parameters() if parameter.dim() < 2)
        return 2 * (self.active_parameters() - vectors)

    def bank_bytes(self) -> int:
        """Bytes of what it reads that is no parameter and that no other layer holds; a module in ``shared`` that holds a bank
        for several layers has a method of this name too.
        """
        return 0


class Dense(FeedForward):
    """SwiGLU (Shazeer, 2020): ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """See ``FeedForward.forward``."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)), {}


class Nothing(FeedForward):
    """No feed-forward part: the block leaves it and the norm before it out."""

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """Zeros."""
        return torch.zeros_like(x), {}


def build(config: ModelConfig, layer: int, shared: nn.ModuleDict) -> FeedForward:
    """The feed-forward part of ``layer``; a variant may add to ``shared`` what its other layers use too."""
    chosen = config.feed_forward_of(layer)
    match chosen:
        case DenseConfig():
            return Dense(config.hidden_size, config.dense_intermediate_size(chosen))
        case NothingConfig():
            return Nothing()
        case ExpertsConfig():
            from lichen.model.experts import MixtureOfExperts

            return MixtureOfExperts(config, chosen)
        case ProductKeyConfig():
            from lichen.model.product_key import ProductKeyMemory

            return ProductKeyMemory(config, chosen, shared)
        case KnowledgeConfig():
            from lichen.model.knowledge import Knowledge

            return Knowledge(config, chosen, shared)
        case _:
            assert_never(chosen)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
