"""Sizing one model like another: equal trainable parameters, or equal floating-point operations per token.

One setting is changed, that of the feed-forward kind most of the model is made of, in steps of 8: the inner width of dense
layers (those beside a reading too), the width of experts, the half-keys of a table. A model without such a width, of attention
alone or of reading alone, first gets layers and then another hidden size, its heads staying as wide as they are. Operations
count searching and reading; readable entries are no parameters, so their bytes stand beside them. Nothing is allocated.

>>> dense = ModelConfig(vocab_size=6400, num_key_value_heads=2)
>>> moe = ModelConfig.from_data({**dense.to_data(), "feed_forward": {"kind": "moe"}})
>>> fitted = fit(moe, measure(dense, 512), "trainable", 512)
>>> changes(moe, fitted), measure(dense, 512).trainable - measure(fitted, 512).trainable
({'feed_forward.moe_intermediate_size': 176}, -32768)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lichen.config.errors import UsageError
from lichen.config.feed_forward import (
    DenseConfig,
    ExpertsConfig,
    FeedForwardConfig,
    KnowledgeConfig,
    NothingConfig,
    ProductKeyConfig,
)
from lichen.config.model import ModelConfig
from lichen.model.size import count, flops_per_token

Quantity = Literal["trainable", "flops_per_token"]
Knob = Literal["intermediate_size", "moe_intermediate_size", "num_keys", "shape"]

STEP = 8
"""Widths are multiples of this."""
WIDEST = 1 << 22
"""No width is tried beyond this."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What models are compared by."""

    trainable: int
    """Parameters that training changes."""
    active: int
    """Parameters that one token meets."""
    flops_per_token: int
    """Operations of the forward pass, searching and reading included."""
    bank_bytes: int
    """Readable entries."""


def measure(config: ModelConfig, length: int) -> Measures:
    """The measures of ``config`` in texts of ``length`` tokens."""
    size = count(config)
    return Measures(
        trainable=size.trainable,
        active=size.active,
        flops_per_token=flops_per_token(config, length),
        bank_bytes=size.bank_bytes,
    )


def fit(config: ModelConfig, target: Measures, by: Quantity, length: int) -> ModelConfig:
    """``config`` with the setting (see `knob`) at which it comes nearest to ``target``.

    Raises UsageError where no setting comes as near as one step.
    """
    wanted: int = getattr(target, by)

    def amount(candidate: ModelConfig) -> int:
        return count(candidate).trainable if by == "trainable" else flops_per_token(candidate, length)

    which = knob(config)
    if which != "shape":
        lowest = max((part.top_k for part in _parts(config) if isinstance(part, ProductKeyConfig)), default=1)
        lowest = STEP * math.ceil(lowest / STEP) if which == "num_keys" else STEP
        return _nearest(lambda number: _with_width(config, which, number), amount, wanted, lowest, STEP)
    layers = config.num_hidden_layers
    if not config.feed_forward_by_layer:  # where layers are named, their number is the user's
        deep = _nearest(lambda number: _changed(config, num_hidden_layers=number), amount, wanted, 1, 1, strict=False)
        layers = deep.num_hidden_layers

    def shaped(width: int) -> ModelConfig:
        heads = None if width == config.hidden_size else config.head_size  # else few widths would divide by the heads
        return _changed(config, num_hidden_layers=layers, hidden_size=width, head_dim=config.head_dim or heads)

    step = math.lcm(STEP, *(part.heads for part in _parts(config) if isinstance(part, KnowledgeConfig)))
    return _nearest(shaped, amount, wanted, step, step)


def knob(config: ModelConfig) -> Knob:
    """What is changed: the width of the first kind in use that has one, else the "shape"."""
    for part in _parts(config):
        match part:
            case DenseConfig():
                return "intermediate_size"
            case ExpertsConfig():
                return "moe_intermediate_size"
            case ProductKeyConfig():
                return "num_keys"
            case KnowledgeConfig(beside=DenseConfig()):
                return "intermediate_size"
            case KnowledgeConfig() | NothingConfig():
                continue
    return "shape"


def _parts(config: ModelConfig) -> list[FeedForwardConfig]:
    """The sections in use, that of most layers first."""
    parts = [config.feed_forward_of(layer) for layer in range(config.num_hidden_layers)]
    return sorted(parts, key=parts.count, reverse=True)


def _nearest(
    make: Callable[[int], ModelConfig],
    amount: Callable[[ModelConfig], int],
    wanted: int,
    lowest: int,
    step: int,
    strict: bool = True,
) -> ModelConfig:
    """``make(number)``, which grows with its number (``lowest``, and further steps), where it is nearest to ``wanted``."""
    below, above = lowest, lowest + step
    while amount(make(above)) < wanted:
        below, above = above, lowest + 2 * (above - lowest)
        if above > WIDEST:
            raise UsageError(f"the models can not be made equal: even {below} is too few; change another setting")
    while above - below > step:
        middle = below + (above - below) // (2 * step) * step
        below, above = (middle, above) if amount(make(middle)) < wanted else (below, middle)
    small, large = amount(make(below)), amount(make(above))
    if strict and 2 * (small - wanted) > large - small:
        raise UsageError(
            f"the models can not be made equal: with {below}, the least there can be, this one still has {small:,},"
            f" and the other {wanted:,}; make another part of it smaller"
        )
    return make(below) if abs(small - wanted) <= abs(large - wanted) else make(above)


def _with_width(config: ModelConfig, which: Knob, number: int) -> ModelConfig:
    """All layers of the kind that ``which`` belongs to with this width; the widths of other kinds stay what they are."""
    dense = config.dense_intermediate_size(DenseConfig())

    def resized(part: FeedForwardConfig) -> FeedForwardConfig:
        match part:
            case DenseConfig() if which == "intermediate_size" and part.intermediate_size:
                return part.model_copy(update={"intermediate_size": number})
            case KnowledgeConfig(beside=DenseConfig() as beside):
                return part.model_copy(update={"beside": resized(beside)})
            case ExpertsConfig() if which == "moe_intermediate_size":
                return part.model_copy(update={"moe_intermediate_size": number})
            case ExpertsConfig() if which == "intermediate_size":
                return part.model_copy(update={"moe_intermediate_size": part.expert_width(dense)})
            case ProductKeyConfig() if which == "num_keys":
                return part.model_copy(update={"num_keys": number})
            case _:
                return part

    by_layer = {text: resized(part) for text, part in config.feed_forward_by_layer.items()}
    dense_parts = [getattr(part, "beside", None) or part for part in _parts(config)]
    unset = any(isinstance(part, DenseConfig) and not part.intermediate_size for part in dense_parts)
    own = {"intermediate_size": number} if which == "intermediate_size" and unset else {}
    return _changed(config, feed_forward=resized(config.feed_forward), feed_forward_by_layer=by_layer, **own)


def _changed(config: ModelConfig, **values: Any) -> ModelConfig:
    return type(config).model_validate({**dict(config), **values})


def changes(before: ModelConfig, after: ModelConfig) -> dict[str, Any]:
    """Dotted path → value of the settings in which two models differ."""
    old, new = _flat(before.to_data()), _flat(after.to_data())
    return {path: value for path, value in new.items() if path not in old or old[path] != value}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def differences(found: Measures, reference: Measures) -> dict[str, float]:
    """Measure → by how many percent it is above that of ``reference``; left out where there is nothing to compare with."""
    old = asdict(reference)
    return {name: 100 * (value / old[name] - 1) for name, value in asdict(found).items() if old[name]}


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
