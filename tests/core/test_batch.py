"""Batches keep their rows together."""

import pytest
import torch

from lichen.core.batch import IGNORE_TARGET, Batch


def made() -> Batch:
    batch = Batch.of_tokens(torch.arange(12).view(4, 3))
    batch.weights = torch.arange(12.0).view(4, 3)
    batch.row_numbers = (7, 8, 9, 10)
    return batch


def test_splitting_carries_everything_that_has_rows() -> None:
    parts = made().split(2)
    assert [part.row_numbers for part in parts] == [(7, 8), (9, 10)]
    assert [part.lengths for part in parts] == [((3,), (3,)), ((3,), (3,))]
    assert torch.equal(torch.cat([part.tokens for part in parts]), made().tokens)
    assert parts[1].weights is not None and parts[1].weights[0, 0] == 6
    assert sum(part.num_targets for part in parts) == made().num_targets == 8


def test_counts_leave_out_padding_and_ignored_targets() -> None:
    batch = made()
    batch.targets[0] = IGNORE_TARGET
    batch.lengths = ((1, 1), (3,), (3,), (3,))
    assert (batch.num_targets, batch.num_tokens) == (6, 11)


def test_a_batch_that_cannot_be_split_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="4 rows cannot be split into 3"):
        made().split(3)


def test_moving_keeps_the_count_taken_on_the_host() -> None:
    moved = made().to("cpu")
    assert moved.__dict__["num_targets"] == 8
