"""RMSNorm in every mixture of dtypes."""

from __future__ import annotations

import pytest
import torch

from lichen.model.norms import RMSNorm


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_computes_in_float32_and_keeps_the_dtype_of_its_input(x_dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    norm = RMSNorm(16, eps=1e-5)
    torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    norm.to(weight_dtype)
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).to(x_dtype)
    exact = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5) * norm.weight.float()
    assert norm(x).dtype == x_dtype
    assert torch.equal(norm(x), exact.to(x_dtype)) or torch.allclose(
        norm(x).float(), exact, rtol=1e-2 if x_dtype != torch.float32 else 1e-6
    )
