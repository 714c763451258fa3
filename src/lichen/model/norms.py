"""RMSNorm (Zhang and Sennrich, 2019): divide by the root mean square, scale each channel; computed in float32 inside.

>>> [round(x, 4) for x in RMSNorm(2, eps=0.0)(torch.tensor([3.0, 4.0])).tolist()]
[0.8485, 1.1314]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimension, in the dtype of ``x``."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., size]`` → the same shape."""
        if x.dtype == self.weight.dtype:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
