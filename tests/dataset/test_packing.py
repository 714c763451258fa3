import numpy as np
import pytest

from lichen.dataset.packing import count_bins, pack


def one_at_a_time(lengths, capacity):
    """Best-fit decreasing as the textbook has it: the fill of every bin."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(room, number) for number, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting)[1]] -= length
        else:
            rooms.append(capacity - length)
    return sorted(capacity - room for room in rooms)


@pytest.mark.parametrize("seed", range(6))
def test_equals_best_fit_decreasing_one_document_at_a_time(seed):
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(1, 120))
    lengths = generator.integers(1, capacity + 1, 300)
    packed = pack(lengths, capacity)
    fills = np.bincount(packed.bin_of, weights=lengths, minlength=packed.bins).astype(int)
    assert sorted(fills.tolist()) == one_at_a_time(lengths.tolist(), capacity)
    assert count_bins(lengths, capacity) == packed.bins


@pytest.mark.parametrize("lengths", [[], [1], [8], [8, 8, 8], [1] * 17, [5] * 7, [7, 1, 7, 1, 2]])
def test_every_item_in_exactly_one_bin_that_holds_it(lengths):
    packed = pack(np.array(lengths, dtype=np.int32), 8)
    members = [packed.members(number).tolist() for number in range(packed.bins)]
    assert sorted(i for bin in members for i in bin) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in bin) <= 8 for bin in members)
    assert all(packed.bin_of[i] == number for number, bin in enumerate(members) for i in bin)
    assert count_bins(np.array(lengths, dtype=np.int32), 8) == packed.bins


def test_many_lognormal_documents_fill_their_rows():
    lengths = np.random.default_rng(0).lognormal(np.log(420), 0.85, 4000).clip(1, 4096).astype(np.int64)
    assert pack(lengths, 4096).utilisation >= 0.995


@pytest.mark.parametrize("lengths", [[0], [9], [-1]])
def test_lengths_out_of_range_are_refused(lengths):
    with pytest.raises(ValueError, match=r"1 … 8"):
        pack(np.array(lengths), 8)
