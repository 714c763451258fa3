"""Averaged weights: an exponential moving average of every trainable parameter, in float32.

Averaging over the path of training gives weights that validate better than the last ones (Polyak and Juditsky, 1992;
with a decay that grows from small, as in Tensor2Tensor and timm, so that the random beginning is soon forgotten).

>>> model = nn.Linear(1, 1, bias=False)
>>> averages = Averages(model, decay=0.5, warm_up=False)
>>> _ = nn.init.constant_(model.weight, 3.0); averages.tensors()["weight"].zero_()
tensor([[0.]])
>>> averages.update(); averages.tensors()["weight"].item()
1.5
>>> with averages.swapped_in():
...     model.weight.item()
1.5
>>> model.weight.item()
3.0
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lichen.config.errors import LichenError
from lichen.trainer.state import full_tensor, like, plain_name

_UPDATES = "updates"  # no parameter's name: those of a model have a dot or belong to a single layer


class Averages:
    """The moving average of ``model``'s trainable parameters; twice their memory during `swapped_in`."""

    def __init__(self, model: nn.Module, decay: float = 0.999, warm_up: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        self.decay, self.warm_up, self.updates = decay, warm_up, 0
        self._parameters = {plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    def decay_now(self) -> float:
        """The decay of the next update: ``min(decay, (1 + n) / (10 + n))`` with warm-up, n being the updates done."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the parameters; call after each optimizer step that was taken, never after a skipped one."""
        now = [p.detach().float() for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._averages.values()), now, 1 - self.decay_now())  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    @contextlib.contextmanager
    @torch.no_grad()
    def swapped_in(self) -> Iterator[None]:
        """Within the block the model computes with the averages; afterwards it has its own weights, to the bit."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])  # in place: compiled graphs and gradient buckets keep their pointers

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name, unsharded (a collective call on a sharded model), and the count of updates."""
        return {_UPDATES: torch.tensor(self.updates), **{name: full_tensor(t) for name, t in self._averages.items()}}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo `tensors`; raises `LichenError` on a missing or unknown parameter or another shape."""
        wrong = (self._averages.keys() | {_UPDATES}) ^ tensors.keys()
        wrong |= {n for n, t in self._averages.items() if n in tensors and tensors[n].shape != t.shape}
        if wrong:
            raise LichenError(f"averages: {min(wrong)} is missing, unknown or has another shape; use --init-from")
        self.updates = int(tensors[_UPDATES])
        for name, average in self._averages.items():
            average.copy_(like(tensors[name].float(), average))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
