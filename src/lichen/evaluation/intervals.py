"""How sure a score is: every score in the house carries the number of examples and its 95 % interval.

A share of right answers gets Wilson's interval (1927), which stays within 0 and 1 and is honest at both ends, where the textbook
one has no width. A mean of a few runs gets Student's. The difference of two models on the same facts is bootstrapped in pairs:
seeds and facts are drawn again together, each seed with all facts drawn and each fact with all seeds drawn, because both vary
(Efron and Tibshirani, 1993; for two crossed factors Owen, 2007, "The pigeonhole bootstrap", who shows it errs to the safe side).

>>> print(proportion(15, 148))
10.1 % [6.2, 16.0], n 148
>>> mean([1.0, 2.0, 3.0])
Score(value=2.0, low=-0.484..., high=4.484..., n=3, unit='')
>>> print(paired_difference([1, 1, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0]))
66.7 % [33.3, 100.0], n 6
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lichen.core.streams import Stream

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_CHUNK = 1 << 21  # numbers drawn at a time by the bootstrap


@dataclass(frozen=True)
class Score:
    """A value, its 95 % interval and the number of examples. Without examples value and interval are not a number."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""
    """"%" where the value is a share between 0 and 1, to be shown in hundredths."""

    def __str__(self) -> str:
        return f"{self.short()}, n {self.n}"

    def short(self) -> str:
        """The value and its interval, without n: where a table has a column for that."""
        if not self.n:
            return "–"
        percent = self.unit == "%"
        value, low, high = (
            f"{100 * number:.1f}" if percent else f"{number:.4g}" for number in (self.value, self.low, self.high)
        )
        interval = "" if math.isnan(self.low) else f" [{low}, {high}]"
        return f"{value}{' %' * percent}{interval}"

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file; None where there is nothing to say."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(value) else value for name, value in values.items()} | {"n": self.n}


NOTHING = Score(math.nan, math.nan, math.nan, 0)


def proportion(right: int, n: int) -> Score:
    """The share ``right / n`` with Wilson's interval; nothing for n = 0."""
    if not 0 <= right <= n:
        raise ValueError(f"{right} right of {n} is no proportion")
    if n == 0:
        return Score(math.nan, math.nan, math.nan, 0, "%")
    share, spread = right / n, _Z * _Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    low = 0.0 if right == 0 else max(0.0, middle - half)
    return Score(share, low, 1.0 if right == n else min(1.0, middle + half), n, "%")


def share(outcomes: Iterable[bool]) -> Score:
    """``proportion`` of True among ``outcomes``."""
    found = list(outcomes)
    return proportion(sum(map(bool, found)), len(found))


def mean(values: Sequence[float], unit: str = "") -> Score:
    """The mean of independent ``values`` (say, of one run per seed) with Student's interval; a single one has none."""
    if not values:
        return NOTHING
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 1:
        return Score(float(array[0]), math.nan, math.nan, 1, unit)
    half = student_t(0.5 + LEVEL / 2, len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    middle = float(array.mean())
    return Score(middle, middle - half, middle + half, len(array), unit)


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, seed: int = 0, draws: int = 10_000, purpose: str = "paired bootstrap"
) -> Score:
    """The mean of ``ours − theirs`` with its bootstrap interval (percentiles); n counts facts.

    Both are ``[S, F]``, or ``[F]`` for one seed: seeds × facts, the same facts in the same order. With equal numbers of seeds,
    seed s of one belongs to seed s of the other; otherwise (five runs against two) the seeds of each side are drawn on their own.
    Raises ValueError where the facts differ in number.
    """
    a, b = np.atleast_2d(np.asarray(ours, float)), np.atleast_2d(np.asarray(theirs, float))
    if a.shape[-1] != b.shape[-1] or a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"scores of shapes {a.shape} and {b.shape} are not about the same facts")
    facts = a.shape[1]
    if facts == 0:
        return Score(math.nan, math.nan, math.nan, 0, "%")
    sides = [a - b] if a.shape == b.shape else [a, -b]
    draw = Stream(seed, purpose).numpy()
    size = max(1, _CHUNK // facts)
    means = [_resampled(sides, draw, min(size, draws - start)) for start in range(0, draws, size)]
    low, high = np.quantile(np.concatenate(means), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Score(float(a.mean() - b.mean()), float(low), float(high), facts, "%")


def _resampled(sides: Sequence[np.ndarray], draw: np.random.Generator, count: int) -> np.ndarray:
    """``[count]`` means over drawn seeds and drawn facts of the sum of ``sides``, each ``[S, F]``."""
    per_fact: np.ndarray | float = 0.0
    for side in sides:
        seeds = side.shape[0]
        weights = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
        per_fact = per_fact + weights @ side
    facts = sides[0].shape[1]
    chosen = draw.integers(facts, size=(count, facts))
    return np.take_along_axis(np.asarray(per_fact), chosen, axis=1).mean(axis=1)


def student_t(probability: float, freedom: int) -> float:
    """The quantile of Student's t with ``freedom`` degrees, by bisection of the exact finite series.

    >>> round(student_t(0.975, 2), 3), round(student_t(0.975, 4), 3), round(student_t(0.975, 1000), 3)
    (4.303, 2.776, 1.962)
    """
    if not (0 < probability < 1 and freedom >= 1):
        raise ValueError(f"no quantile of t at {probability} with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    aim = abs(2 * probability - 1)
    while _within(high, freedom) < aim:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < aim else (low, middle)
    return math.copysign(high, probability - 0.5)


def _within(t: float, freedom: int) -> float:
    """P(−t < T < t): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(freedom // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
