"""Bootstrap of a ratio and the jackknife: they cover what they should, and say nothing where there is nothing."""

import math

import numpy as np
import pytest

from lichen.evaluation import resampling
from lichen.evaluation.resampling import jackknife, ratio


def test_a_ratio_weighs_examples_by_their_whole():
    found = ratio([1, 30], [1, 10], seed=0, purpose="t")
    assert found.value == 31 / 11 and (found.low, found.high, found.n) == (1.0, 3.0, 2)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(3).exponential(2.0, 400)
    found = resampling.mean(values.tolist(), 0, "t", unit="")
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert found == resampling.mean(values.tolist(), 0, "t", unit="")
    assert found != resampling.mean(values.tolist(), 1, "t", unit="")


def test_part_and_whole_are_drawn_together():
    wholes = np.random.default_rng(0).integers(1, 1000, 50)
    found = ratio(2.5 * wholes, wholes, seed=0, purpose="t")
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5, 2.5))


def test_many_examples_are_drawn_a_part_at_a_time(monkeypatch):
    values = np.random.default_rng(0).random(100)
    whole = ratio(values, np.ones(100), 0, "t")
    monkeypatch.setattr(resampling, "_CHUNK", 700)
    assert ratio(values, np.ones(100), 0, "t") == whole


def test_without_examples_nothing_is_said():
    assert ratio([], [], 0, "t").n == 0 and resampling.mean([math.nan], 0, "t").n == 0
    assert resampling.mean([math.nan, 0.5, 0.7], 0, "t").n == 2
    one = ratio([1], [2], 0, "t")
    assert one.value == 0.5 and math.isnan(one.low)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = [0.2, 0.4, 0.9, 0.5]
    without = [float(np.mean(values[:i] + values[i + 1 :])) for i in range(4)]
    found = jackknife(0.5, without)
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert jackknife(0.99, [0.9, 0.99, 0.99]).high == 1.0
    assert math.isnan(jackknife(0.5, [math.nan, 0.5]).low) and jackknife(math.nan, []).n == 0
