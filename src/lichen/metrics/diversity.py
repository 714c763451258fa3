"""How varied and how repetitive texts are: counts of n-grams, nothing else.

Texts are sequences of tokens, of any kind that can be compared. The measures of one text lie between 0 and 1 and are averaged
over texts; as longer texts repeat more, only texts of the same greatest length can be compared. ``pooled_distinct`` also sees
texts that are each varied and all the same.

>>> moss, loop = list("moss on bark"), list("so so so so so so")
>>> [round(distinct(text, 2), 2) for text in (moss, loop)], round(repetition(loop), 2)
([1.0, 0.19], 0.79)
>>> loop_period(moss), loop_period(loop)
(0, 3)
>>> pooled_distinct([moss, moss], 2), pooled_distinct([moss], 2)
(0.5, 1.0)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

Text = Sequence[Hashable]
REPEATED = 4
"""Length of the n-grams by which repetition is counted."""
LOOP_TIMES, LOOP_LENGTH = 3, 12
"""A loop stands at least so many times and covers at least so many tokens: three exclamation marks are none."""


def n_grams(text: Text, n: int) -> list[tuple[Hashable, ...]]:
    """All n tokens in a row, in order; none in a shorter text."""
    return [tuple(text[place : place + n]) for place in range(len(text) - n + 1)]


def distinct(text: Text, n: int) -> float:
    """Distinct-n within one text: different n-grams / n-grams. 1 if none stands twice; not a number without any."""
    found = n_grams(text, n)
    return len(set(found)) / len(found) if found else math.nan


def repetition(text: Text, n: int = REPEATED) -> float:
    """The share of n-grams that stand in the text before: 1 − distinct-n; seq-rep-n of Welleck et al., 2020, "Neural text
    generation with unlikelihood training".
    """
    return 1 - distinct(text, n)


def pooled_distinct(texts: Sequence[Text], n: int) -> float:
    """Distinct-n of Li et al., 2016, "A diversity-promoting objective function": different n-grams of all texts together / their
    n-grams. It falls with the number of texts and their length.
    """
    found = [gram for text in texts for gram in n_grams(text, n)]
    return len(set(found)) / len(found) if found else math.nan


def pooled_distinct_without(texts: Sequence[Text], n: int) -> np.ndarray:
    """``[len(texts)]`` float64: ``pooled_distinct`` of all texts but one, for a jackknife (Tukey, 1958).

    A bootstrap would be wrong here: it draws texts twice, and what stands twice is not distinct.

    >>> pooled_distinct_without(["ab", "ac", "d"], 1)
    array([1.  , 1.  , 0.75])
    """
    found = [Counter(n_grams(text, n)) for text in texts]
    texts_with = Counter(gram for grams in found for gram in grams)
    total = sum(grams.total() for grams in found)
    left = [total - grams.total() for grams in found]
    own = [sum(texts_with[gram] == 1 for gram in grams) for grams in found]
    kept = [len(texts_with) - count for count in own]
    return np.array([count / rest if rest else math.nan for count, rest in zip(kept, left, strict=True)])


def loop_period(text: Text, times: int = LOOP_TIMES, length: int = LOOP_LENGTH) -> int:
    """The smallest period p of a loop that the text ends in, or 0.

    A loop is an end in which every token equals the one p before it, of ``times`` · p and at least ``length`` tokens.
    """
    for period in range(1, len(text) // times + 1):
        span = max(times * period, length)
        if span <= len(text) and all(
            text[place] == text[place - period] for place in range(len(text) - span + period, len(text))
        ):
            return period
    return 0


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
