"""Rotary positions (Su et al., 2021), plain or stretched by YaRN (Peng et al., 2023).

Queries and keys are turned, pair by pair, by an angle that grows with the position; pair i of a head consists of its elements
i and i + head/2, as in Llama. The angles are tabled once per device, outside of any compiled region, and a forward pass
picks its rows: no trigonometry in the layers.

>>> rope = Rope(ModelConfig(hidden_size=8, num_attention_heads=2))
>>> cos, sin = rope.tables(3, torch.device("cpu"))
>>> cos.shape, round(cos[1, 0].item(), 4), round(sin[2, 1].item(), 4)
(torch.Size([3, 2]), 0.5403, 0.02)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lichen.config.model import ModelConfig, YarnConfig


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """How far each pair turns per position: ``[head_dim / 2]`` float32 radians, on the CPU."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu") / config.head_size
    plain = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is None:
        return plain
    kept = 1.0 - _ramp(*_correction_range(config, config.rope_scaling), config.head_size // 2)
    return plain / config.rope_scaling.factor * (1.0 - kept) + plain * kept


def attention_scale(scaling: YarnConfig | None) -> float:
    """The factor on both tables: YaRN sharpens attention by 0.1 ln(factor) + 1.

    >>> attention_scale(None), round(attention_scale(YarnConfig(factor=4.0)), 4)
    (1.0, 1.1386)
    """
    if scaling is None:
        return 1.0
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


def _correction_range(config: ModelConfig, scaling: YarnConfig) -> tuple[float, float]:
    """Between which pairs YaRN blends from kept to interpolated frequencies."""
    original = scaling.original_max_position_embeddings

    def pair_turning(times: float) -> float:
        return config.head_size * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, config.head_size - 1)


def _ramp(low: float, high: float, pairs: int) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on, linear between: ``[pairs]``."""
    high = high if high != low else high + 0.001
    return ((torch.arange(pairs, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)


class Rope:
    """Tables of cosines and sines, grown on demand and kept per device. Not a module: it has nothing to train or save."""

    def __init__(self, config: ModelConfig):
        self._config = config
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions 0 … length - 1, each ``[length, head_dim / 2]`` float32."""
        known = self._tables.get(device)
        if known is None or known[0].shape[0] < length:
            known = self._tables[device] = self._compute(max(256, 1 << (length - 1).bit_length()), device)
        return known[0][:length], known[1][:length]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _compute(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        scale = attention_scale(self._config.rope_scaling)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * inverse_frequencies(self._config)
        return (angles.cos() * scale).to(device), (angles.sin() * scale).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn heads ``x [..., T, H, head_dim]`` by ``cos`` and ``sin`` ``[..., T, 1, head_dim / 2]``; the dtype stays."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
