import numpy as np
import pytest

from lichen.config.errors import UsageError
from lichen.dataset.linking import LINK
from lichen.dataset.mixture import given_weight
from lichen.dataset.plan import DocumentList
from lichen.dataset.subset import Subset, sample_documents


def made(name, count, weight=None):
    return DocumentList(name, [[i, i + 1, 0][: 1 + i % 3] for i in range(count)], weight)


def test_the_same_seed_gives_the_same_documents_and_a_larger_sample_contains_the_smaller():
    whole = made("a", 1000)
    small, again, large = Subset(whole, 100, 7), Subset(whole, 100, 7), Subset(whole, 400, 7)
    assert small.indices.tolist() == again.indices.tolist()
    assert set(small.indices.tolist()) < set(large.indices.tolist())
    assert small.indices.tolist() != Subset(whole, 100, 8).indices.tolist()
    assert len(np.unique(large.indices)) == 400


def test_a_subset_reads_like_its_documents():
    whole = made("a", 50)
    part = Subset(whole, 20, 0)
    for i, number in enumerate(part.indices.tolist()):
        assert part.tokens(i, 1).tolist() == whole.tokens(number, 1).tolist()
        assert (part.lengths[i], part.bytes[i]) == (whole.lengths[number], whole.bytes[number])


def test_a_subset_has_the_links_of_its_documents():
    links = [np.full(n % 4, n, LINK) for n in range(50)]
    whole = DocumentList("a", [[1, 2]] * 50, links=links)
    part = Subset(whole, 20, 0)
    assert part.linked and not Subset(made("a", 5), 2, 0).linked
    for i, number in enumerate(part.indices.tolist()):
        assert part.links(i)["start"].tolist() == [number] * (number % 4)


def test_a_fraction_is_taken_of_every_source():
    chosen, record = sample_documents([made("a", 100), made("b", 10), made("c", 1)], 0.1, seed=1)
    assert [len(part) for part in chosen] == [10, 1, 1]
    assert record["seed"] == 1 and record["sample"] == 0.1 and "permutation" in record["strategy"]
    assert record["sources"][0] == {"name": "a", "documents": 10, "of": 100, "tokens": int(chosen[0].lengths.sum())}


@pytest.mark.parametrize("count", [1, 2, 50, 110, 111])
def test_a_count_is_shared_out_exactly(count):
    chosen, _ = sample_documents([made("a", 100), made("b", 10), made("c", 1)], count, seed=1)
    assert sum(len(part) for part in chosen) == count


def test_everything_stays_itself():
    parts = [made("a", 5)]
    chosen, record = sample_documents(parts, None, seed=0)
    assert chosen == (parts[0],) and record["strategy"] == "all"


@pytest.mark.parametrize("sample", [0, 12, 0.0, 1.5, -3])
def test_impossible_samples_are_refused(sample):
    with pytest.raises(UsageError, match=r"data\.sample"):
        sample_documents([made("a", 11)], sample, seed=0)


def test_a_chosen_weight_survives_sampling_and_one_of_its_tokens_does_not_become_one():
    chosen, weighted = made("a", 20), made("b", 20, weight=2.0)
    chosen.weight = float(chosen.lengths.sum())
    assert given_weight(Subset(chosen, 5, 0)) is None
    assert given_weight(Subset(weighted, 5, 0)) == 2.0
