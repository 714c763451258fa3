"""A mixture of experts: a router sends every token through a few of many SwiGLU networks (Shazeer et al., 2017; Mixtral, 2024).

Dropless: no expert has a capacity, so what a token gets does not depend on the other tokens. Tokens are sorted by expert and
every expert sees its own in one product: torch's grouped product on CUDA, a loop elsewhere. Experts stand in ``[E, I, D]``
tensors; all of them are in the graph whether used or not.

Two ways keep experts evenly used. "loss": ``balance``, ``E * sum_e(share of choices * mean score)`` over the real tokens of a
micro-batch (Switch Transformer, Fedus et al., 2021, in Mixtral's form: k if even). "bias": a bias on the choice, never on the
weights, goes up for experts with less than the mean and down for the others after every step, by the counts of the whole step
(Wang et al., 2024). ``router_z`` is the mean squared log-partition (ST-MoE, Zoph et al., 2022). A probe finds what was chosen by
a hook on ``mlp.gate``.

>>> router = Router(ExpertsConfig(num_experts=3), hidden_size=2)
>>> _ = router.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
>>> routing = router(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
>>> routing.indices.tolist(), [[round(weight, 2) for weight in row] for row in routing.weights.tolist()]
([[0, 1], [1, 0]], [[0.88, 0.12], [0.73, 0.27]])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.config.feed_forward import DenseConfig, ExpertsConfig
from lichen.config.model import ModelConfig
from lichen.model.feed_forward import Aux, Dense, FeedForward
from lichen.model.layout import Layout
from lichen.model.regions import eager


class Routing(NamedTuple):
    """What the router says of N tokens; the output of ``Router``, for hooks."""

    weights: Tensor
    """``[N, k]`` float32, what the outputs of the chosen experts are multiplied by."""
    indices: Tensor
    """``[N, k]`` int64, the experts chosen, best first."""
    logits: Tensor
    """``[N, E]`` float32."""


class Router(nn.Module):
    """Scores every expert for a token and chooses k of them; computed in float32, since a choice is never half right."""

    e_score_correction_bias: Tensor

    def __init__(self, section: ExpertsConfig, hidden_size: int):
        super().__init__()
        self.section = section
        self.weight = nn.Parameter(torch.empty(section.num_experts, hidden_size))
        if section.balance == "bias":
            self.register_buffer("e_score_correction_bias", torch.zeros(section.num_experts))  # DeepSeek's name for it

    def forward(self, x: Tensor) -> Routing:
        """``x [N, D]`` → the choice for every token."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(wide), self.weight.to(wide))
        scores = logits.softmax(-1) if self.section.scoring == "softmax" else logits.sigmoid()
        ranked = scores
        if self.section.balance == "bias":
            ranked = scores.detach() + self.e_score_correction_bias.to(wide)
        indices = ranked.topk(self.section.num_experts_per_tok, dim=-1).indices
        weights = scores.gather(-1, indices)
        if self.section.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(wide).tiny)
        return Routing(weights, indices, logits)

    def shares(self, logits: Tensor) -> Tensor:
        """``logits [N, E]`` → scores that sum to one over the experts."""
        if self.section.scoring == "softmax":
            return logits.softmax(-1)
        scores = logits.sigmoid()
        return scores / scores.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


class Experts(nn.Module):
    """E SwiGLU networks of one width."""

    stacked = True
    """The optimizer takes every expert's matrices by themselves."""

    def __init__(self, count: int, hidden_size: int, width: int):
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, width, hidden_size))
        self.up_proj = nn.Parameter(torch.empty(count, width, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, hidden_size, width))

    def forward(self, x: Tensor, weights: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """``x [N, D]``, ``weights, indices [N, k]`` → the weighed sum of every token's experts ``[N, D]`` in ``dtype``."""
        chosen = indices.shape[1]
        slots, order = indices.flatten().sort(stable=True)  # of N k choices; the token of the n-th is order[n] // k
        ends = torch.searchsorted(slots, torch.arange(self.gate_proj.shape[0], device=x.device), right=True)
        back = order.argsort()
        rows = _gather(x.to(dtype), order // chosen, back, chosen)  # [N k, D], sorted by expert
        factors = _gather(weights.flatten(), order, back).to(dtype)[:, None]
        matrices = (self.gate_proj.to(dtype), self.up_proj.to(dtype), self.down_proj.to(dtype))
        mixed = (_grouped if _has_grouped(rows, *matrices) else _one_by_one)(rows, factors, ends, *matrices)
        return _gather(mixed, back, order).view(-1, chosen, x.shape[1]).sum(1)


class _Gather(torch.autograd.Function):
    """The backward pass gathers, too: rows added where they are scattered to have no fixed order on a GPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (back,) = ctx.saved_tensors
        gradient = upstream.index_select(0, back)
        return gradient.view(-1, ctx.copies, *gradient.shape[1:]).sum(1), None, None, None


def _gather(rows: Tensor, index: Tensor, back: Tensor, copies: int = 1) -> Tensor:
    """``rows[index]``, where ``rows[index][back]`` are the ``rows``, each ``copies`` times in a row."""
    return _Gather.apply(rows, index, back, copies)  # pyright: ignore[reportReturnType]


def _has_grouped(rows: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> bool:
    """Whether torch's grouped product serves: bfloat16 on a GPU that computes in it, rows of whole 16 bytes."""
    if not rows.is_cuda or rows.dtype != torch.bfloat16 or not hasattr(F, "grouped_mm"):
        return False
    return torch.cuda.get_device_capability(rows.device) >= (8, 0) and gate.shape[1] % 8 == gate.shape[2] % 8 == 0


def _grouped(rows: Tensor, factors: Tensor, ends: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """One kernel for all experts; where the tokens of each end stays on the device."""
    ends = ends.to(torch.int32)
    opened = F.silu(F.grouped_mm(rows, gate.transpose(1, 2), offs=ends))
    inner = opened * F.grouped_mm(rows, up.transpose(1, 2), offs=ends) * factors
    return F.grouped_mm(inner, down.transpose(1, 2), offs=ends)


@eager
def _one_by_one(rows: Tensor, factors: Tensor, ends: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """A loop over the experts that have tokens; the others' gradients are zeros."""
    numbers = ends.diff(prepend=ends.new_zeros(1)).tolist()
    parts = zip(
        rows.split(numbers), factors.split(numbers), gate.unbind(), up.unbind(), down.unbind(), numbers, strict=True
    )
    # unbind, not an index per expert: its backward pass writes every gradient once
    return torch.cat(
        [F.linear(F.silu(F.linear(x, g)) * F.linear(x, u) * weight, d) for x, weight, g, u, d, count in parts if count]
    )


class MixtureOfExperts(FeedForward):
    """``sum_k weight_k * expert_k(x)``, plus the shared experts, which every token passes through (DeepSeekMoE, 2024)."""

    def __init__(self, config: ModelConfig, section: ExpertsConfig):
        super().__init__()
        self.section = section
        self._std = config.initializer_range
        self._residual_std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
        width = section.expert_width(config.dense_intermediate_size(DenseConfig()))
        self.gate = Router(section, config.hidden_size)
        self.experts = Experts(section.num_experts, config.hidden_size, width)
        shared = section.num_shared_experts
        self.shared_experts = Dense(config.hidden_size, shared * width) if shared else None

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """See ``FeedForward.forward``. Losses ``balance`` and ``router_z``; count ``tokens_per_expert [E]`` int64."""
        flat = x.flatten(0, 1)
        routing: Routing = self.gate(flat)
        y = self.experts(flat, routing.weights, routing.indices, layout.dtype).view(x.shape)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x, layout)[0]
        return y, self._aux(routing, layout.real.flatten())

    def _aux(self, routing: Routing, real: Tensor) -> Aux:
        """Losses and counts over the tokens that are ``real [N]``."""
        experts = torch.arange(self.section.num_experts, device=real.device)
        counts = ((routing.indices[..., None] == experts) & real[:, None, None]).sum((0, 1))
        aux: Aux = {"tokens_per_expert": counts}
        number, mask = real.sum().to(routing.logits.dtype), real[:, None].to(routing.logits.dtype)
        if self.section.balance == "loss":
            scores = (self.gate.shares(routing.logits) * mask).sum(0)  # [E]
            evenness = self.section.num_experts * (counts * scores).sum() / number.clamp(min=1)
            aux["balance"] = (evenness, number)
        if self.section.z_loss:
            aux["router_z"] = ((routing.logits.logsumexp(-1).square() * mask[:, 0]).sum(), number)
        return aux

    @torch.no_grad()
    def after_step(self, counts: Mapping[str, Tensor]) -> None:
        """Move the bias towards experts with fewer tokens than the mean."""
        if self.section.balance == "bias":
            bias, used = self.gate.e_score_correction_bias, counts["tokens_per_expert"].double()
            bias += self.section.bias_update_rate * (used.mean() - used).sign().to(bias)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Every expert as a dense layer of the model."""
        if not name.startswith("experts."):
            return False
        std = self._residual_std if name.endswith("down_proj") else self._std
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * std)
        return True

    def active_parameters(self) -> int:
        """The router, k experts and the shared ones."""
        routed = sum(parameter.numel() for parameter in self.experts.parameters())
        idle = routed // self.section.num_experts * (self.section.num_experts - self.section.num_experts_per_tok)
        return super().active_parameters() - idle


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
