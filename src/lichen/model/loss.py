"""The output head and its cross-entropy in one, only at targets, without all logits at once where they would be many.

``nll = logsumexp(hidden @ weight.T) - logit of the target``. Few logits are kept for the backward pass. Many are computed
chunk by chunk and forgotten; the backward pass computes each chunk again and turns it into gradients at once, as in Liger
Kernel (Hsu et al., 2024) and Cut Cross-Entropy (Wijmans et al., 2024), but for any gradient per target that comes from above.
The gradient of the weight is added up in float32 (or float64).

>>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
>>> [round(nll, 4) for nll in linear_cross_entropy(hidden, weight, torch.tensor([0, 1])).tolist()]
[0.2395, 1.0986]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lichen.model.regions import eager

LOGITS_KEPT = 1 << 26
"""Up to this many logits are kept from the forward to the backward pass."""
LOGITS_PER_CHUNK = 1 << 25
"""How many logits exist at once where they are not kept."""
WIDE_ON_A_CPU = 1 << 19
"""How many logits a CPU widens to float32 at once: so many stay in its cache, and in memory that is used over and over."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype | None = None, chunk: int | None = None
) -> Tensor:
    """Negative log-likelihood of ``targets [M]`` (valid ids) under ``hidden [M, D]`` and head ``weight [V, D]``: ``[M]`` float32.

    Products are computed in ``dtype`` (unset, that of ``hidden``). ``chunk`` is the number of targets at a time, 0 for all at
    once; unset, it follows from the number of logits.
    """
    dtype = dtype or hidden.dtype
    if chunk is None:
        chunk = rows_per_chunk(targets.shape[0], weight.shape[0])
    if chunk:
        return _chunked(hidden, weight, targets, dtype, chunk)
    return _KeptLogits.apply(hidden, weight, targets, dtype)  # pyright: ignore[reportReturnType]


def rows_per_chunk(targets: int, vocabulary: int) -> int:
    """How many targets at a time; 0 for all at once.

    >>> rows_per_chunk(4096, 6400), rows_per_chunk(4096, 151_000)
    (0, 222)
    """
    return 0 if targets * vocabulary <= LOGITS_KEPT else max(1, LOGITS_PER_CHUNK // vocabulary)


@eager
def _chunked(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int) -> Tensor:
    return _ChunkedLogits.apply(hidden, weight, targets, dtype, chunk)  # pyright: ignore[reportReturnType]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """``nll [M]``, wide, of ``logits [M, V]``."""
    wide = _wide(logits.dtype)
    if torch.compiler.is_compiling():  # one fused pass that writes nothing of that size
        chosen = logits.gather(1, targets[:, None])[:, 0].to(wide)
        return torch.logsumexp(logits.to(wide), dim=-1) - chosen
    rows = max(1, WIDE_ON_A_CPU // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(targets))
    parts = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.cat([-part.log_softmax(-1, dtype=wide).gather(1, wanted[:, None])[:, 0] for part, wanted in parts])


def _logit_gradient(logits: Tensor, nll: Tensor, targets: Tensor) -> Tensor:
    """``softmax(logits) - onehot(targets)``, ``[M, V]`` in the dtype of ``logits``; what comes from above is multiplied in later,
    to smaller matrices.
    """
    if torch.compiler.is_compiling():
        wide = logits.to(nll.dtype)
        normaliser = nll + wide.gather(1, targets[:, None])[:, 0]
        hit = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
        return ((wide - normaliser[:, None]).exp() - hit.to(wide.dtype)).to(logits.dtype)
    # At the target p - 1 would cancel in 16 bit: expm1 of the wide loss does not.
    gradient = logits.softmax(-1)
    rows = torch.arange(len(targets), device=targets.device)
    gradient[rows, targets] = torch.expm1(-nll).to(logits.dtype)  # scatter_ would copy the whole twice on a CPU
    return gradient


class _KeptLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        narrow_hidden, narrow_weight = hidden.to(dtype), weight.to(dtype)
        logits = narrow_hidden @ narrow_weight.t()
        nll = _nll(logits, targets)
        ctx.save_for_backward(narrow_hidden, narrow_weight, targets, logits, nll)
        ctx.dtypes = hidden.dtype, weight.dtype
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, weight, targets, logits, nll = ctx.saved_tensors
        scale = upstream[:, None]  # kept wide: one rounding of 1 / N would be an error of all gradients alike
        gradient = _logit_gradient(logits, nll, targets)
        hidden_gradient = (gradient @ weight) * scale if ctx.needs_input_grad[0] else None
        weight_gradient = gradient.t() @ (hidden * scale).to(hidden.dtype) if ctx.needs_input_grad[1] else None
        return _cast(hidden_gradient, ctx.dtypes[0]), _cast(weight_gradient, ctx.dtypes[1]), None, None


class _ChunkedLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int) -> Tensor:
        narrow = weight.to(dtype).t()
        pairs = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        nll = torch.cat([_nll(rows.to(dtype) @ narrow, wanted) for rows, wanted in pairs])
        ctx.save_for_backward(hidden, weight, targets, nll)
        ctx.dtype, ctx.chunk = dtype, chunk
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, weight, targets, nll = ctx.saved_tensors
        narrow = weight.to(ctx.dtype)
        hidden_gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight, dtype=_wide(ctx.dtype)) if ctx.needs_input_grad[1] else None
        for start in range(0, targets.shape[0], ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            inner, scale = hidden[rows].to(ctx.dtype), upstream[rows, None].to(ctx.dtype)
            gradient = _logit_gradient(inner @ narrow.t(), nll[rows], targets[rows])
            if hidden_gradient is not None:
                hidden_gradient[rows] = (gradient @ narrow) * scale
            if weight_gradient is not None:
                _add_product(weight_gradient, gradient.t(), inner * scale)
        return hidden_gradient, _cast(weight_gradient, weight.dtype), None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, without a temporary of that size where the dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _cast(gradient: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if gradient is None else gradient.to(dtype)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
