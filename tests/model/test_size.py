"""Counts without memory equal counts of real models; estimates grow where they must."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_memory_grows_with_tokens_and_shrinks_with_checkpointing() -> None:
    config = ModelConfig(vocab_size=6400, num_key_value_heads=2)
    small, large = (training_memory(config, rows=rows, length=512) for rows in (4, 8))
    assert small.weights == 4 * count(config).total and large.activations == 2 * small.activations
    assert training_memory(config, rows=8, length=512, checkpointing=True).activations < large.activations / 2
    assert large.total > small.total
