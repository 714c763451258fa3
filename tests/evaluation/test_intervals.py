"""Intervals: known values, true coverage, and pairing that is felt."""

import math

import numpy as np
import pytest

from lichen.core.streams import Stream
from lichen.evaluation.intervals import mean, paired_difference, proportion, share, student_t


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_published_for_it(right, n, low, high):
    # Newcombe, 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    score = proportion(right, n)
    assert (score.low, score.high) == pytest.approx((low, high), abs=5e-5)
    assert proportion(n - right, n).high == pytest.approx(1 - score.low)


def test_wilson_covers_what_it_claims_where_the_textbook_interval_does_not():
    n, truth = 40, 0.97
    chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
    scores = [proportion(k, n) for k in range(n + 1)]
    covered = sum(c for c, s in zip(chances, scores, strict=True) if s.low <= truth <= s.high)
    textbook = [1.96 * math.sqrt(s.value * (1 - s.value) / n) for s in scores]
    claimed = sum(
        c for c, s, half in zip(chances, scores, textbook, strict=True) if s.value - half <= truth <= s.value + half
    )
    assert covered > 0.92 > 0.75 > claimed


def test_wilson_is_the_normal_interval_for_many_examples():
    score = proportion(600_000, 1_000_000)
    half = 1.959964 * math.sqrt(0.6 * 0.4 / 1e6)
    assert (score.low, score.high) == pytest.approx((0.6 - half, 0.6 + half), abs=2e-6)


def test_no_examples_are_no_score_and_impossible_counts_are_refused():
    assert str(share([])) == "–, n 0" and share([]).as_dict() == {"value": None, "low": None, "high": None, "n": 0}
    assert proportion(0, 5).low == 0.0 and proportion(5, 5).high == 1.0
    with pytest.raises(ValueError, match="no proportion"):
        proportion(6, 5)


def test_quantiles_of_t_are_those_of_the_tables():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042}
    assert {freedom: round(student_t(0.975, freedom), 3) for freedom in table} == table
    assert round(student_t(0.995, 9), 3) == 3.25
    assert student_t(0.025, 7) == pytest.approx(-student_t(0.975, 7)) and abs(student_t(0.5, 3)) < 1e-12


def test_a_single_run_has_a_mean_and_no_interval():
    score = mean([0.4], "%")
    assert score.value == 0.4 and math.isnan(score.low) and score.n == 1


def test_pairs_tell_a_difference_that_unpaired_scores_hide():
    draw = Stream(0, "test").numpy()
    hard = draw.random(400) < 0.5
    theirs = hard.astype(float)
    ours = theirs.copy()
    ours[np.flatnonzero(~hard)[:16]] = 1.0  # better on 4 % of the facts, worse on none
    paired = paired_difference(ours, theirs)
    shuffled = paired_difference(ours, draw.permutation(theirs))
    assert paired.value == pytest.approx(0.04) and paired.low > 0
    assert shuffled.low < 0 < shuffled.high


def test_one_seed_gives_the_interval_of_the_normal_theory():
    draw = Stream(1, "test").numpy()
    ours, theirs = draw.random(1000) < 0.7, draw.random(1000) < 0.5
    difference = ours.astype(float) - theirs
    half = 1.96 * difference.std() / math.sqrt(1000)
    score = paired_difference(ours, theirs)
    assert (score.low, score.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.004)
    assert score == paired_difference(ours, theirs) != paired_difference(ours, theirs, seed=1)


def test_seeds_that_disagree_widen_the_interval_however_many_facts_there_are():
    facts = np.ones(2000)
    steady = paired_difference(np.stack([facts * 0.5] * 4), np.zeros((4, 2000)))
    seeds = np.stack([facts * value for value in (0.0, 0.2, 0.8, 1.0)])
    shaken = paired_difference(seeds, np.zeros((4, 2000)))
    assert steady.high - steady.low < 1e-9
    assert shaken.value == pytest.approx(0.5) and shaken.low < 0.2 and shaken.high > 0.8


def test_seed_s_is_compared_with_seed_s_where_the_numbers_of_seeds_are_equal():
    lucky = np.stack([np.full(50, value) for value in (0.1, 0.5, 0.9)])
    together = paired_difference(lucky + 0.05, lucky)
    apart = paired_difference(lucky + 0.05, lucky[:2])
    assert together.low > 0 and together.high - together.low < 1e-9
    assert apart.low < 0 < apart.high


def test_scores_of_other_facts_are_refused():
    with pytest.raises(ValueError, match="same facts"):
        paired_difference(np.zeros((2, 5)), np.zeros((2, 4)))
