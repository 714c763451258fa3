"""The model's configuration: what it refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from lichen.config.errors import ConfigError
from lichen.config.feed_forward import DenseConfig, NothingConfig
from lichen.config.model import ModelConfig


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "30 is not a multiple of num_attention_heads 4"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"feed_forward_by_layer": {"0-3": {"kind": "none"}, "3": {"kind": "dense"}}}, "'3' overlaps '0-3'"),
        (
            {"num_hidden_layers": 4, "feed_forward_by_layer": {"2-4": {"kind": "none"}}},
            "'2-4' goes beyond the last layer, 3",
        ),
        ({"feed_forward_by_layer": {"7-4": {"kind": "none"}}}, "'7-4' is neither a layer like '3' nor a range"),
        ({"feed_forward_by_layer": {"first": {"kind": "none"}}}, "'first' is neither"),
        ({"feed_forward": {"kind": "dens"}}, "nearest: dense"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"rope_scaling": {"factor": 0.5}}, "rope_scaling.factor"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_data(data)
    assert message in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    data = {
        "num_attention_heads": 4,
        "num_key_value_heads": 3,
        "feed_forward_by_layer": {"x": {"kind": "none"}, "9": {"kind": "none"}},
    }
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_data(data)
    for part in ("num_key_value_heads 3", "'x' is neither", "'9' goes beyond the last layer, 7"):
        assert part in str(caught.value)


def test_every_layer_has_its_own_or_the_common_feed_forward() -> None:
    by_layer = {"0": {"kind": "none"}, "2-3": {"kind": "dense", "intermediate_size": 96}}
    config = ModelConfig.from_data({"num_hidden_layers": 5, "intermediate_size": 64, "feed_forward_by_layer": by_layer})
    parts = [config.feed_forward_of(layer) for layer in range(5)]
    assert isinstance(parts[0], NothingConfig)
    widths = [config.dense_intermediate_size(part) for part in parts[1:] if isinstance(part, DenseConfig)]
    assert widths == [64, 96, 96, 64]


def test_plain_data_reads_back_equal() -> None:
    config = ModelConfig.from_data(
        {"vocab_size": 9, "rope_scaling": {"factor": 2.0}, "feed_forward_by_layer": {"1-2": {"kind": "none"}}}
    )
    assert ModelConfig.from_data(config.to_data()) == config


def test_the_vocabulary_comes_from_the_tokenizer_unless_set() -> None:
    assert ModelConfig().with_vocabulary(6400).vocabulary == 6400
    assert ModelConfig(vocab_size=10).with_vocabulary(10).vocabulary == 10
    with pytest.raises(ConfigError, match="the tokenizer has 11 ids"):
        ModelConfig(vocab_size=10).with_vocabulary(11)


def test_the_default_model_is_the_26m_one() -> None:
    config = ModelConfig(vocab_size=6400, num_key_value_heads=2)
    assert config.dense_intermediate_size(DenseConfig()) == 1408


@pytest.mark.parametrize(
    ("familiar", "kind"), [("model", "knowledge"), ("model_no_feed", "none"), ("model_original", "dense")]
)
def test_variants_go_by_the_names_that_users_of_explicitlm_know(familiar, kind):
    config = ModelConfig.from_data({"num_hidden_layers": 2, "feed_forward": {"kind": familiar}})
    assert config.feed_forward.kind == kind
    by_layer = ModelConfig.from_data({"num_hidden_layers": 2, "feed_forward_by_layer": {"1": {"kind": familiar}}})
    assert by_layer.feed_forward_of(1).kind == kind
