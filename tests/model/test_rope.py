"""Frequencies against transformers', rotation against complex numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lichen.config.model import ModelConfig
from lichen.model.rope import Rope, attention_scale, inverse_frequencies, rotate


@pytest.mark.parametrize(
    "scaling",
    [
        {"factor": 4.0, "original_max_position_embeddings": 64},
        {"factor": 1.0, "original_max_position_embeddings": 2048},
        {"factor": 8.0, "original_max_position_embeddings": 512, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
        {"factor": 2.0, "original_max_position_embeddings": 4096, "attention_factor": 1.5},
    ],
)
@pytest.mark.parametrize("theta", [10000.0, 1e6])
def test_yarn_frequencies_equal_the_reference(scaling: dict[str, Any], theta: float) -> None:
    parameters = {"rope_type": "yarn", "rope_theta": theta, **scaling}
    reference = LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=parameters)
    expected, factor = ROPE_INIT_FUNCTIONS["yarn"](reference, torch.device("cpu"))
    config = ModelConfig.from_data(
        {"hidden_size": 128, "num_attention_heads": 2, "rope_theta": theta, "rope_scaling": scaling}
    )
    torch.testing.assert_close(inverse_frequencies(config), expected, rtol=1e-6, atol=0)
    assert attention_scale(config.rope_scaling) == pytest.approx(factor)


def test_rotation_multiplies_pairs_by_a_unit_complex_number() -> None:
    config = ModelConfig(hidden_size=16, num_attention_heads=2)
    x = torch.randn(1, 5, 2, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = Rope(config).tables(5, torch.device("cpu"))
    turned = rotate(x, cos[None, :, None], sin[None, :, None])
    numbers = torch.complex(x[..., :4], x[..., 4:]) * torch.complex(cos, sin)[None, :, None]
    torch.testing.assert_close(turned, torch.cat([numbers.real, numbers.imag], -1))


def test_tables_grow_and_keep_their_beginning() -> None:
    rope = Rope(ModelConfig(hidden_size=16, num_attention_heads=2))
    short, _ = rope.tables(7, torch.device("cpu"))
    long, _ = rope.tables(3000, torch.device("cpu"))
    assert long.shape == (3000, 4) and torch.equal(long[:7], short)


def test_tables_made_while_generating_can_be_trained_with() -> None:
    rope = Rope(ModelConfig(hidden_size=16, num_attention_heads=2))
    with torch.inference_mode():
        rope.tables(4, torch.device("cpu"))
    cos, sin = rope.tables(4, torch.device("cpu"))
    x = torch.ones(1, 4, 2, 8, requires_grad=True)
    rotate(x, cos[None, :, None], sin[None, :, None]).sum().backward()
    assert x.grad is not None
