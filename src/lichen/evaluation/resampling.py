"""Intervals of scores that are no share of right answers: by drawing examples again, or by leaving each out once.

>>> print(ratio([8, 8, 8], [4, 4, 4], seed=0, purpose="example"))
2 [2, 2], n 3
>>> print(jackknife(0.5, [0.4, 0.5, 0.6]))
50.0 % [0.3, 99.7], n 3
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lichen.core.streams import Stream
from lichen.evaluation.intervals import LEVEL, NOTHING, Score, student_t

DRAWS = 2000
"""Of the bootstrap."""
_CHUNK = 1 << 21  # numbers drawn at a time


def ratio(parts: ArrayLike, wholes: ArrayLike, seed: int, purpose: str, unit: str = "") -> Score:
    """Σ parts / Σ wholes over examples, both ``[N]``; its interval by drawing examples again, part and whole together (Efron and
    Tibshirani, 1993: percentiles of ``DRAWS`` draws). Nothing without examples, no interval for a single one.
    """
    above, below = np.asarray(parts, float), np.asarray(wholes, float)
    n = len(above)
    if not n or not below.sum():
        return NOTHING
    value = float(above.sum() / below.sum())
    if n == 1:
        return Score(value, math.nan, math.nan, 1, unit)
    draw = Stream(seed, purpose).numpy()
    size = max(1, _CHUNK // n)
    drawn = []
    for start in range(0, DRAWS, size):
        chosen = draw.integers(n, size=(min(size, DRAWS - start), n))
        drawn.append(above[chosen].sum(1) / below[chosen].sum(1))
    low, high = np.quantile(np.concatenate(drawn), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Score(value, float(low), float(high), n, unit)


def mean(values: Sequence[float], seed: int, purpose: str, unit: str = "%") -> Score:
    """The mean of the ``values`` that are numbers, each of one example, with its bootstrap interval."""
    known = [value for value in values if not math.isnan(value)]
    return ratio(known, np.ones(len(known)), seed, purpose, unit)


def jackknife(value: float, without: Sequence[float] | np.ndarray, unit: str = "%") -> Score:
    """A share's interval from its values ``without`` each example: Student's around it, with the standard error
    √((N − 1) / N · Σ (θ₍ᵢ₎ − mean θ)²) (Tukey, 1958). For what repeats itself when an example is drawn twice.
    """
    left, n = np.asarray(without, float), len(without)
    if math.isnan(value):
        return NOTHING
    if n < 2 or not np.isfinite(left).all():
        return Score(value, math.nan, math.nan, n, unit)
    error = math.sqrt((n - 1) / n * float(np.square(left - left.mean()).sum()))
    half = student_t(0.5 + LEVEL / 2, n - 1) * error
    return Score(value, max(0.0, value - half), min(1.0, value + half), n, unit)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
