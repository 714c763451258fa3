"""Validation: the loss over held-out text, as nats per target, perplexity and bits per byte.

Bits per byte are the sum of all losses over the bytes of the text those targets spell; unlike the loss they can be compared
between tokenizers, and with compressors. The sums stay on the device until the last batch.

>>> validation = Validation(step=1, loss=math.log(4), targets=10.0, num_bytes=20.0)
>>> round(validation.perplexity, 6), round(validation.bits_per_byte, 6)
(4.0, 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from lichen.core.batch import Batch
from lichen.metrics import meters
from lichen.trainer.objectives import Objective
from lichen.trainer.runtime import Runtime
from lichen.trainer.step import explained

Weights = Literal["current", "averaged"]


@dataclass(frozen=True)
class Validation:
    """One look at the held-out text; equal on all ranks."""

    step: int
    loss: float
    """Nats per target."""
    targets: float
    num_bytes: float
    """UTF-8 bytes the targets spell."""
    weights: Weights = "current"

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return meters.perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Loss in bits over bytes of text."""
        return self.loss * self.targets / (math.log(2) * self.num_bytes) if self.num_bytes else math.nan


class Portion(Protocol):
    """A validation batch."""

    @property
    def batch(self) -> Batch:
        """Its rows."""
        ...

    @property
    def bytes(self) -> int:
        """UTF-8 bytes its targets spell."""
        ...


def validate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Portion],
    step: int,
    runtime: Runtime,
    interrupted: Callable[[], bool],
    weights: Weights = "current",
    parts: int = 1,
) -> Validation | None:
    """The objective over ``batches``, this rank's share, each read in ``parts``; all ranks give equally many.

    None if any rank was ``interrupted`` between two batches.
    """
    sums, weight, num_bytes = [], 0.0, 0.0
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for portion in batches:
                if runtime.any(interrupted()):
                    return None
                weight += objective.weight(portion.batch)
                num_bytes += portion.bytes
                for part in portion.batch.split(parts):
                    with explained(runtime, part, parts), runtime.autocast():
                        sums.append(objective(model, part.to(runtime.device)).sum.float())
    finally:
        model.train(training)
    total = float(torch.stack(sums).cpu().double().sum()) if sums else 0.0  # not on the device: MPS has no float64
    total, weight, num_bytes = runtime.sum([total, weight, num_bytes])
    return Validation(step, total / weight if weight else math.nan, weight, num_bytes, weights)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
