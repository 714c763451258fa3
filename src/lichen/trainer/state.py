"""All that resuming needs beside the weights: counters as JSON, the optimizers' moments as named tensors.

Position is one counter and every random draw is keyed by it, so there is no random state to save. What an optimizer
remembers is stored under the parameter's own name, unsharded: the same file continues under another world size or
backend, and with parameters sorted into other groups. Hyperparameters are not stored: they follow from the config and
the step.

>>> state = State(step=3, tokens=4096, reason="due")
>>> State.from_json(state.to_json()) == state
True
>>> State.from_json('{"step": 1}')
Traceback (most recent call last):
    ...
lichen.config.errors.LichenError: state.json: missing: best_metric, ...
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lichen.config.errors import LichenError, nearest
from lichen.config.training import EarlyStoppingConfig


@dataclass(kw_only=True)
class State:
    """Where a training stands. Plain JSON values only; equal states give equal text."""

    step: int = 0
    """Optimizer updates done, those skipped for non-finite values counted."""
    epoch: int = 0
    """Passes over the data begun, from 0."""
    rows: int = 0
    """Global rows consumed: the one counter that batches are a function of."""
    tokens: int = 0
    """Tokens seen, padding excluded, all ranks."""
    targets: int = 0
    """Targets learned from, all ranks."""
    best_metric: str | None = None
    """The name of the score that `best_score` is."""
    best_score: float | None = None
    best_step: int | None = None
    """The step whose checkpoint is the best."""
    patience_score: float | None = None
    """The score that the next must beat by ``early_stopping.min_delta``; `best_score` may lie a little below it."""
    patience_left: int | None = None
    """Validations without improvement still allowed; None without early stopping."""
    skipped: int = 0
    """Steps not taken because of a non-finite loss or gradient."""
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    """Returns to an earlier checkpoint after a spike of the loss."""
    moving_means: dict[str, Any] = field(default_factory=dict)
    """Name to the meter's own state."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """The fp16 gradient scaler's state; empty without one."""
    cursor: dict[str, Any] = field(default_factory=dict)
    """Positions in sources whose length is unknown."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Name to seconds of wall clock, over all sittings."""
    reason: str = ""
    """Why this was saved: due, best, finished, interrupted, stopped early, …"""
    finished: bool = False
    """Whether nothing is left to do; resuming is then a no-op unless the config asks for more."""

    def judge(self, metric: str, score: float, stopping: EarlyStoppingConfig) -> None:
        """Take note of a validation: the best so far, however narrowly? Better by enough to have patience again?"""
        if score < (math.inf if self.best_score is None else self.best_score):
            self.best_metric, self.best_score, self.best_step = metric, score, self.step
        if not stopping.enabled:
            self.patience_score = self.patience_left = None
            return
        enough = score < (math.inf if self.patience_score is None else self.patience_score) - stopping.min_delta
        if enough:
            self.patience_score = score
        self.patience_left = stopping.patience if enough or self.patience_left is None else self.patience_left - 1

    def to_json(self) -> str:
        """The text of ``state.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "state.json") -> State:
        """The state in ``text``; raises `LichenError` on unknown or missing keys and on wrong types."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LichenError(f"{where}: not JSON ({error}); use another checkpoint") from None
        if not isinstance(data, dict):
            raise LichenError(f"{where}: not an object; use another checkpoint")
        fields = {f.name: str(f.type) for f in dataclasses.fields(cls)}
        if missing := sorted(fields.keys() - data.keys()):
            raise LichenError(f"{where}: missing: {', '.join(missing)}; it is from another version: use --init-from")
        if unknown := sorted(data.keys() - fields.keys()):
            raise LichenError(f"{where}: unknown: {unknown[0]}{nearest(unknown[0], fields)}; use --init-from")
        for name, kind in fields.items():
            _check_type(where, name, kind, data[name])
        return cls(**data)


def _check_type(where: str, name: str, kind: str, value: object) -> None:
    plain = {"int": int, "float": (int, float), "str": str, "bool": bool, "dict": dict, "None": type(None)}
    kinds = [part.strip().split("[")[0] for part in kind.split("|")]
    right = any(isinstance(value, plain[k]) and (k == "bool" or not isinstance(value, bool)) for k in kinds)
    if not right:
        raise LichenError(f"{where}: {name}: {value!r} is no {kind}; use another checkpoint")


# --- Optimizers ---


def optimizer_state_to_tensors(model: nn.Module, optimizers: Optimizer | Iterable[Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember, as ``KEY/PARAMETER`` to a tensor (``exp_avg/model.norm.weight``), unsharded.

    Tensors are the optimizer's own where it is not sharded: copy them before the next step. A Python number becomes a
    0-dimensional tensor under ``KEY:int`` or ``KEY:float``; a parameter without memory yet is marked ``none/PARAMETER``.
    On a sharded model this is a collective call: all ranks make it.
    """
    names = parameter_names(model)
    tensors: dict[str, Tensor] = {}
    for parameter, state in _states(optimizers):
        name = names[parameter]
        kept = {key: value for key, value in state.items() if value is not None}
        tensors.update({_key(key, value) + "/" + name: _as_tensor(value) for key, value in kept.items()})
        if not kept:
            tensors[f"none/{name}"] = torch.zeros(0)
    return tensors


def load_optimizer_state(
    model: nn.Module, optimizers: Optimizer | Iterable[Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Undo `optimizer_state_to_tensors`, into optimizers over the same parameters (grouped in any way).

    Raises:
        LichenError: a parameter is missing or unknown, or a shape differs; nothing is changed then.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        found.setdefault(name, {})[kind] = tensor
    names = parameter_names(model)
    wanted = {names[parameter] for parameter, _ in _states(optimizers)}
    for problem, which in (("missing", wanted - found.keys()), ("unknown", found.keys() - wanted)):
        if which:
            raise LichenError(
                f"optimizer state: {problem} parameter {min(which)} ({len(which)} in all); "
                "the model or what is frozen has changed: take the weights alone with --init-from"
            )
    new = []
    for group, parameter, optimizer in _parameters(optimizers):
        values = {k: v for k, v in found[names[parameter]].items() if k != "none"}
        new.append(
            (optimizer, parameter, {k.split(":")[0]: _restore(k, v, parameter, group) for k, v in values.items()})
        )
    for optimizer, parameter, state in new:
        optimizer.state[parameter] = state


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Each parameter's name without the prefixes that wrappers (DDP, compile) put before it."""
    return {parameter: plain_name(name) for name, parameter in model.named_parameters()}


def plain_name(name: str) -> str:
    """A parameter's name in the unwrapped module.

    >>> plain_name("module._orig_mod.model.layers.0.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    return ".".join(parts[1:] if parts[0] == "module" else parts)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor (a collective call), or the tensor itself; detached."""
    gather = getattr(tensor, "full_tensor", None)
    return (gather() if gather else tensor).detach()


def like(full: Tensor, pattern: Tensor) -> Tensor:
    """``full`` on the device of ``pattern``, and sharded as it is."""
    if not hasattr(pattern, "full_tensor"):
        return full.to(pattern.device)
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = pattern.device_mesh, pattern.placements  # pyright: ignore[reportAttributeAccessIssue]
    return distribute_tensor(full.to(pattern.device), mesh, placements)


def _unwrapped(optimizers: Optimizer | Iterable[Optimizer]) -> list[Optimizer]:
    several = list(optimizers) if isinstance(optimizers, Iterable) else [optimizers]
    return [getattr(optimizer, "optimizer", optimizer) for optimizer in several]  # Accelerate's wrapper


def _parameters(
    optimizers: Optimizer | Iterable[Optimizer],
) -> Iterable[tuple[dict[str, Any], nn.Parameter, Optimizer]]:
    for optimizer in _unwrapped(optimizers):
        for group in optimizer.param_groups:
            yield from ((group, parameter, optimizer) for parameter in group["params"])


def _states(optimizers: Optimizer | Iterable[Optimizer]) -> Iterable[tuple[nn.Parameter, dict[str, Any]]]:
    for _, parameter, optimizer in _parameters(optimizers):
        yield parameter, optimizer.state.get(parameter, {})  # not [..]: that would make an entry


def _key(key: str, value: object) -> str:
    return key if isinstance(value, Tensor) else f"{key}:{type(value).__name__}"


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return full_tensor(value)
    if isinstance(value, (bool, int, float)):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
    raise LichenError(f"an optimizer remembers a {type(value).__name__}, which can not be saved; use another optimizer")


def _restore(key: str, saved: Tensor, parameter: nn.Parameter, group: dict[str, Any]) -> Any:
    if ":" in key:
        return {"int": int, "float": float, "bool": bool}[key.split(":")[1]](saved.item())
    if saved.dim() == 0:  # a step counter; torch keeps it on the host unless its kernel counts on the device
        return saved.clone().to(parameter.device if group.get("capturable") or group.get("fused") else "cpu")
    if saved.shape != parameter.shape:
        raise LichenError(f"optimizer state: {key}: shape {tuple(saved.shape)} instead of {tuple(parameter.shape)}")
    return like(saved.clone(), parameter)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
