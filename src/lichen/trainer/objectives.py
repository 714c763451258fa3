"""What a training minimises: an objective turns a model and a batch into a sum, never into a mean.

Whoever calls it divides once, by the weight of all micro-batches and ranks together; so neither accumulation nor packing nor
the number of ranks changes the gradient. That weight is asked for first, from host data, because it must be known before the
first backward pass. Everything that computes with weights happens inside ``model(batch)``; an objective only reduces.

>>> import torch
>>> from types import SimpleNamespace
>>> batch = Batch.of_tokens(torch.tensor([[1, 2, 3]]))
>>> model = lambda batch, want: SimpleNamespace(nll=torch.tensor([2.0, 4.0]), aux={}, meters={})
>>> objective = NextToken()
>>> objective(model, batch).sum.item(), objective.weight(batch)
(6.0, 2.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from lichen.core.batch import IGNORE_TARGET, Batch


class Reduced(NamedTuple):
    """What an objective makes of a batch."""

    sum: Tensor
    """Scalar loss summed over what the batch's weight counts."""
    aux: Mapping[str, tuple[Tensor, Tensor]]
    """Auxiliary losses of the model: name to (sum, weight), both scalars; the weight grows with the batch's tokens."""
    counts: Mapping[str, Tensor] = {}
    """What the model counted (tokens per expert, say); summed over a whole step it goes to the model's ``after_step``."""


class Objective(Protocol):
    """One quantity to minimise."""

    def weight(self, batch: Batch) -> float:
        """The batch's share of the divisor, from host data alone, before any forward pass."""
        ...

    def __call__(self, model: Any, batch: Batch) -> Reduced:
        """The differentiable sum over ``batch``."""
        ...


class NextToken:
    """Negative log likelihood of every target, in nats; weighted where the batch has weights."""

    def weight(self, batch: Batch) -> float:
        """Number of targets, or the sum of their weights."""
        if batch.weights is None:
            return float(batch.num_targets)
        return float(batch.weights[batch.targets != IGNORE_TARGET].double().sum())

    def __call__(self, model: Any, batch: Batch) -> Reduced:
        """``model(batch, want="nll")`` gives ``nll [M]`` in the order of the targets, row by row."""
        output = model(batch, want="nll")
        nll = output.nll
        if batch.weights is not None:
            nll = nll * batch.weights.view(-1)[output.index]
        return Reduced(nll.sum(), output.aux, output.meters)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
