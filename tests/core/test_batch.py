"""Batches keep their rows together."""

import pytest
import torch

from lichen.core.batch import IGNORE_TARGET, Batch, Links


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


def linked() -> Links:
    """Links in rows 0, 1 and 3 of four; entry 7 has another content in this step, entry 4 is absent."""
    return Links(
        positions=torch.tensor([[0, 1], [1, 0], [1, 1], [3, 2]]),
        entries=torch.tensor([[7, -1], [2, 3], [2, 3], [7, -1]]),
        first=torch.tensor([True, True, False, True]),
        nulls=torch.tensor([[0, 0], [2, 1], [3, 0]]),
        overridden=torch.tensor([7]),
        tokens=torch.tensor([[70, 71, 72]]),
        removed=torch.tensor([4]),
        carried=torch.tensor([[0, 0], [3, 0], [3, 1]]),
        carried_entries=torch.tensor([7, 7, 2]),
    )


def test_links_go_with_their_rows_and_the_view_of_the_bank_goes_whole() -> None:
    batch = made()
    batch.links = linked()
    first, second = (part.links for part in batch.split(2))
    assert first is not None and second is not None and first.first is not None and second.first is not None
    assert first.positions.tolist() == [[0, 1], [1, 0], [1, 1]] and second.positions.tolist() == [[1, 2]]
    assert first.entries.tolist() == [[7, -1], [2, 3], [2, 3]] and second.entries.tolist() == [[7, -1]]
    assert first.first.tolist() == [True, True, False] and second.first.tolist() == [True]
    assert first.carried is not None and second.carried is not None and second.carried_entries is not None
    assert first.carried.tolist() == [[0, 0]] and second.carried.tolist() == [[1, 0], [1, 1]]
    assert second.carried_entries.tolist() == [7, 2]
    assert first.nulls.tolist() == [[0, 0]] and second.nulls.tolist() == [[0, 1], [1, 0]]
    for part in (first, second):
        assert (part.overridden.tolist(), part.tokens.tolist(), part.removed.tolist()) == ([7], [[70, 71, 72]], [4])


def test_a_view_of_the_bank_with_as_many_entries_as_rows_is_not_split() -> None:
    batch = made()
    links = linked()
    links.removed = torch.arange(4)
    batch.links = links
    assert all(part.links is not None and part.links.removed.tolist() == [0, 1, 2, 3] for part in batch.split(4))


def test_links_move_with_the_batch() -> None:
    batch = made()
    batch.links = linked()
    moved = batch.to("meta").links
    assert moved is not None and moved.first is not None
    assert {getattr(moved, name).device.type for name in vars(moved)} == {"meta"}
    without = linked()
    without.first = None
    batch.links = without
    there = batch.to("meta").links
    assert there is not None and there.first is None and there.removed.device.type == "meta"
    assert made().to("meta").links is None
