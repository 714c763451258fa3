"""Distinct-n, repetition and loops: counted by hand."""

import math

import numpy as np
import pytest

from lichen.metrics.diversity import (
    distinct,
    loop_period,
    n_grams,
    pooled_distinct,
    pooled_distinct_without,
    repetition,
)

TEXTS = [[1, 2, 3, 1, 2, 3], [4, 4, 4, 4], [1, 2], [], [5]]


def by_numpy(text, n):
    rows = np.array([text[start : start + n] for start in range(len(text) - n + 1)])
    return len(np.unique(rows, axis=0)) / len(rows)


def test_distinct_and_repeated_n_grams():
    assert n_grams([1, 2, 3], 2) == [(1, 2), (2, 3)]
    assert [distinct([1, 2, 3, 1, 2, 3], n) for n in (1, 2, 3, 6)] == [3 / 6, 3 / 5, 3 / 4, 1.0]
    assert repetition([1, 2, 3, 1, 2, 3, 1]) == pytest.approx(1 / 4)  # 1 2 3 1 stands twice
    assert repetition([7] * 10) == pytest.approx(6 / 7) and repetition(list(range(10))) == 0
    draw = np.random.default_rng(0)
    for n in (1, 2, 3, 4):
        text = draw.integers(4, size=50).tolist()
        assert distinct(text, n) == by_numpy(text, n)


def test_a_text_too_short_for_an_n_gram_says_nothing():
    assert math.isnan(distinct([], 1)) and math.isnan(repetition([1, 2, 3])) and repetition([1, 2, 3, 4]) == 0


def test_equal_texts_are_seen_only_together():
    texts = [[1, 2, 3, 4]] * 5
    assert [distinct(text, 2) for text in texts] == [1.0] * 5 and pooled_distinct(texts, 2) == pytest.approx(1 / 5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_leaving_each_text_out_is_counting_anew(n):
    found = pooled_distinct_without(TEXTS, n)
    expected = [pooled_distinct(TEXTS[:i] + TEXTS[i + 1 :], n) for i in range(len(TEXTS))]
    assert found == pytest.approx(expected, nan_ok=True)
    assert np.isnan(pooled_distinct_without([[1, 2, 3]], n)).all()


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ([9, 8, 7] + [1, 2] * 6, 2),
        ([9] + [1, 2] * 5 + [1], 0),  # eleven tokens of a loop are too few
        ([1] * 12, 1),
        ([5] + [1] * 11, 0),
        (list(range(5)) * 3, 5),
        (list(range(20)) * 3, 20),
        (list(range(20)) * 2 + list(range(10)), 0),  # two and a half times
        ([1, 2] * 10 + [3], 0),  # it got out of the loop
        ([3, 4, 1, 2, 3] * 3 + [3, 4], 5),  # the loop may end anywhere in it
        ([], 0),
    ],
)
def test_a_loop_is_an_end_that_repeats_three_times(text, period):
    assert loop_period(text) == period


def test_words_and_characters_are_tokens_too():
    assert loop_period("石上" * 6) == 2 and distinct(["苔", "藓", "苔", "藓"], 1) == 0.5
