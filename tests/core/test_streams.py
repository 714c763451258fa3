"""Draws depend on what they are for, and on nothing else."""

import numpy as np
import pytest
import torch

from lichen.core.streams import Stream


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_a_permutation_holds_every_element_once(size: int) -> None:
    permutation = Stream(3, "order").permutation(size, 1)
    values = permutation.take(np.arange(size))
    assert sorted(values.tolist()) == list(range(size))
    assert permutation[size - 1] == values[-1]


def test_permutations_of_other_epochs_and_seeds_differ() -> None:
    first = Stream(0, "order").permutation(1000, 0).take(np.arange(1000))
    for other in (Stream(0, "order").permutation(1000, 1), Stream(1, "order").permutation(1000, 0)):
        assert (first == other.take(np.arange(1000))).mean() < 0.02


def test_a_permutation_is_well_mixed() -> None:
    values = Stream(0, "order").permutation(100_000).take(np.arange(100_000))
    correlation = np.corrcoef(values, np.arange(100_000))[0, 1]
    assert abs(correlation) < 0.02
    assert abs((np.diff(values) == 1).mean()) < 1e-3


def test_elements_outside_are_refused() -> None:
    with pytest.raises(IndexError):
        Stream(0, "order").permutation(5).take(np.array([5]))


def test_generators_repeat_and_differ_by_purpose() -> None:
    a, b = Stream(0, "a"), Stream(0, "b")
    assert a.numpy(1).integers(1 << 60) == a.numpy(1).integers(1 << 60) != b.numpy(1).integers(1 << 60)
    assert torch.equal(torch.rand(4, generator=a.torch(2)), torch.rand(4, generator=a.torch(2)))
    draws = [a.uniform(i) for i in range(2000)]
    assert min(draws) >= 0 and max(draws) < 1 and abs(np.mean(draws) - 0.5) < 0.03
