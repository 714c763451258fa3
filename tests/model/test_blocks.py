"""A block's parameters are those that are used."""

from __future__ import annotations

import torch
from torch import nn

from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.blocks import Block
from lichen.model.layout import Layout
from lichen.model.rope import Rope


def test_a_block_without_feed_forward_is_attention_behind_its_norm() -> None:
    config = ModelConfig.from_data({"hidden_size": 8, "num_attention_heads": 2, "feed_forward": {"kind": "none"}})
    block = Block(config, 0, nn.ModuleDict())
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    layout = Layout.of(Batch.of_tokens(torch.zeros(2, 3, dtype=torch.long)), Rope(config), dtype=torch.float32)
    y, aux = block(x, layout)
    torch.testing.assert_close(y, x + block.self_attn(block.input_layernorm(x), layout))
    assert aux == {} and {name.split(".")[0] for name, _ in block.named_parameters()} == {
        "input_layernorm",
        "self_attn",
    }
