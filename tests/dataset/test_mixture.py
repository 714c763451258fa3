from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from lichen.config.errors import UsageError
from lichen.dataset.linking import LINK, NO_LINKS
from lichen.dataset.mixture import Joined, Mixture, Shares, plan_rows
from lichen.dataset.plan import DocumentList, Plan


def made(name, count, weight=None, seed=0):
    lengths = np.random.default_rng(seed).integers(2, 30, count)
    return DocumentList(name, [range(n) for n in lengths], weight)


def mixed(weights=(0.5, 0.3, 0.2), seed=0, **options):
    plans = [Plan(made(f"s{i}", 20 + 10 * i, seed=i), 16, seed) for i in range(len(weights))]
    return Mixture(plans, weights, seed, **options)


@pytest.mark.parametrize("block_rows", [1, 10, 256])
def test_long_run_shares_are_exact(block_rows):
    mixture = mixed(block_rows=block_rows)
    counts = Counter(mixture.source(n)[0] for n in range(2560))
    assert [counts[i] for i in range(3)] == [1280, 768, 512]


def test_a_source_of_tiny_weight_is_never_forgotten():
    shares = Shares([Fraction(1, 1_000_000), Fraction(999_999, 1_000_000)])
    assert shares.before(999_999) == (0, 999_999)
    assert shares.before(10**12) == (10**6, 10**12 - 10**6)


def test_counts_grow_by_one_source_per_row():
    raw = [Fraction(int(n)) for n in np.random.default_rng(0).integers(1, 100, 9)]
    shares = Shares([weight / sum(raw) for weight in raw])
    before = np.array([shares.before(n) for n in range(2000)])
    assert set(np.unique(np.diff(before, axis=0))) == {0, 1}
    assert (before.sum(axis=1) == np.arange(2000)).all()
    ideal = np.arange(2000)[:, None] * np.array([float(weight) for weight in shares.weights])
    assert np.abs(before - ideal).max() < 9


def test_rows_of_every_source_are_taken_in_order_without_gaps():
    mixture = mixed()
    rows: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for n in range(1000):
        source, row = mixture.source(n)
        rows[source].append(row)
    assert all(numbers == list(range(len(numbers))) for numbers in rows.values())


def test_the_mixture_is_a_pure_function_of_the_counter():
    forwards = [mixed().row(n) for n in (0, 5, 999, 5000)]
    mixture = mixed()
    assert [mixture.row(n) for n in (5000, 999, 5, 0)] == forwards[::-1]
    assert [mixed(seed=1).source(n) for n in range(50)] != [mixture.source(n) for n in range(50)]


def test_pieces_refer_to_the_joined_documents():
    mixture = mixed()
    for n in range(100):
        source, row = mixture.source(n)
        inner = mixture.plans[source].row(row)
        for piece, own in zip(mixture.row(n), inner, strict=True):
            expected = mixture.plans[source].documents.tokens(own.document, own.start, own.start + own.length + 1)
            got = mixture.documents.tokens(piece.document, piece.start, piece.start + piece.length + 1)
            assert got.tolist() == expected.tolist()


def test_a_source_that_runs_out_starts_its_next_epoch():
    mixture = Mixture([Plan(made("small", 5), 16, 0), Plan(made("large", 500), 16, 0)], [0.5, 0.5], seed=0)
    small = [mixture.row(n) for n in range(200) if mixture.source(n)[0] == 0]
    rows = mixture.plans[0].rows_in_epoch(0)
    first, second = small[:rows], small[rows : 2 * rows]
    assert sorted(sum(first, ())) == sorted(sum(second, ()))


def test_an_epoch_is_as_many_rows_as_the_sources_have():
    mixture = mixed()
    rows = sum(plan.rows_in_epoch(0) for plan in mixture.plans)
    assert (mixture.rows_in_epoch(3), mixture.rows_before(3)) == (rows, 3 * rows)


def test_links_go_with_their_documents():
    links = np.zeros(3, LINK)
    linked = DocumentList("linked", [range(4), range(5)], links=[NO_LINKS, links])
    joined = Joined([made("a", 3), linked])
    assert joined.linked and not Joined([made("a", 3)]).linked
    assert [len(joined.links(i)) for i in range(5)] == [0, 0, 0, 0, 3]
    mixture = Mixture([Plan(made("a", 3), 16, 0), Plan(linked, 16, 0)], [1, 1], seed=0)
    assert mixture.documents.linked and len(mixture.documents.links(4)) == 3


def test_sources_without_weights_are_read_once_per_epoch():
    parts = [made("a", 20), made("b", 30)]
    rows = plan_rows(parts, 16, seed=0)
    assert isinstance(rows, Plan)
    seen = Counter(piece.document for n in range(rows.rows_in_epoch(0)) for piece in rows.row(n) if piece.start == 0)
    assert seen == dict.fromkeys(range(50), 1)


def test_a_weight_that_is_the_number_of_tokens_means_no_weight():
    parts = [made("a", 20), made("b", 30)]
    for part in parts:
        part.weight = float(part.lengths.sum())
    assert isinstance(plan_rows(parts, 16, seed=0), Plan)


def test_sources_with_weights_are_mixed():
    rows = plan_rows([made("a", 20, 3.0), made("b", 30, 1.0)], 16, seed=0)
    assert isinstance(rows, Mixture)
    assert Counter(rows.source(n)[0] for n in range(512)) == {0: 384, 1: 128}


@pytest.mark.parametrize(
    ("parts", "message"),
    [([], "no source"), ([made("a", 3, 1.0), made("b", 3), made("c", 3)], "without one: b, c")],
)
def test_weights_for_some_sources_only_are_refused(parts, message):
    with pytest.raises(UsageError, match=message):
        plan_rows(parts, 16, seed=0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")], [1.0, float("nan")]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(UsageError, match="one weight above 0"):
        Mixture([Plan(made("a", 3), 16, 0), Plan(made("b", 3), 16, 0)], weights, seed=0)


def test_rows_of_different_length_are_not_mixed():
    with pytest.raises(UsageError, match="one length"):
        Mixture([Plan(made("a", 3), 16, 0), Plan(made("b", 3), 8, 0)], [1, 1], seed=0)


def test_joined_sets_read_like_their_parts():
    parts = [made("a", 3, seed=1), made("empty", 0), made("b", 4, seed=2)]
    joined = Joined(parts)
    flat = [(part, i) for part in parts for i in range(len(part))]
    assert len(joined) == 7 and joined.name == "a+empty+b"
    assert [joined.tokens(i, 1, 3).tolist() for i in range(7)] == [part.tokens(i, 1, 3).tolist() for part, i in flat]
    assert joined.lengths.tolist() == [int(part.lengths[i]) for part, i in flat]
    assert joined.bytes.tolist() == [int(part.bytes[i]) for part, i in flat]
