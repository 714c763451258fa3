"""One layer: attention, then the feed-forward part, each added to the residual stream behind its own norm (Llama's order).

A layer without a feed-forward part has no norm for it either: a parameter that nothing uses would get no gradient.

>>> config = ModelConfig(hidden_size=8, num_attention_heads=2, feed_forward={"kind": "none"})
>>> [name for name, _ in Block(config, 0, nn.ModuleDict()).named_children()]
['input_layernorm', 'self_attn', 'mlp']
"""

from __future__ import annotations

from torch import Tensor, nn

from lichen.config.model import ModelConfig
from lichen.model.attention import Attention
from lichen.model.feed_forward import Aux, Nothing, build
from lichen.model.layout import Layout
from lichen.model.norms import RMSNorm


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

    def __init__(self, config: ModelConfig, layer: int, shared: nn.ModuleDict):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.mlp = build(config, layer, shared)
        if not isinstance(self.mlp, Nothing):
            self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """``x [B, T, D]`` → ``[B, T, D]``, and the feed-forward part's losses and counts."""
        x = x + self.self_attn(self.input_layernorm(x), layout)
        if isinstance(self.mlp, Nothing):
            return x, {}
        y, aux = self.mlp(self.post_attention_layernorm(x), layout)
        return x + y, aux


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
