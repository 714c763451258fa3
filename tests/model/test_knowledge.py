"""Reading: what the predecessor's memory got wrong, each as a test, and what every part of a model here has to keep."""

import dataclasses

import pytest
import torch

from lichen.config.errors import LichenError
from lichen.core.batch import Batch
from lichen.model import knowledge
from lichen.model.cache import Cache
from lichen.model.knowledge import Found
from lichen.model.knowledge_bank import Entries
from lichen.model.language_model import LanguageModel, initialise

ROUTERS = ("linked", "self-supervised", "language-loss", "hard")


def logits(model, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(Batch.of_tokens(tokens), want="logits").logits


def loss_of(model, batch: Batch) -> torch.Tensor:
    output = model(batch)
    taught = [
        total / weight.clamp(min=1)
        for name, (total, weight) in output.aux.items()
        if name in ("router", "router_null", "router_subject", "router_carry")
    ]
    return output.nll.mean() + sum(taught)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("beside", [None, {"kind": "dense"}])
def test_every_parameter_has_a_gradient_after_two_updates(memory, router: str, beside):
    model = memory.model(router=router, beside=beside, freeze_ratio=0.5, knowledge_num=9).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, memory.batch(rows=4, seed=step)).backward()
        if step < 2:
            optimizer.step()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_a_subject_to_be_borne_in_mind_is_taught_to_the_subjects_half_alone(memory):
    model = memory.model().train()
    batch = memory.batch()
    assert "router_carry" not in model(batch).aux
    batch.links.carried, batch.links.carried_entries = torch.tensor([[0, 1], [0, 2]]), torch.tensor([2, 2])
    total, weight = model(batch).aux["router_carry"]
    total.backward()
    gradient = model.model.layers[-1].mlp.retrieval.query.weight.grad
    subject, relation = gradient.chunk(2)
    assert weight == 2 and subject.abs().sum() > 0 and not relation.abs().sum() > 0


def test_the_router_gets_its_gradient_from_reading_too(memory):
    """Not from labels alone: the language loss reaches the queries through the scores of what is read."""
    model = memory.reading().train()
    model(Batch.of_tokens(memory.tokens())).nll.mean().backward()
    assert model.model.layers[-1].mlp.retrieval.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("router", ROUTERS)
def test_evaluation_has_no_noise(memory, router: str):
    model = memory.reading(router=router).eval()
    assert torch.equal(logits(model, memory.tokens()), logits(model, memory.tokens()))


def test_the_hard_choice_is_noisy_in_training_only(memory):
    model = memory.reading(router="hard").train()
    drawn = []
    for seed in range(2):
        torch.manual_seed(seed)
        drawn.append(model(Batch.of_tokens(memory.tokens()), want="logits").logits)
    assert not torch.equal(*drawn)


def test_reading_changes_the_result_and_no_entries_means_none(memory):
    model = memory.reading().eval()
    with_facts = logits(model, memory.tokens())
    bank, entries = memory.bank_of(model), memory.bank_of(model).entries
    bank.set_entries(dataclasses.replace(entries, tokens=entries.tokens.flip(0)))
    other = logits(model, memory.tokens())
    bank.set_entries(type(entries)(**{f.name: getattr(entries, f.name)[:0] for f in dataclasses.fields(entries)}))
    assert not torch.equal(with_facts, other)
    assert not torch.equal(with_facts, logits(model, memory.tokens()))


def test_a_model_that_was_given_no_facts_says_so(memory):
    model = memory.reading().eval()
    memory.bank_of(model).entries = None
    with pytest.raises(LichenError, match="reads facts and was given none"):
        logits(model, memory.tokens())


def test_padding_does_not_enter_what_is_read(memory):
    model = memory.reading().eval()
    before = logits(model, memory.tokens())
    bank = memory.bank_of(model)
    bank.set_entries(
        dataclasses.replace(bank.entries, tokens=torch.nn.functional.pad(bank.entries.tokens, (0, 4), value=9))
    )
    torch.testing.assert_close(logits(model, memory.tokens()), before)


def test_the_order_of_entries_does_not_matter(memory):
    model = memory.reading().eval()
    before = logits(model, memory.tokens())
    bank, order = memory.bank_of(model), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    bank.set_entries(
        type(bank.entries)(**{f.name: getattr(bank.entries, f.name)[order] for f in dataclasses.fields(bank.entries)})
    )
    torch.testing.assert_close(logits(model, memory.tokens()), before)


def test_a_position_does_not_see_what_follows(memory):
    model = memory.reading().eval()
    text = memory.tokens(rows=1)
    other = text.clone()
    other[0, 7:] = (other[0, 7:] + 5) % memory.VOCABULARY
    torch.testing.assert_close(logits(model, text)[:, :7], logits(model, other)[:, :7])


def test_packed_neighbours_do_not_see_each_other(memory):
    model = memory.reading().eval()
    one, two = memory.tokens(rows=1, length=5), memory.tokens(rows=1, length=7, seed=1)
    packed = Batch(
        tokens=torch.cat([one, two], dim=1),
        targets=torch.full((1, 12), -100),
        positions=torch.cat([torch.arange(5), torch.arange(7)])[None],
        segments=torch.tensor([[0] * 5 + [1] * 7]),
        lengths=((5, 7),),
    )
    with torch.no_grad():
        found = model(packed, want="logits").logits
    torch.testing.assert_close(found, torch.cat([logits(model, one), logits(model, two)], dim=1), rtol=1e-4, atol=1e-5)


def test_cache_equals_no_cache(memory):
    model = memory.reading().eval()
    text = memory.tokens(rows=2, length=9)
    cache = Cache(model.config, rows=2, max_length=9)
    with torch.no_grad():
        cuts = ((0, 4), (4, 5), (5, 6), (6, 9))
        parts = [model(cache.batch(text[:, a:b]), want="logits", cache=cache).logits for a, b in cuts]
    torch.testing.assert_close(torch.cat(parts, dim=1), logits(model, text), rtol=1e-4, atol=1e-5)


def test_nothing_is_read_where_the_null_slot_is_far_ahead(memory):
    model = memory.reading().eval()
    retrieval = model.model.layers[-1].mlp.retrieval
    with torch.no_grad():
        retrieval.null.bias.fill_(100.0)
        retrieval.null.weight.zero_()
        output = model(Batch.of_tokens(memory.tokens()), want="logits")
        assert output.meters["layers.1.reads"] == 0
        retrieval.null.bias.fill_(0.0)
        assert model(Batch.of_tokens(memory.tokens()), want="logits").meters["layers.1.reads"] == 24


def test_a_relation_that_nobody_could_tell_is_not_held_against_an_entry(memory):
    """The null slot gets what the best relation gives: only how far an entry's own is behind that one counts."""
    model = memory.reading().eval()
    retrieval, bank = model.model.layers[-1].mlp.retrieval, memory.bank_of(model)
    found = []
    hook = retrieval.register_forward_hook(lambda module, given, output: found.append((given[0], output)))
    with hook, torch.no_grad():
        logits(model, memory.tokens())
        (states, output), keys = found[0], bank.encode(torch.arange(9), model.model.embed_tokens.weight)
        queries, plain = retrieval.queries(states)
        best = (queries[:, 8:] @ keys[:, 8:].T).amax(dim=1)
    torch.testing.assert_close(output.null, (plain + best)[output.where])
    assert best.std() > 0.1


def test_what_is_read_on_is_the_object_and_not_its_label(memory):
    """After "is part of" a fresh reader hands on the object, though the label "part of" has the same word."""
    entry = [10, 50, 51, 52, 30, 31]  # subject, two words of a label, its end, two of an object
    assert handed_on(memory, memory.model(), entry, (4, 6), after=[51, 30]) == [30, 31]


def test_behind_the_object_its_end_is_read_and_not_its_beginning_again(memory):
    """A fresh reader that has said the last token of an object hands on the end, or it would say it for ever."""
    entry = [10, 50, 52, 30, 31, 1]  # subject, label, its end, two tokens of an object, the end of the text
    assert handed_on(memory, memory.model(heads=1), entry, (3, 5), after=[52, 30, 31]) == [30, 31, 1]


def handed_on(memory, model, entry: list[int], span: tuple[int, int], after: list[int]) -> list[int]:
    """What a fresh reader, its gate open, hands on of ``entry`` with the object ``span`` after each of these tokens."""
    layer, bank, count = model.eval().model.layers[-1].mlp, memory.bank_of(model), len(after)
    entries = Entries.of([entry], [entry[:2]], [1])
    entries.object_start, entries.object_stop = torch.tensor([span[0]]), torch.tensor([span[1]])
    bank.set_entries(entries)
    words = torch.zeros(60, 32).index_copy(0, torch.tensor(entry), _unlike(32)[: len(entry)])
    nowhere = torch.zeros(count, 1, dtype=torch.long)
    found = Found(torch.arange(count), nowhere, torch.full((count, 1), 9.0), torch.zeros(count))
    with torch.no_grad():
        layer.reader.gate.values.fill_(1.0)
        read = layer.reader(words[after], found, bank, words, None)
    return (read @ words.T).argmax(dim=1).tolist()


def _unlike(size: int) -> torch.Tensor:
    """Hadamard's rows: orthogonal in every head."""
    rows = torch.ones(1, 1)
    while len(rows) < size:
        rows = torch.cat([rows.repeat(1, 2), torch.cat([rows, -rows], dim=1)])
    return rows


def test_what_is_left_out_as_negligible_would_not_have_mattered(memory):
    """Just above the border a position reads with under one percent of its attention."""
    model = memory.reading().eval()
    found = []
    hook = model.model.layers[-1].mlp.retrieval.register_forward_hook(
        lambda module, given, output: found.append(output)
    )
    with hook:
        logits(model, memory.tokens(rows=8))
    far = found[0].scores.logsumexp(dim=1) < found[0].null - 4.9
    assert (found[0].weights()[far, :-1].sum(dim=1) < 0.01).all()


def test_a_step_reads_the_bank_as_its_view_has_it(memory):
    model = memory.reading().train()
    batch = memory.batch()
    plain = model(batch, want="logits").logits
    batch.links = memory.links([[0, 3]], [[2]], [[0, 8]], overridden={n: [1, 2, 3, 4] for n in range(9)})
    assert not torch.equal(model(batch, want="logits").logits, plain)
    batch.links = memory.links([[0, 3]], [[2]], [[0, 8]])
    assert torch.equal(model(batch, want="logits").logits, plain)


def test_removed_entries_are_not_read(memory):
    model = memory.reading().train()
    batch = memory.batch()
    found = []
    hook = model.model.layers[-1].mlp.retrieval.register_forward_hook(
        lambda module, given, output: found.append(output)
    )
    batch.links = memory.links([[0, 3]], [[2]], [[0, 8]], removed=[0, 1, 5])
    with hook:
        model(batch)
    assert not torch.isin(found[0].numbers, torch.tensor([0, 1, 5])).any()


def test_labels_teach_the_right_entry(memory):
    """A few updates on two linked positions: their entries are found, and the others' null slots win."""
    model = memory.model(layers=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = memory.batch()
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        model.after_step({})
    aux = model(batch).aux
    assert aux["router_hit"][0] == aux["router_hit"][1] == 2
    assert aux["router_false_read"][0] == 0


@pytest.mark.parametrize("router", ["language-loss", "hard"])
def test_without_labels_nothing_is_taught(memory, router: str):
    assert not model_losses(memory, router)


def test_without_links_the_token_to_come_is_the_label(memory):
    found = model_losses(memory, "self-supervised")
    assert found["router"][1] + found["router_null"][1] > 0


def model_losses(memory, router: str):
    model = memory.model(router=router).train()
    return model(memory.batch()).aux


def test_layers_share_one_bank_and_it_is_refreshed_once(memory):
    model = memory.model(layers=3)
    config = model.config.model_copy(update={"feed_forward_by_layer": {"1-2": model.config.feed_forward_by_layer["2"]}})
    two = initialise(LanguageModel(config), 0).train()
    bank = memory.bank_of(two)
    bank.set_entries(memory.ENTRIES)
    two(memory.batch())
    two.after_step({})
    assert bank.training_state()["updates"].tolist()[0] == 1
    assert len([name for name in two.state_dict() if "subject_proj" in name]) == 1


def test_texts_looked_at_in_parts_give_the_same_and_the_same_gradients(memory, monkeypatch):
    batch, found = memory.batch(rows=4), []
    for at_once, kept in ((1 << 21, 1 << 26), (1, 1 << 26), (1, 0)):
        monkeypatch.setattr(knowledge, "LOOKED_AT_ONCE", at_once)
        monkeypatch.setattr(knowledge, "KEPT", kept)
        model = memory.reading().train()
        loss = loss_of(model, batch)
        loss.backward()
        found.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
