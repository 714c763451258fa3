"""The optimizer: which parameter is updated by which rule, and which of them decay.

Groups are made by name and shape, once: matrices decay, while norms, biases and (unless asked) embeddings do not. With Muon
(Jordan et al., 2024; torch's own implementation) the matrices inside the blocks get orthogonalised momentum and everything
else AdamW; its updates are scaled to AdamW's size (Moonlight, Liu et al., 2025), so that one learning rate serves both.

A module says by attributes what its own parameters need beyond that: ``lr_scale`` multiplies their learning rate; ``decays =
False`` marks tables, whose rows are read one by one: they neither decay nor go to Muon; ``stacked = True`` marks tensors
``[E, A, B]`` that are E matrices, each of which Muon takes by itself.

>>> model = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2), "layer": torch.nn.Linear(2, 2)})
>>> optimizer = make_optimizer(model, OptimConfig())
>>> [(group["weight_decay"], group["names"]) for group in optimizer.groups]
[(0.1, ['layer.weight']), (0.0, ['norm.weight', 'norm.bias', 'layer.bias'])]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lichen.config.training import OptimConfig

EMBEDDINGS = ("embed_tokens.weight",)
OUTSIDE_BLOCKS = ("embed_tokens.weight", "lm_head.weight")


class Optimizer:
    """One or several torch optimizers over disjoint parameters of one module, driven as one."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Every parameter group; each has ``names`` beside ``params``."""
        return [group for part in self.parts for group in part.param_groups]

    def set_lr(self, lr: float) -> None:
        """The learning rate of all groups; a group's ``lr_scale`` (1 by default) multiplies it."""
        for group in self.groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def step(self) -> None:
        """Apply the gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients; the next backward pass allocates what it writes."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


class StackedMuon(torch.optim.Optimizer):
    """Muon over tensors ``[E, A, B]``: what ``torch.optim.Muon`` does to each of the E matrices, in batched products."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, iterations: int):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "iterations": iterations, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]), group["iterations"])
                size = 0.2 * math.sqrt(max(parameter.shape[-2:]))  # as large as AdamW's
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * size)


def orthogonalise(matrices: Tensor, iterations: int) -> Tensor:
    """``[E, A, B]`` → bfloat16 matrices with the same singular vectors and singular values near 1, by Newton-Schulz iteration
    with the coefficients of Jordan et al.
    """
    found = matrices.bfloat16()
    wide = found.shape[-2] <= found.shape[-1]
    found = found if wide else found.mT
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), found, beta=3.4445)
    return found if wide else found.mT


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimizer of ``config`` over the parameters of ``model`` that want a gradient."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if config.name == "sgd":
        return Optimizer([torch.optim.SGD(_groups(model, named, config), lr=config.lr)])
    if config.name != "muon":
        return Optimizer([_adam(model, named, config)])
    matrices = {n: p for n, p in named.items() if _in_block(n, p) and _said(model, n, "decays", True)}
    stacks = {n: p for n, p in named.items() if p.ndim == 3 and _said(model, n, "stacked", False)}
    others = {n: p for n, p in named.items() if n not in matrices and n not in stacks}
    parts: list[torch.optim.Optimizer] = [_muon(_groups(model, matrices, config), config)] if matrices else []
    if stacks:
        groups = _groups(model, stacks, config)
        parts.append(StackedMuon(groups, config.lr, config.muon_momentum, config.muon_iterations))
    return Optimizer([*parts, _adam(model, others, config)] if others else parts)


def decays(name: str, parameter: Tensor, config: OptimConfig) -> bool:
    """Whether weight decay applies: matrices, and embeddings only when asked."""
    return parameter.ndim >= 2 and (config.decay_embeddings or not name.endswith(EMBEDDINGS))


def _said(model: nn.Module, name: str, attribute: str, otherwise: Any) -> Any:
    """What the nearest module around the parameter says of it."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        found = getattr(model.get_submodule(".".join(parts[:end])), attribute, None)
        if found is not None:
            return found
    return otherwise


def _in_block(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and not name.endswith(OUTSIDE_BLOCKS)


def _groups(model: nn.Module, named: Mapping[str, Tensor], config: OptimConfig) -> list[dict[str, Any]]:
    """``named`` by weight decay and scale of the learning rate, those that decay and are not scaled first."""
    rate = config.weight_decay if config.name in ("adamw", "muon") else 0.0
    found: dict[tuple[float, float], dict[str, Tensor]] = {}
    for name, parameter in named.items():
        decay = rate if decays(name, parameter, config) and _said(model, name, "decays", True) else 0.0
        found.setdefault((float(_said(model, name, "lr_scale", 1.0)), decay), {})[name] = parameter
    return [
        {"params": list(part.values()), "names": list(part), "weight_decay": decay, "lr_scale": scale}
        for (scale, decay), part in sorted(found.items(), key=lambda item: (item[0][0] != 1.0, item[0][0], -item[0][1]))
    ]


def _adam(model: nn.Module, named: Mapping[str, Tensor], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), or Adam, which decays nothing; fused: one pass over memory per update."""
    fused = all(parameter.device.type in ("cuda", "cpu", "mps") for parameter in named.values())
    groups = _groups(model, named, config)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _muon(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.Muon(
        groups,
        lr=config.lr,
        momentum=config.muon_momentum,
        ns_steps=config.muon_iterations,
        adjust_lr_fn="match_rms_adamw",
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
