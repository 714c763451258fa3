"""Rank and likeness of states: closed forms, an independent computation in NumPy, and sums that add up."""

import math

import numpy as np
import pytest
import torch

from lichen.metrics.representations import (
    CosineSums,
    Moments,
    cosine_inter,
    cosine_intra,
    effective_rank,
    mean_norm,
    participation_ratio,
)

SEGMENTS = torch.tensor([0] * 9 + [1] * 2 + [4] * 12 + [7])


@pytest.fixture
def states():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(24, 10, generator=draw) * torch.logspace(0, -2, 10) + torch.linspace(0, 3, 10)


def by_numpy_rank(matrix):
    sizes = np.linalg.svd(matrix, compute_uv=False)
    shares = sizes[sizes > 0] / sizes.sum()
    return math.exp(-(shares * np.log(shares)).sum())


def by_numpy_cosines(matrix, segments):
    """All pairs, one by one."""
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    intra = []
    for name in np.unique(segments):
        rows = unit[segments == name]
        pairs = [a @ b for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        intra += [np.mean(pairs)] if pairs else []
    across = [a @ b for i, a in enumerate(unit) for j, b in enumerate(unit) if segments[i] != segments[j]]
    return np.mean(intra), np.mean(across)


def test_all_measures_are_those_of_numpy(states):
    matrix, names = states.numpy().astype(np.float64), SEGMENTS.numpy()
    shifted = matrix - matrix.mean(axis=0)
    assert effective_rank(states) == pytest.approx(by_numpy_rank(matrix), rel=1e-9)
    assert effective_rank(states, centred=True) == pytest.approx(by_numpy_rank(shifted), rel=1e-9)
    variances = np.linalg.eigvalsh(np.cov(matrix.T))
    assert participation_ratio(states) == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-9)
    for centre, rows in ((None, matrix), (states.double().mean(0), shifted)):
        intra, inter = by_numpy_cosines(rows, names)
        assert cosine_intra(states, SEGMENTS, centre) == pytest.approx(intra, rel=1e-9)
        assert cosine_inter(states, SEGMENTS, centre) == pytest.approx(inter, rel=1e-9)
    assert mean_norm(states) == pytest.approx(np.linalg.norm(matrix, axis=1).mean(), rel=1e-9)


def test_parts_add_up_to_the_whole(states):
    left, right = SEGMENTS < 4, SEGMENTS >= 4  # a segment is never cut
    whole, added = Moments.of(states), Moments.of(states[left]) + Moments.of(states[right])
    assert added.n == 24 and torch.allclose(added.mean, whole.mean)
    assert added.effective_rank(centred=True) == pytest.approx(whole.effective_rank(centred=True), rel=1e-9)
    assert added.participation_ratio() == pytest.approx(whole.participation_ratio(), rel=1e-9)
    parts = [CosineSums.of(states[rows], SEGMENTS[rows], whole.mean) for rows in (left, right)]
    both = parts[0] + parts[1]
    assert both.intra == pytest.approx(cosine_intra(states, SEGMENTS, whole.mean), rel=1e-9)
    assert both.inter == pytest.approx(cosine_inter(states, SEGMENTS, whole.mean), rel=1e-9)


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_as_many_directions_as_are_used_alike(directions):
    axes = 5.0 * torch.eye(8)[:directions]
    states = torch.cat([axes, -axes])  # mean zero
    assert effective_rank(states) == pytest.approx(directions)
    assert effective_rank(states, centred=True) == pytest.approx(directions)
    assert participation_ratio(states) == pytest.approx(directions)


def test_unequal_directions_count_by_length_or_by_variance():
    states = torch.diag(torch.tensor([3.0, 1.0])).repeat(2, 1) * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert effective_rank(states) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert participation_ratio(states) == pytest.approx((9 + 1) ** 2 / (81 + 1))


def test_a_mean_that_all_share_hides_the_rank_until_it_is_taken_away():
    states = torch.cat([torch.eye(4), -torch.eye(4)]) + torch.tensor([1e4, 0.0, 0.0, 0.0])
    assert effective_rank(states) < 1.01
    assert effective_rank(states, centred=True) == pytest.approx(4, rel=1e-4)
    assert participation_ratio(states) == pytest.approx(4, rel=1e-4)


def test_fewer_states_than_dimensions_have_no_rank_from_rounding():
    states = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    assert int((Moments.of(states).spectrum(centred=False) > 0).sum()) == 3
    assert effective_rank(states[:1].repeat(50, 1)) == pytest.approx(1.0)


def test_likeness_within_and_between_texts():
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0])
    states = torch.stack([east, 4 * east, north, north])
    segments = torch.tensor([5, 5, 2, 2])
    assert (cosine_intra(states, segments), cosine_inter(states, segments)) == (1.0, 0.0)
    centre = states.mean(0)
    assert cosine_inter(states, segments, centre) < 0 < cosine_intra(states, segments, centre)


def test_a_segment_counts_once_however_long_it_is():
    states = torch.tensor([[1.0, 0.0]] * 10 + [[1.0, 0.0], [-1.0, 0.0]])
    segments = torch.tensor([0] * 10 + [1] * 2)
    assert cosine_intra(states, segments) == pytest.approx((1.0 - 1.0) / 2)


def test_what_there_is_no_pair_for_is_not_a_number():
    one = torch.ones(1, 3)
    assert math.isnan(cosine_intra(one, torch.tensor([0]))) and math.isnan(cosine_inter(one, torch.tensor([0])))
    assert math.isnan(participation_ratio(torch.ones(5, 3))) and math.isnan(effective_rank(torch.ones(5, 3), True))
    assert math.isnan(effective_rank(torch.zeros(5, 3))) and math.isnan(mean_norm(torch.zeros(0, 3)))


def test_narrow_states_are_taken_wide_and_left_alone(states):
    narrow = states.to(torch.bfloat16).requires_grad_()
    assert effective_rank(narrow) == effective_rank(narrow.detach().float())
    assert narrow.grad is None and narrow.dtype == torch.bfloat16
