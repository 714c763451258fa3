"""Finding texts by their words: TF-IDF and cosine (Salton and Buckley, 1988), nothing learned.

Terms are casefolded words, and single characters with their pairs where words are not spaced; a term weighs
``(1 + log tf) · (1 + log((1 + N) / (1 + df)))``, texts have length one. An inverted index keeps every term's texts side by
side, so that a query touches those alone. It serves the command line, and as the yardstick that a trained memory must beat.

>>> index = TfIdf(["Ada was born in London", "Moss grows on stone", "杜甫出生于巩县"])
>>> [(number, round(score, 2)) for number, score in index.top("born in london", 2)]
[(0, 0.77)]
>>> index.top("杜甫", 1)[0][0], index.top("nothing of the kind", 3)
(2, [])
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from lichen.dataset.facts import CJK

_TERM = re.compile(f"[{CJK}]+|[^\\W{CJK}]+")
_CJK_RUN = re.compile(f"[{CJK}]")


def terms_of(text: str) -> list[str]:
    """The terms of a text, repeated as often as they occur.

    >>> terms_of("Paris, PARIS 北京市")
    ['paris', 'paris', '北', '京', '市', '北京', '京市']
    """
    found: list[str] = []
    for run in _TERM.findall(text.casefold()):
        if _CJK_RUN.match(run):
            letters = [letter for letter in run if letter.isalnum()]
            found += letters
            found += map("".join, itertools.pairwise(letters))
        else:
            found.append(run)
    return found


class TfIdf:
    """An index over ``texts``, which are known by their position."""

    def __init__(self, texts: Iterable[str]):
        self._terms: dict[str, int] = {}
        counts, flat = array("q"), array("q")
        for text in texts:
            terms = terms_of(text)
            counts.append(len(terms))
            flat.extend(self._terms.setdefault(term, len(self._terms)) for term in terms)
        self.size = len(counts)
        """How many texts there are."""
        owners = np.repeat(np.arange(self.size), np.frombuffer(counts, np.int64) if self.size else 0)
        pairs, times = np.unique(_numbers(flat) * max(self.size, 1) + owners, return_counts=True)
        term, self._texts = pairs // max(self.size, 1), pairs % max(self.size, 1)
        frequency = np.bincount(term, minlength=len(self._terms))
        self._start = np.concatenate([[0], np.cumsum(frequency)])
        self._idf = 1.0 + np.log((1 + self.size) / (1 + frequency))
        weights = (1.0 + np.log(times)) * self._idf[term]
        norms = np.sqrt(np.bincount(self._texts, weights**2, self.size))
        self._weights = weights / norms[self._texts]

    def scores(self, query: str) -> np.ndarray:
        """``[N]`` float64: the cosine between the query and every text. Unknown terms of the query count for its length."""
        terms = terms_of(query)
        known: dict[int, int] = {}
        unknown: dict[str, int] = {}
        for term in terms:
            number = self._terms.get(term)
            if number is None:
                unknown[term] = unknown.get(term, 0) + 1
            else:
                known[number] = known.get(number, 0) + 1
        weights = {number: (1 + np.log(times)) * self._idf[number] for number, times in known.items()}
        rarest = 1.0 + np.log(1.0 + self.size)
        strange = sum(((1 + np.log(times)) * rarest) ** 2 for times in unknown.values())
        norm = np.sqrt(sum(weight**2 for weight in weights.values()) + strange)
        if not weights:
            return np.zeros(self.size)
        spans = [slice(self._start[number], self._start[number + 1]) for number in weights]
        texts = np.concatenate([self._texts[span] for span in spans])
        parts = [self._weights[span] * weight for span, weight in zip(spans, weights.values(), strict=True)]
        return np.bincount(texts, np.concatenate(parts), self.size) / norm

    def top(self, query: str, k: int = 10) -> list[tuple[int, float]]:
        """The ``k`` nearest texts and their cosines, nearest first, equal ones by position; none that shares no term."""
        scores = self.scores(query)
        k = min(k, self.size)
        if k <= 0:
            return []
        least = np.partition(scores, self.size - k)[self.size - k]
        near = np.flatnonzero(scores >= max(least, np.finfo(float).tiny))
        order = near[np.argsort(-scores[near], kind="stable")][:k]
        return [(int(number), float(scores[number])) for number in order]

    def top_batch(self, queries: Sequence[str], k: int = 10) -> list[list[tuple[int, float]]]:
        """`top` of every query."""
        return [self.top(query, k) for query in queries]


def _numbers(values: array[int]) -> np.ndarray:
    return np.frombuffer(values, np.int64) if len(values) else np.zeros(0, np.int64)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
