"""Keys made of text, an index that is refreshed and survives a restart, texts as a step sees them."""

import dataclasses

import pytest
import torch

from lichen.config.errors import ConfigError
from lichen.config.feed_forward import KnowledgeConfig
from lichen.model.knowledge_bank import PRECEDENCE, Entries, KnowledgeBank
from lichen.model.language_model import initialise

TABLE = torch.randn(60, 32, generator=torch.Generator().manual_seed(3))


def bank(memory, **section) -> KnowledgeBank:
    return memory.bank_of(memory.model(**section))


def entries_of(made: KnowledgeBank) -> Entries:
    assert made.entries is not None
    return made.entries


def test_a_key_is_of_the_text_alone_and_padding_does_not_enter(memory):
    made = bank(memory)
    keys = made.encode_all(TABLE)
    torch.testing.assert_close(made.encode(torch.tensor([4, 2]), TABLE), keys[[4, 2]])
    halves = keys.unflatten(1, (2, -1)).norm(dim=-1)
    torch.testing.assert_close(halves, torch.ones_like(halves))
    padded = dataclasses.replace(
        entries_of(made),
        keys=torch.nn.functional.pad(entries_of(made).keys, (0, 5), value=7),
        tokens=torch.nn.functional.pad(entries_of(made).tokens, (0, 3), value=7),
    )
    made.set_entries(padded)
    torch.testing.assert_close(made.encode_all(TABLE), keys)


def test_of_entries_with_one_key_the_first_is_ahead_outside_of_training(memory):
    """A mixture of two capitals is neither: where nothing tells entries apart one of them is read."""
    model = memory.reading()
    made, retrieval = memory.bank_of(model), model.model.layers[-1].mlp.retrieval
    entries, order = entries_of(made), torch.tensor([0, 1, 2, 3, 2, 5, 2, 7, 8])
    names = ("keys", "subject_lengths", "key_lengths")
    same = {name: getattr(entries, name)[order] for name in names}
    groups = {name: getattr(entries, name)[order].unique(return_inverse=True)[1] for name in ("subjects", "relations")}
    made.set_entries(dataclasses.replace(entries, **same, **groups))
    assert made.precedence(torch.tensor([[4, 2, 3], [6, 4, 2]])).tolist() == [[3, 0, 0], [6, 3, 0]]
    found = []
    hook = retrieval.register_forward_hook(lambda module, given, output: found.append(output))
    with hook, torch.no_grad():
        for training in (False, True):
            model.train(training)(memory.batch(rows=2))
    for reads, gap in zip(found, (PRECEDENCE, 0.0), strict=True):
        rows = [dict(zip(*row, strict=True)) for row in zip(reads.numbers.tolist(), reads.scores.tolist(), strict=True)]
        gaps = [row[2] - row[4] for row in rows if 2 in row and 4 in row]
        assert gaps and gaps == pytest.approx([gap] * len(gaps), abs=1e-4)


def test_changing_one_entry_changes_one_key(memory):
    made = bank(memory)
    before = made.encode_all(TABLE)
    keys = entries_of(made).keys.clone()
    keys[5, 0] = 33
    made.set_entries(dataclasses.replace(entries_of(made), keys=keys))
    changed = (made.encode_all(TABLE) != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]


def test_while_training_the_index_is_refreshed_every_so_many_updates_and_else_always_new(memory):
    made = bank(memory, refresh_every=3).train()
    first = made.index(TABLE, torch.float32)
    for _ in range(2):
        made.updated()
        assert made.index(TABLE * torch.arange(32), torch.float32) is first
    made.updated()
    other = made.index(TABLE * torch.arange(32), torch.float32)
    assert not torch.equal(other, first)
    made.eval()
    assert torch.equal(made.index(TABLE, torch.float32), first)  # looking at other weights
    made.train()
    assert made.index(TABLE, torch.float32) is other  # did not disturb the training


@pytest.mark.parametrize("search", ["exact", "product"])
def test_the_index_and_its_age_survive_a_restart(memory, search: str):
    made = bank(memory, refresh_every=3, search=search).train()
    kept = made.index(TABLE, torch.float32)
    made.updated()
    made.updated()
    state = {name: tensor.clone() for name, tensor in made.training_state().items()}
    other = bank(memory, refresh_every=3, search=search).train()
    other.load_training_state(state)
    assert torch.equal(other.index(-TABLE, torch.float32), kept)
    found = [each.search(kept[:4] * 10, kept, 2) for each in (made, other)]
    assert torch.equal(found[0][1], found[1][1])
    other.updated()
    assert not torch.equal(other.index(-TABLE, torch.float32), kept)


def test_a_step_sees_other_texts_where_its_view_says_so(memory):
    made = bank(memory)
    view = memory.links([], [], [], overridden={2: [1, 2, 3, 4], 7: [5, 6, 7, 8]})
    tokens, *_ = made.texts(torch.tensor([[2, 3], [7, 8]]), view)
    own = entries_of(made).tokens.long()
    assert tokens[0, 0].tolist() == [1, 2, 3, 4]
    assert tokens[1, 0].tolist() == [5, 6, 7, 8]
    assert torch.equal(tokens[0, 1], own[3])
    assert torch.equal(tokens[1, 1], own[8])
    assert torch.equal(entries_of(made).tokens[2].long(), own[2])  # the bank itself is what it was


def test_entries_with_one_key_are_right_together(memory):
    made = bank(memory)
    entries = dataclasses.replace(
        entries_of(made),
        subjects=torch.tensor([0, 0, 1, 1, 2, 3, 4, 5, 6], dtype=torch.int32),
        relations=torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=torch.int32),
    )
    made.set_entries(entries)
    answers = made.share_key(torch.tensor([[1, -1], [2, 8]]), torch.arange(9))
    assert [row.nonzero().flatten().tolist() for row in answers] == [[0, 1], [2, 8]]


def test_learning_entries_have_a_note_beside_their_text_and_need_room(memory):
    made = memory.model(freeze_ratio=0.5, knowledge_num=9)
    notes = memory.bank_of(made)
    assert notes.notes is not None and notes.notes.num_embeddings == 5
    assert notes.drift() == 0
    with pytest.raises(ConfigError, match="knowledge_num must be set"):
        KnowledgeBank(8, KnowledgeConfig(freeze_ratio=0.2))


def test_weights_begin_the_same_on_every_machine_and_rank(memory):
    one, two = (memory.bank_of(initialise(memory.model(), seed=5)) for _ in range(2))
    assert torch.equal(one.subject_proj.weight, two.subject_proj.weight)


def test_entries_of_lists_are_padded():
    entries = Entries.of(tokens=[[1], [2, 3]], keys=[[1], [2]], subject_lengths=[1, 1])
    assert entries.tokens.tolist() == [[1, 0], [2, 3]]
    assert entries.lengths.tolist() == [1, 2]
