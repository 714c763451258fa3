"""The optimizer: which parameter is updated by which rule, and which of them decay.

Groups are made by name and shape, once: matrices decay, while norms, biases and (unless asked) embeddings do not. With Muon
(Jordan et al., 2024; torch's own implementation) the matrices inside the blocks get orthogonalised momentum and everything
else AdamW; its updates are scaled to AdamW's size (Moonlight, Liu et al., 2025), so that one learning rate serves both.

>>> model = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2), "layer": torch.nn.Linear(2, 2)})
>>> optimizer = make_optimizer(model, OptimConfig())
>>> [(group["weight_decay"], group["names"]) for group in optimizer.groups]
[(0.1, ['layer.weight']), (0.0, ['norm.weight', 'norm.bias', 'layer.bias'])]
"""

from __future__ import annotations

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


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimizer of ``config`` over the parameters of ``model`` that want a gradient."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if config.name == "sgd":
        return Optimizer([torch.optim.SGD([_group(named, 0.0)], lr=config.lr)])
    if config.name != "muon":
        return Optimizer([_adam(named, config)])
    matrices = {name: parameter for name, parameter in named.items() if _in_block(name, parameter)}
    others = {name: parameter for name, parameter in named.items() if name not in matrices}
    parts: list[torch.optim.Optimizer] = [_muon(matrices, config)] if matrices else []
    return Optimizer([*parts, _adam(others, config)] if others else parts)


def decays(name: str, parameter: Tensor, config: OptimConfig) -> bool:
    """Whether weight decay applies: matrices, and embeddings only when asked."""
    return parameter.ndim >= 2 and (config.decay_embeddings or not name.endswith(EMBEDDINGS))


def _in_block(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and not name.endswith(OUTSIDE_BLOCKS)


def _group(named: Mapping[str, Tensor], weight_decay: float) -> dict[str, Any]:
    return {"params": list(named.values()), "names": list(named), "weight_decay": weight_decay}


def _adam(named: Mapping[str, Tensor], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), or Adam, which decays nothing; fused: one pass over memory per update."""
    decay = config.weight_decay if config.name != "adam" else 0.0
    matrices = {name: parameter for name, parameter in named.items() if decay and decays(name, parameter, config)}
    others = {name: parameter for name, parameter in named.items() if name not in matrices}
    groups = [_group(part, rate) for part, rate in ((matrices, decay), (others, 0.0)) if part]
    fused = all(parameter.device.type in ("cuda", "cpu", "mps") for parameter in named.values())
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _muon(named: Mapping[str, Tensor], config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.Muon(
        [_group(named, config.weight_decay)],
        lr=config.lr,
        momentum=config.muon_momentum,
        ns_steps=config.muon_iterations,
        adjust_lr_fn="match_rms_adamw",
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
