"""Experts under the names of other writers. Whole models are in test_parity and test_weights."""

from __future__ import annotations

import pytest
import torch

from lichen.config.errors import LichenError
from lichen.model.expert_names import split, stack

OURS = {
    f"model.layers.0.mlp.experts.{name}": torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    for name, shape in (("gate_proj", (3, 4)), ("up_proj", (3, 4)), ("down_proj", (4, 3)))
} | {"model.layers.0.mlp.gate.weight": torch.ones(12, 4), "model.norm.weight": torch.ones(4)}


@pytest.mark.parametrize("model_type", ["qwen3_moe", "mixtral", "lichen"])
def test_there_and_back_to_the_bit(model_type: str) -> None:
    theirs = split(OURS, model_type)
    assert len(theirs) == (len(OURS) if model_type == "lichen" else 2 + 3 * 12)
    backwards = {name: theirs[name] for name in sorted(theirs, reverse=True)}  # 11 before 2: order is by number
    again = stack(backwards)
    assert again.keys() == OURS.keys() and all(torch.equal(again[name], OURS[name]) for name in OURS)


def test_gate_and_up_in_one_are_taken_apart() -> None:
    state = dict(OURS)
    fused = [state.pop(f"model.layers.0.mlp.experts.{name}") for name in ("gate_proj", "up_proj")]
    again = stack(state | {"model.layers.0.mlp.experts.gate_up_proj": torch.cat(fused, dim=1)})
    assert again.keys() == OURS.keys() and all(torch.equal(again[name], OURS[name]) for name in OURS)


def test_experts_of_different_shapes_are_refused() -> None:
    theirs = split(OURS, "mixtral")
    theirs["model.layers.0.block_sparse_moe.experts.3.w1.weight"] = torch.zeros(2, 4)
    with pytest.raises(LichenError, match=r"folder: .*experts\.gate_proj: the experts differ in shape"):
        stack(theirs, "folder")
