"""Dense and absent feed-forward parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lichen.config.model import ModelConfig
from lichen.model.feed_forward import Dense, Nothing, build


def test_dense_is_swiglu() -> None:
    dense = Dense(4, 6)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    y, aux = dense(x, None)
    gate, up, down = (layer.weight for layer in (dense.gate_proj, dense.up_proj, dense.down_proj))
    torch.testing.assert_close(y, (F.silu(x @ gate.t()) * (x @ up.t())) @ down.t())
    assert aux == {} and dense.active_parameters() == 3 * 4 * 6


def test_each_layer_gets_its_kind() -> None:
    config = ModelConfig.from_data(
        {
            "hidden_size": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "feed_forward_by_layer": {"0": {"kind": "none"}},
        }
    )
    parts = [build(config, layer, nn.ModuleDict()) for layer in range(2)]
    assert isinstance(parts[0], Nothing) and isinstance(parts[1], Dense)
    assert not list(parts[0].parameters())
