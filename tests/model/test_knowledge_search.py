"""Searching: exact is what comparing with everything gives; cells find the same, or nearly."""

import pytest
import torch
import torch.nn.functional as F

from lichen.model import knowledge_search
from lichen.model.knowledge_search import Cells, search_cells, search_exactly


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_keys(subjects: int, relations: int = 12, width: int = 32) -> torch.Tensor:
    """Keys as banks have them: subjects are bags of a few shared words, every subject has three relations."""
    words = torch.randn(300, width, generator=generator())
    names = F.normalize(words[torch.randint(0, 300, (subjects, 3), generator=generator(1))].sum(1), dim=1)
    labels = F.normalize(torch.randn(relations, width, generator=generator(2)), dim=1)
    chosen = torch.rand(subjects, relations, generator=generator(3)).argsort(dim=1)[:, :3].flatten()
    return torch.cat([names.repeat_interleave(3, dim=0), labels[chosen]], dim=1)


def asked(keys: torch.Tensor, number: int, noise: float) -> torch.Tensor:
    """Queries near keys: each half turned away by ``noise`` times its length."""
    chosen = keys[torch.randint(0, len(keys), (number,), generator=generator(4))]
    halves = chosen.unflatten(1, (2, -1))
    other = F.normalize(torch.randn(halves.shape, generator=generator(5)), dim=-1)
    return 10 * F.normalize(halves + noise * other, dim=-1).flatten(1)


def brute_force(queries: torch.Tensor, keys: torch.Tensor, number: int) -> torch.Tensor:
    return torch.stack([torch.mv(keys, query).sort(descending=True).values[:number] for query in queries])


def test_exact_search_compares_with_every_key_however_it_is_cut(monkeypatch: pytest.MonkeyPatch):
    keys = made_keys(100)
    queries = asked(keys, 7, noise=0.5)
    monkeypatch.setattr(knowledge_search, "SCORES_AT_ONCE", 2 * len(keys))
    scores, numbers = search_exactly(queries, keys, 4, None)
    torch.testing.assert_close(scores, brute_force(queries, keys, 4))
    torch.testing.assert_close((queries[:, None] * keys[numbers]).sum(-1), scores)


@pytest.mark.parametrize(("scanned", "noise"), [(1 << 16, 0.0), (1 << 16, 0.5), (1 << 16, 1.0), (100, 0.0), (100, 0.5)])
def test_cells_find_what_comparing_with_everything_finds(scanned: int, noise: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(knowledge_search, "SCANNED", scanned)
    keys = made_keys(3000)
    queries = asked(keys, 200, noise)
    scores, _ = search_cells(queries, keys, Cells.of(keys), 4)
    expected = brute_force(queries, keys, 4)
    found = (scores >= expected[:, -1:] - 1e-4).float().mean()
    assert found >= 0.95
    torch.testing.assert_close(scores[:, 0], expected[:, 0])


@pytest.mark.parametrize("scanned", [1 << 16, 100])
def test_what_is_removed_is_not_found(scanned: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(knowledge_search, "SCANNED", scanned)
    keys = made_keys(400)
    gone = torch.tensor([3, 500, 900])
    queries = 10 * keys[gone]
    for found in (
        search_exactly(queries, keys, 3, gone)[1],
        search_cells(queries, keys, Cells.of(keys), 3, gone)[1],
    ):
        assert not torch.isin(found, gone).any()


def test_every_entry_is_in_one_cell_and_a_codebook_continues_from_the_one_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(knowledge_search, "SCANNED", 100)
    keys = made_keys(1000)
    cells = Cells.of(keys)
    assert cells.members.sort().values.tolist() == list(range(len(keys)))
    assert len(cells.second) == 12  # as many as there are relations
    again = Cells.of(keys, cells)
    turned = (again.first * cells.first).sum(1)
    assert turned.median() > 0.9
    restored = Cells.from_state(cells.state(), keys)
    assert restored.members.equal(cells.members)
    assert restored.starts.equal(cells.starts)
