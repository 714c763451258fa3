"""Arms get the reference's budget, and not more than that is changed about them."""

from typing import Any

import pytest

from lichen.config.comparison import ComparisonConfig
from lichen.config.errors import UsageError
from lichen.experiments.sizing import About, sized_models

READING = {"kind": "knowledge", "beside": {"kind": "dense"}, "knowledge_dim": 32, "knowledge_length": 16}
ARMS: dict[str, Any] = {
    "knowledge": {"feed_forward_by_layer": {"1": READING}},
    "dense": {},
    "dense-parameters": {"equal": "parameters"},
    "none": {"feed_forward": {"kind": "none"}},
    "moe": {"feed_forward": {"kind": "moe", "num_experts": 4}},
    "product_key": {"feed_forward_by_layer": {"1": {"kind": "product_key", "num_keys": 32, "key_dim": 32}}},
    "knowledge-replacing": {"feed_forward_by_layer": {"1": {**READING, "beside": None}}},
    "small": {"equal": None},
}
MODEL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
ABOUT = About(told=1000, entries=1500, vocabulary=500)


def sized(arms: dict[str, Any] = ARMS, about: About = ABOUT) -> Any:
    settings = ComparisonConfig.from_data({"sizes": [{"told": 1000}], "arms": arms, "model": MODEL})
    return sized_models(settings, about)


def test_arms_cost_what_the_reference_costs() -> None:
    found = sized()
    target = found["knowledge"].measures
    for name in ("dense", "moe", "product_key", "knowledge-replacing"):
        assert found[name].measures.flops_per_token == pytest.approx(target.flops_per_token, rel=0.02)
    assert found["none"].measures.flops_per_token == pytest.approx(target.flops_per_token, rel=0.05)
    assert found["dense-parameters"].measures.trainable == pytest.approx(target.trainable, rel=0.01)
    assert found["small"].model.intermediate_size == 128
    assert found["moe"].measures.active < found["moe"].measures.trainable


def test_a_larger_bank_costs_operations_and_bytes_and_is_not_written_into_the_model() -> None:
    small, large = sized(), sized(about=About(1000, 15000, 500))
    assert large["knowledge"].model == small["knowledge"].model
    assert large["knowledge"].measures.bank_bytes == 10 * small["knowledge"].measures.bank_bytes
    assert large["dense"].model.intermediate_size > small["dense"].model.intermediate_size
    assert small["knowledge"].model.feed_forward_of(1).knowledge_num is None


def test_an_arm_that_can_not_be_made_equal_is_named() -> None:
    huge = {"feed_forward_by_layer": {"1": {"kind": "product_key", "num_keys": 600, "key_dim": 512, "heads": 8}}}
    with pytest.raises(UsageError, match=r"arm huge: .*or set arms\.huge\.equal to null"):
        sized({**ARMS, "huge": huge})
