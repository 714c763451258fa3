"""The fused head and loss against plain cross-entropy, and its gradient against finite differences."""

# pyright: reportOptionalMemberAccess=false
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lichen.model import loss
from lichen.model.loss import linear_cross_entropy


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 5, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, 11, (7,), generator=generator)


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 100])
def test_gradients_agree_with_finite_differences(chunk: int) -> None:
    hidden, weight, targets = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, chunk=chunk), (hidden, weight))


@pytest.mark.parametrize("chunk", [0, 3])
def test_equals_cross_entropy_of_all_logits(chunk: int) -> None:
    hidden, weight, targets = inputs(torch.float32)
    scale = torch.arange(7.0)
    (linear_cross_entropy(hidden, weight, targets, chunk=chunk) * scale).sum().backward()
    got = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    (F.cross_entropy(hidden @ weight.t(), targets, reduction="none") * scale).sum().backward()
    torch.testing.assert_close(got, (hidden.grad, weight.grad), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [0, 3])
def test_half_precision_products_give_float32_losses_and_gradients(chunk: int) -> None:
    hidden, weight, targets = inputs(torch.float32)
    nll = linear_cross_entropy(hidden, weight, targets, dtype=torch.bfloat16, chunk=chunk)
    nll.sum().backward()
    assert nll.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
    exact = linear_cross_entropy(hidden, weight, targets, chunk=0)
    torch.testing.assert_close(nll, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("chunk", [0, 3])
def test_a_frozen_head_or_frozen_hidden_states_cost_nothing_and_break_nothing(chunk: int) -> None:
    hidden, weight, targets = inputs(torch.float32)
    linear_cross_entropy(hidden, weight.detach(), targets, chunk=chunk).sum().backward()
    linear_cross_entropy(hidden.detach(), weight, targets, chunk=chunk).sum().backward()
    assert hidden.grad is not None and weight.grad is not None


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    weight = torch.tensor([[300.0], [-300.0]])
    nll = linear_cross_entropy(hidden, weight, torch.tensor([0, 0]), chunk=1)
    nll.sum().backward()
    assert nll.tolist() == [0.0, 180000.0] and hidden.grad.isfinite().all()


def test_logits_widened_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = inputs(torch.float32)
    at_once = linear_cross_entropy(hidden, weight, targets)
    monkeypatch.setattr(loss, "WIDE_ON_A_CPU", 3 * len(weight))
    in_parts = linear_cross_entropy(hidden, weight, targets)
    assert torch.equal(in_parts, at_once)
