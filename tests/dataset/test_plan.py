from collections import Counter

import numpy as np
import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.dataset.packing import count_bins
from lichen.dataset.plan import DocumentList, Plan, piece_bytes, steps_for_epochs, steps_per_epoch


def made(count=200, longest=60, seed=0, name="made"):
    """Documents whose tokens say where they come from: document * 1000 + place."""
    lengths = np.random.default_rng(seed).integers(0, longest, count)
    return DocumentList(name, [[i * 1000 + place for place in range(n)] for i, n in enumerate(lengths)])


def epoch_rows(plan, epoch):
    start = plan.rows_before(epoch)
    return [plan.row(n) for n in range(start, start + plan.rows_in_epoch(epoch))]


@pytest.mark.parametrize("window", [1, 7, 64, 10_000])
@pytest.mark.parametrize("capacity", [1, 16, 59, 4096])
def test_an_epoch_holds_every_target_once(window, capacity):
    documents = made(60)
    plan = Plan(documents, capacity, seed=1, window=window)
    for epoch in range(2):
        rows = epoch_rows(plan, epoch)
        assert all(0 < sum(piece.length for piece in row) <= capacity for row in rows)
        targets = Counter(
            (piece.document, piece.start + i + 1) for row in rows for piece in row for i in range(piece.length)
        )
        expected = {(i, place) for i, n in enumerate(documents.lengths.tolist()) for place in range(1, n)}
        assert set(targets) == expected and set(targets.values()) <= {1}
        assert plan.targets_in_epoch == len(expected)


def test_no_document_that_fits_is_split():
    documents = made(500, longest=90)
    pieces = Counter(piece.document for row in epoch_rows(Plan(documents, 40, seed=0, window=100), 0) for piece in row)
    for i, n in enumerate(documents.lengths.tolist()):
        assert pieces[i] == -(-max(n - 1, 0) // 40)


def test_rows_are_a_pure_function_of_their_number():
    fresh = [Plan(made(), 32, seed=3, window=20) for _ in range(2)]
    total = fresh[0].rows_before(4)
    forwards = [fresh[0].row(n) for n in range(total)]
    order = np.random.default_rng(0).permutation(total)
    anywhere = {n: fresh[1].row(n) for n in order.tolist()}
    assert forwards == [anywhere[n] for n in range(total)]
    assert Plan(made(), 32, seed=3, window=20).row(total - 1) == forwards[-1]


@pytest.mark.parametrize("window", [20, 1000])
def test_epochs_and_seeds_and_names_differ_in_order(window):
    plan = Plan(made(), 32, seed=3, window=window)
    assert epoch_rows(plan, 0) != epoch_rows(plan, 1)
    assert epoch_rows(plan, 0) != epoch_rows(Plan(made(), 32, seed=4, window=window), 0)
    assert epoch_rows(plan, 0) != epoch_rows(Plan(made(name="other"), 32, seed=3, window=window), 0)


def test_position_and_rows_before_agree_across_epochs():
    plan = Plan(made(), 32, seed=0, window=30)
    counters = range(plan.rows_before(3))
    expected = [(epoch, row) for epoch in range(3) for row in range(plan.rows_in_epoch(epoch))]
    assert [plan.position(n) for n in counters] == expected
    with pytest.raises(IndexError):
        plan.position(-1)


def test_windows_are_held_only_while_needed():
    plan = Plan(made(2000), 32, seed=0, window=50)
    for n in range(plan.rows_in_epoch(0)):
        plan.row(n)
    assert plan.windows == 40 and len(plan._held) <= 3


def test_a_long_document_beside_short_ones():
    plan = Plan(DocumentList("long", [range(1001), [1, 2], [3, 4, 5]]), 100, seed=0)
    rows = epoch_rows(plan, 0)
    starts = sorted(piece.start for row in rows for piece in row if piece.document == 0)
    assert starts == list(range(0, 1000, 100)) and len(rows) == 11


@pytest.mark.parametrize("documents", [[], [[]], [[5], [7], []]])
def test_nothing_to_learn_from_is_said(documents):
    with pytest.raises(LichenError, match=r"poems: none of its \d documents has two tokens.*rejects\.jsonl"):
        Plan(DocumentList("poems", documents), 8, seed=0)


def test_impossible_sizes_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        Plan(made(), 0, seed=0)


def test_bytes_of_pieces_add_up_to_the_bytes_of_the_documents():
    documents = made(100, longest=300)
    documents.bytes = np.random.default_rng(5).integers(1, 1000, 100) * (documents.lengths > 1)
    plan = Plan(documents, 37, seed=0)
    assert sum(piece_bytes(documents, piece) for row in epoch_rows(plan, 0) for piece in row) == documents.bytes.sum()


def test_steps_cover_epochs():
    plan = Plan(made(), 32, seed=0, window=30)
    rows = [plan.rows_in_epoch(epoch) for epoch in range(3)]
    assert steps_per_epoch(plan, 7, epoch=1) == -(-rows[1] // 7)
    assert steps_for_epochs(plan, 2, 7) == -(-(rows[0] + rows[1]) // 7)
    assert steps_for_epochs(plan, 2.5, 1) == rows[0] + rows[1] + -(-rows[2] // 2)
    assert steps_for_epochs(plan, 0.001, 10_000) == 1


def test_counting_agrees_with_packing_at_the_edges():
    lengths = np.array([1, 32, 33, 34, 65, 66])
    plan = Plan(DocumentList("edges", [range(n) for n in lengths]), 32, seed=0)
    places = lengths - 1
    rests = places[places % 32 > 0] % 32
    assert plan.rows_in_epoch(0) == (places // 32).sum() + count_bins(rests, 32)
    assert len(epoch_rows(plan, 0)) == plan.rows_in_epoch(0)
