"""Counts without memory equal counts of real models; estimates grow where they must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lichen.config.model import ModelConfig
from lichen.model.language_model import LanguageModel
from lichen.model.size import count, count_model, flops_per_token, training_memory

SMALL: dict[str, Any] = {"vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False, "qk_norm": True}, {"feed_forward_by_layer": {"1": {"kind": "none"}}}]
)
def test_counts_equal_those_of_the_real_model(changes: dict[str, Any]) -> None:
    config = ModelConfig.from_data({**SMALL, **changes})
    size, model = count(config), LanguageModel(config)
    assert size == count_model(model)
    assert size.total == sum(parameter.numel() for parameter in model.parameters()) == sum(size.by_part.values())
    assert size.by_part["head"] == (37 * 16 if changes.get("tie_word_embeddings") is False else 0)


def test_frozen_weights_are_not_trainable() -> None:
    model = LanguageModel(ModelConfig.from_data(SMALL))
    model.model.embed_tokens.requires_grad_(False)
    assert count_model(model).trainable == count_model(model).total - 37 * 16


def test_a_huge_model_is_counted_without_memory() -> None:
    config = ModelConfig(
        vocab_size=151_936, hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
    )
    assert 55e9 < count(config).total < 75e9


def test_operations_follow_the_weights_and_the_length() -> None:
    config = ModelConfig.from_data(SMALL)
    layers, heads, dense = 3, 16 * 16 * 4, 3 * 16 * 64
    assert flops_per_token(config, 0) == 2 * (layers * (heads + dense) + 37 * 16)
    assert flops_per_token(config, 100) - flops_per_token(config, 0) == 2 * layers * 16 * 100


def test_of_a_mixture_a_token_meets_the_router_the_chosen_and_the_shared_experts() -> None:
    section = {"kind": "moe", "num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}
    config = ModelConfig.from_data(
        {
            **SMALL,
            "feed_forward": {**section, "moe_intermediate_size": 24},
            "feed_forward_by_layer": {"1": {"kind": "none"}},
        }
    )
    size, expert, router = count(config), 3 * 16 * 24, 8 * 16
    assert size.by_part["feed_forward"] == 2 * (router + (8 + 1) * expert)
    assert size.total - size.active == 2 * 6 * expert
    assert flops_per_token(config, 0) == 2 * (3 * 16 * 16 * 4 + 37 * 16 + 2 * (router + 3 * expert))


def test_a_bank_that_layers_share_is_counted_once_and_by_itself() -> None:
    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(10, 3))

        def active_parameters(self) -> int:
            return 0

        def bank_bytes(self) -> int:
            return 700

    model = LanguageModel.on_meta(ModelConfig.from_data(SMALL))
    before = count_model(model)
    model.shared["bank"] = Bank()
    after = count_model(model)
    assert (after.total - before.total, after.active - before.active) == (30, 0)
    assert (after.by_part["shared"], after.bank_bytes, before.bank_bytes) == (30, 700, 0)


def test_memory_is_estimated_for_every_kind() -> None:
    def activations(**section: Any) -> int:
        config = ModelConfig.from_data({"vocab_size": 4000, "hidden_size": 256, "feed_forward": section})
        return training_memory(config, rows=4, length=256).activations

    dense, none = activations(kind="dense"), activations(kind="none")
    assert activations(kind="moe") == pytest.approx(dense, rel=0.02)
    assert none < activations(kind="product_key") < dense


def test_memory_grows_with_tokens_and_shrinks_with_checkpointing() -> None:
    config = ModelConfig(vocab_size=6400, num_key_value_heads=2)
    small, large = (training_memory(config, rows=rows, length=512) for rows in (4, 8))
    assert small.weights == 4 * count(config).total and large.activations == 2 * small.activations
    assert training_memory(config, rows=8, length=512, checkpointing=True).activations < large.activations / 2
    assert large.total > small.total
