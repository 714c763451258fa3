"""Searching: exact is what comparing with everything gives; cells find the same, or nearly."""

import pytest
import torch
import torch.nn.functional as F

from lichen.model import knowledge_search
from lichen.model.knowledge_search import Cells, largest, search_cells, search_exactly


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_keys(subjects: int, relations: int = 12, width: int = 32) -> torch.Tensor:
    """Keys as banks have them: subjects are bags of a few shared words, every subject has three relations."""
    words = torch.randn(300, width, generator=generator())
    names = F.normalize(words[torch.randint(0, 300, (subjects, 3), generator=generator(1))].sum(1), dim=1)
    labels = F.normalize(torch.randn(relations, width, generator=generator(2)), dim=1)
    chosen = torch.rand(subjects, relations, generator=generator(3)).argsort(dim=1)[:, :3].flatten()
    return torch.cat([names.repeat_interleave(3, dim=0), labels[chosen]], dim=1)


def asked(
    keys: torch.Tensor, number: int, noise: float, lengths: tuple[float, float] = (10.0, 10.0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries near keys, each half turned away by ``noise`` times its length; and which keys."""
    chosen = torch.randint(0, len(keys), (number,), generator=generator(4))
    halves = keys[chosen].unflatten(1, (2, -1))
    other = F.normalize(torch.randn(halves.shape, generator=generator(5)), dim=-1)
    return (F.normalize(halves + noise * other, dim=-1) * torch.tensor(lengths)[:, None]).flatten(1), chosen


def brute_force(queries: torch.Tensor, keys: torch.Tensor, number: int) -> torch.Tensor:
    return torch.stack([torch.mv(keys, query).sort(descending=True).values[:number] for query in queries])


@pytest.mark.parametrize("width", [1, 5, 64, 1000, 4099])
@pytest.mark.parametrize("number", [1, 4, 64])
def test_the_largest_are_those_of_sorting(width: int, number: int):
    scores = torch.randn(50, width, generator=generator())
    scores[:25] = scores[:25].round()  # with many that are equal
    values, places = largest(scores, min(number, width))
    assert values.equal(scores.sort(dim=1, descending=True).values[:, :number])
    assert scores.gather(1, places).equal(values)
    assert all(len(row.unique()) == len(row) for row in places)


def test_exact_search_compares_with_every_key_however_it_is_cut(monkeypatch: pytest.MonkeyPatch):
    keys = made_keys(100)
    queries, _ = asked(keys, 7, noise=0.5)
    monkeypatch.setattr(knowledge_search, "EVEN", 2)
    monkeypatch.setattr(knowledge_search, "SCORES_AT_ONCE", 1)
    scores, numbers = search_exactly(queries, keys, 4, None)
    torch.testing.assert_close(scores, brute_force(queries, keys, 4))
    torch.testing.assert_close((queries[:, None] * keys[numbers]).sum(-1), scores)


@pytest.mark.parametrize("lengths", [(10.0, 10.0), (16.0, 6.0)])
@pytest.mark.parametrize(("relations", "noise"), [(12, 0.0), (12, 0.5), (12, 1.0), (6, 0.0), (6, 0.5), (40, 0.5)])
def test_cells_find_what_comparing_with_everything_finds(
    relations: int, noise: float, lengths: tuple[float, float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(knowledge_search, "QUERIES_AT_ONCE", 130)
    monkeypatch.setattr(knowledge_search, "STRETCH", 128)
    monkeypatch.setattr(knowledge_search, "SCORES_AT_ONCE", 1 << 14)
    keys = made_keys(3000, relations)
    queries, _ = asked(keys, 200, noise, lengths)
    scores, numbers = search_cells(queries, keys, Cells.of(keys), 4)
    torch.testing.assert_close((queries[:, None] * keys[numbers]).sum(-1), scores)
    expected = brute_force(queries, keys, 4)
    assert (scores >= expected[:, -1:] - 1e-4).float().mean() >= 0.95
    assert (scores[:, 0] >= expected[:, 0] - 1e-4).float().mean() >= 0.99


def test_a_subject_is_found_whose_relation_nobody_knows():
    keys = made_keys(3000, relations=40)
    queries, chosen = asked(keys, 200, noise=0.5, lengths=(16.0, 6.0))
    queries[:, 32:] = 6 * F.normalize(torch.randn(200, 32, generator=generator(6)), dim=1)
    numbers = search_cells(queries, keys, Cells.of(keys), 4)[1]
    same = (keys[numbers][..., :32] == keys[chosen][:, None, :32]).all(dim=2)
    assert same.sum(dim=1).float().mean() > 2.8  # of its three facts


def test_a_subject_of_very_many_facts_hides_no_other():
    keys = made_keys(300)
    keys = torch.cat([keys, keys[:1].expand(2000, -1)])
    queries, _ = asked(keys[3:900], 100, noise=0.3)
    scores, numbers = search_cells(queries, keys, Cells.of(keys), 4)
    assert all(len(row.unique()) == 4 for row in numbers)
    torch.testing.assert_close(scores[:, 0], brute_force(queries, keys, 1)[:, 0])


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_as_many_as_are_asked_for_are_found_in_the_smallest_bank(count: int):
    keys = made_keys(count)[:count].bfloat16()
    number = min(count, 4)
    numbers = search_cells(torch.randn(9, 64, generator=generator(6)), keys, Cells.of(keys), number)[1]
    assert all(len(row.unique()) == number for row in numbers)


def test_no_query_finds_nothing():
    keys = made_keys(40)
    for scores, numbers in (search_cells(keys[:0], keys, Cells.of(keys), 3), search_exactly(keys[:0], keys, 3, None)):
        assert scores.shape == numbers.shape == (0, 3)


def test_what_is_removed_is_not_found():
    keys = made_keys(400)
    gone = torch.tensor([3, 500, 900])
    queries = 10 * keys[gone]
    for found in (
        search_exactly(queries, keys, 3, gone)[1],
        search_cells(queries, keys, Cells.of(keys), 3, gone)[1],
    ):
        assert not torch.isin(found, gone).any()


def test_where_nearly_all_is_removed_the_rest_is_found():
    keys = made_keys(40)
    gone = torch.arange(len(keys) - 3)
    numbers = search_cells(10 * keys[:5], keys, Cells.of(keys), 3, gone)[1]
    assert all(row.sort().values.tolist() == [117, 118, 119] for row in numbers)


def test_relations_beyond_the_square_root_share_centroids():
    keys = made_keys(1000, relations=400)
    cells = Cells.of(keys)
    assert len(cells.second) == 64
    queries, _ = asked(keys, 200, noise=0.3)
    found = search_cells(queries, keys, cells, 4)[0]
    assert (found[:, 0] >= brute_force(queries, keys, 1)[:, 0] - 1e-4).float().mean() > 0.98


def test_every_entry_is_in_one_cell_and_a_codebook_continues_from_the_one_before():
    keys = made_keys(1000)
    cells = Cells.of(keys)
    assert cells.relations.members.sort().values.tolist() == list(range(len(keys)))
    assert cells.entries.sort().values.tolist() == list(range(len(keys)))
    assert len(cells.second) == 12  # as many as there are relations
    assert len(cells.starts) == len(keys[:, :32].unique(dim=0)) + 1
    again = Cells.of(keys, cells)
    turned = (again.first * cells.first).sum(1)
    assert turned.median() > 0.9


@pytest.mark.parametrize(("relations", "kind"), [(12, torch.float32), (400, torch.float32), (12, torch.bfloat16)])
def test_codebooks_give_back_the_same_cells(relations: int, kind: torch.dtype):
    keys = made_keys(1000, relations).to(kind)
    cells = Cells.of(keys)
    restored = Cells.from_state(cells.state(), keys)
    for own, other in ((cells.subjects, restored.subjects), (cells.relations, restored.relations)):
        assert own.members.equal(other.members)
        assert own.starts.equal(other.starts)
        assert own.vectors.equal(other.vectors)
    assert restored.entries.equal(cells.entries)
    assert restored.group.equal(cells.group)
