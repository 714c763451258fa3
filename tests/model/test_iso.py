"""Models made equal: as near as one step allows, whatever the kind, by what is stated and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.model.iso import Measures, Quantity, changes, differences, fit, measure

SIZES: dict[str, Any] = {
    "vocab_size": 4000,
    "hidden_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
}
BESIDE = {"kind": "knowledge", "beside": {"kind": "dense", "intermediate_size": 96}, "knowledge_num": 64}
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "dense": ({}, {"intermediate_size"}),
    "dense with a width of its own": (
        {"feed_forward": {"kind": "dense", "intermediate_size": 40}},
        {"feed_forward.intermediate_size"},
    ),
    "moe": (
        {"feed_forward": {"kind": "moe", "num_shared_experts": 1}},
        {"feed_forward.moe_intermediate_size"},
    ),
    "moe, one dense": (
        {"feed_forward": {"kind": "moe"}, "feed_forward_by_layer": {"0": {"kind": "dense"}}},
        {"feed_forward.moe_intermediate_size"},
    ),
    "dense, one moe": (
        {"feed_forward_by_layer": {"2": {"kind": "moe", "num_experts": 4}}},
        {"intermediate_size", "feed_forward_by_layer.2.moe_intermediate_size"},
    ),
    "product keys": ({"feed_forward": {"kind": "product_key"}}, {"feed_forward.num_keys"}),
    "none": ({"feed_forward": {"kind": "none"}}, {"num_hidden_layers", "hidden_size", "head_dim"}),
    "none but for named layers": (
        {"num_hidden_layers": 9, "feed_forward_by_layer": {"0-8": {"kind": "none"}}},
        {"hidden_size", "head_dim"},
    ),
    "knowledge beside dense": (
        {"feed_forward": {"kind": "none"}, "feed_forward_by_layer": {"2": BESIDE}},
        {"feed_forward_by_layer.2.beside.intermediate_size"},
    ),
}
REFERENCE = ModelConfig.from_data({**SIZES, "intermediate_size": 512})


def steps_around(config: ModelConfig, path: str) -> list[ModelConfig]:
    """``config`` with the setting at ``path`` a step smaller and a step larger."""
    found = []
    for sign in (-1, 1):
        data = {**config.to_data(), "head_dim": config.head_size}
        section = data
        *above, last = path.split(".")
        for name in above:
            section = section[name]
        section[last] += sign * 8
        found.append(ModelConfig.from_data(data))
    return found


@pytest.mark.parametrize("by", ["trainable", "flops_per_token"])
@pytest.mark.parametrize("case", CASES)
def test_no_step_would_be_nearer(case: str, by: Quantity) -> None:
    data, expected = CASES[case]
    config = ModelConfig.from_data({**SIZES, **data})
    target = measure(REFERENCE, 256)
    fitted = fit(config, target, by, 256)
    changed = changes(config, fitted)
    assert changed.keys() <= expected and changed

    def distance(candidate: ModelConfig) -> int:
        return abs(getattr(measure(candidate, 256), by) - getattr(target, by))

    widths = [path for path in sorted(changed, reverse=True) if path.endswith(("size", "num_keys"))]
    path = (widths or ["hidden_size"])[0]  # where layers alone came nearest
    assert all(distance(fitted) <= distance(other) for other in steps_around(fitted, path))
    if by == "trainable" and case != "knowledge beside dense":
        assert abs(differences(measure(fitted, 256), target)[by]) < 5


def test_equal_parameters_and_equal_operations_are_different_models() -> None:
    moe = ModelConfig.from_data({**SIZES, "feed_forward": {"kind": "moe"}})
    target = measure(REFERENCE, 256)
    by_size, by_work = (measure(fit(moe, target, by, 256), 256) for by in ("trainable", "flops_per_token"))
    assert by_size.trainable < 1.02 * target.trainable < by_work.trainable / 2
    assert by_size.flops_per_token < 0.8 * target.flops_per_token < 0.82 * by_work.flops_per_token
    assert by_work.active == pytest.approx(target.active, rel=0.01)


def test_a_model_is_equal_to_itself() -> None:
    assert changes(REFERENCE, fit(REFERENCE, measure(REFERENCE, 64), "flops_per_token", 64)) == {}


@pytest.mark.parametrize("kind", ["dense", "moe", "product_key", "none"])
def test_what_cannot_be_equal_is_said(kind: str) -> None:
    small = Measures(trainable=1000, active=1000, flops_per_token=1000, bank_bytes=0)
    config = ModelConfig.from_data({**SIZES, "feed_forward": {"kind": kind}})
    with pytest.raises(UsageError, match=r"can not be made equal: .* the least .* make another part"):
        fit(config, small, "trainable", 64)
