"""Numbers measured while training: moving means, clipping, where the time goes, memory.

Meters are plain Python: they take floats the loop already has on the host and never touch a tensor, so measuring costs
no synchronisation. What a resumed run must repeat to the bit has ``state_dict``/``load_state_dict`` holding JSON
numbers only (JSON keeps a Python float exactly). Times and memory are measurements of the machine and are never part of
a state.

>>> round(bits_per_byte(nll_sum=693.147, num_bytes=500), 3), round(perplexity(2.0), 3)
(2.0, 7.389)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PARTS: tuple[str, ...] = ("data", "forward_backward", "optimizer", "communication", "other")
"""The parts a training step's time is told apart into; ``other`` is what no part claimed."""


class MovingMean:
    """An exponential moving mean, corrected for its start at zero (as in Adam, Kingma and Ba 2015).

    ``decay`` is the share of the past kept per update of weight 1: 0.98 remembers about the last 50 values. Values that
    are not finite are ignored: one bad step must not blank the curve for ever.

    >>> mean = MovingMean(decay=0.5)
    >>> [round(mean.update(value), 4) for value in (4.0, 2.0, 2.0)]
    [4.0, 2.6667, 2.2857]
    >>> other = MovingMean(decay=0.5)
    >>> other.load_state_dict(mean.state_dict())
    >>> other.update(1.0) == mean.update(1.0)
    True
    """

    def __init__(self, decay: float = 0.98):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), not {decay}")
        self.decay = decay
        self._sum = 0.0
        self._weight = 0.0

    def update(self, value: float) -> float:
        """Take one value in and return the mean."""
        if math.isfinite(value):
            self._sum = self.decay * self._sum + (1 - self.decay) * value
            self._weight = self.decay * self._weight + (1 - self.decay)
        return self.value

    @property
    def value(self) -> float:
        """The mean, NaN before the first value."""
        return self._sum / self._weight if self._weight else math.nan

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to go on exactly."""
        return {"sum": self._sum, "weight": self._weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from ``state_dict()``."""
        self._sum, self._weight = float(state["sum"]), float(state["weight"])


class ClipMeter:
    """How often and how strongly gradients were clipped to the norm ``limit`` (None: never) since the last reset.

    The clip rate is the share of applied steps whose norm before clipping exceeded the limit; the mean clip ratio is
    the mean of min(1, limit / norm), the factor the gradient was multiplied by. A step that was not applied (a norm
    that is not finite) counts in neither.

    >>> meter = ClipMeter(limit=1.0)
    >>> for norm in (0.5, 2.0, 4.0, float("nan")):
    ...     meter.update(norm)
    >>> round(meter.clip_rate, 4), round(meter.mean_clip_ratio, 4), meter.applied
    (0.6667, 0.5833, 3)
    """

    def __init__(self, limit: float | None):
        if limit is not None and not limit > 0:
            raise ValueError(f"the clipping limit must be positive or None, not {limit}")
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.applied = 0
        self._clipped = 0
        self._ratios = 0.0

    def update(self, norm: float) -> None:
        """Count one step whose global gradient norm before clipping was ``norm``."""
        if not math.isfinite(norm):
            return
        self.applied += 1
        if self.limit is not None and norm > self.limit:
            self._clipped += 1
            self._ratios += self.limit / norm
        else:
            self._ratios += 1.0

    @property
    def clip_rate(self) -> float:
        """Share of applied steps that were clipped, NaN without any."""
        return self._clipped / self.applied if self.applied else math.nan

    @property
    def mean_clip_ratio(self) -> float:
        """Mean factor of applied steps, 1 if none was clipped, NaN without any."""
        return self._ratios / self.applied if self.applied else math.nan

    def state_dict(self) -> dict[str, float]:
        """What a run resumed in the middle of an interval needs."""
        return {"applied": self.applied, "clipped": self._clipped, "ratios": self._ratios}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from ``state_dict()``."""
        self.applied, self._clipped = int(state["applied"]), int(state["clipped"])
        self._ratios = float(state["ratios"])


class TimeSplit:
    """Where the wall-clock time between two reports went.

    Parts exclude one another: a part entered inside another stops the outer one's clock, so communication inside the
    backward pass is not counted twice and all parts with ``other`` add up to the time that passed. ``synchronize`` is
    called at every border where work runs asynchronously (``torch.cuda.synchronize``); leave it None for speed.

    >>> now = iter([0, 1, 3, 4, 6, 10]).__next__
    >>> split = TimeSplit(clock=now)
    >>> with split.part("forward_backward"):
    ...     with split.part("communication"):
    ...         pass
    >>> split.report()
    {'data': 0.0, 'forward_backward': 4.0, 'optimizer': 0.0, 'communication': 1.0, 'other': 5.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, synchronize: Callable[[], None] | None = None):
        self._clock = clock
        self._synchronize = synchronize
        self._open: list[str] = []
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._start = self._mark = clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside the ``with`` block under ``name``, one of ``PARTS``."""
        if name not in self._seconds:
            raise ValueError(f"no part is called {name!r}; there are {', '.join(PARTS)}")
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        if self._synchronize is not None:
            self._synchronize()
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._mark
        self._mark = now

    def report(self, reset: bool = True) -> dict[str, float]:
        """Seconds per part since the last reset; they sum to the time that passed."""
        now = self._clock()
        seconds = dict(self._seconds)
        if self._open:
            seconds[self._open[-1]] += now - self._mark
        seconds["other"] += max(0.0, (now - self._start) - sum(seconds.values()))
        if reset:
            self._seconds = dict.fromkeys(PARTS, 0.0)
            self._start = self._mark = now
        return {part: float(value) for part, value in seconds.items()}


def perplexity(nll: float) -> float:
    """exp of a mean negative log likelihood in nats; infinite instead of an overflow.

    >>> perplexity(1e6)
    inf
    """
    return math.exp(nll) if nll < 700 or math.isnan(nll) else math.inf


def bits_per_byte(nll_sum: float, num_bytes: int) -> float:
    """Σ nll / (ln 2 · bytes): comparable between tokenizers, and with compressors (8 × compressed / raw size).

    ``nll_sum`` in nats over all targets, ``num_bytes`` UTF-8 bytes of the text those targets spell. NaN without bytes.
    """
    return nll_sum / (math.log(2) * num_bytes) if num_bytes else math.nan


def memory(device: torch.device | None = None) -> dict[str, float]:
    """Memory in MiB: resident set of this process now, and on an accelerator the most it has had allocated.

    >>> memory()["memory_mib"] > 10
    True
    """
    import psutil

    from lichen.core.device import allocated_bytes

    found = {"memory_mib": psutil.Process().memory_info().rss / 2**20}
    allocated = None if device is None else allocated_bytes(device)
    if allocated is not None:
        found["memory_device_mib"] = allocated / 2**20
    return found


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
