"""Counting: what is linked, found and read; that it fades, is counted once, and comes out alike on any number of ranks."""

import math

import pytest
import torch

from lichen.core.batch import Batch
from lichen.model.knowledge_health import HEAVIEST, WINDOW, Usage, checksum, normalised_entropy


def watched(memory, **options):
    """A model that reads, whose counters somebody wants to know."""
    model = memory.reading(**options)
    memory.bank_of(model).usage.watched = True
    return model


def counted(usage: Usage) -> list[list[int]]:
    """In events, when little has faded."""
    return [[round(float(count)) for count in row] for row in usage.counts / usage.weight]


def expected(model, batch: Batch) -> list[list[int]]:
    """By hand: one position, one entry at a time."""
    found = []
    hook = model.model.layers[-1].mlp.retrieval.register_forward_hook(
        lambda module, given, output: found.append(output)
    )
    with hook:
        model(batch)
    [found] = found
    linked, hit, read = [0] * 9, [0] * 9, [0] * 9
    assert batch.links is not None
    rows = {position: row for row, position in enumerate(found.where.tolist())}
    for row in rows.values():
        if found.scores[row].max() > found.null[row]:
            read[int(found.numbers[row, found.scores[row].argmax()])] += 1
    for (r, c), entries in zip(batch.links.positions.tolist(), batch.links.entries.tolist(), strict=True):
        row = rows.get(r * batch.tokens.shape[1] + c)
        for entry in entries:
            if entry < 0:
                continue
            linked[entry] += 1
            if row is not None and entry in found.numbers[row].tolist():
                place = found.numbers[row].tolist().index(entry)
                hit[entry] += bool(found.scores[row, place] > found.null[row])
    return [linked, hit, read]


@pytest.mark.parametrize("null", [0.0, 8.0, 12.0, 30.0])
def test_linked_found_and_read_are_counted_position_by_position(memory, null):
    model = watched(memory, top_k=4).train()
    with torch.no_grad():
        model.model.layers[-1].mlp.retrieval.null.bias.fill_(null)
    batch = Batch.of_tokens(memory.tokens(rows=4, length=9))
    places = [[r, c] for r in range(4) for c in range(9)]
    batch.links = memory.links(places, [[n % 9, (n * 5 + 1) % 9 if n % 3 else -1] for n in range(36)], [])
    wanted = expected(model, batch)
    bank = memory.bank_of(model)
    bank.usage.forget()
    model(batch)
    model.after_step({})
    assert counted(bank.usage) == wanted
    assert sum(wanted[0]) == 36 + 24
    assert (sum(wanted[1]) == 0) == (null == 30.0)


def test_micro_batches_add_up_and_one_that_is_computed_twice_counts_once(memory):
    model = watched(memory).train()
    bank, batches = memory.bank_of(model), [memory.batch(seed=seed) for seed in (0, 1)]
    counts = []
    for model.model.checkpointing in (False, True):
        bank.usage.reset()
        for batch in batches:
            model(batch).nll.mean().backward()  # with checkpointing this computes the forward pass again
        model.after_step({})
        counts.append(counted(bank.usage))
    assert counts[0] == counts[1] and sum(counts[0][0]) == 2 * 3 and sum(counts[0][2]) > 0


def test_a_step_that_was_given_up_and_evaluation_do_not_count(memory):
    model = watched(memory).train()
    bank = memory.bank_of(model)
    model(memory.batch())
    bank.usage.forget()
    model.eval()
    model(memory.batch())
    model.train()
    model.after_step({})
    assert not bank.usage.counts.any()


def test_a_model_that_nobody_watches_gathers_nothing(memory):
    """In the hands of another trainer, who knows of no ``after_step``."""
    model = memory.reading().train()
    usage = memory.bank_of(model).usage
    model(memory.batch())
    assert not usage._noted and not usage.state()


def test_counting_changes_no_gradient(memory):
    """The same with counters and with none."""
    gradients = []
    for counts in (True, False):
        model = watched(memory).train()
        if not counts:
            memory.bank_of(model).usage.note = lambda *given: None
        output = model(memory.batch())
        (output.nll.mean() + output.aux["router"][0]).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None)


def test_events_fade_and_scaling_back_does_not_show():
    usage = Usage(3)
    usage.add(linked=[0, 0], read=[2])
    usage.updated()
    scaled = False
    for _ in range(WINDOW):
        before = usage.weight
        usage.updated()
        scaled |= usage.weight < before
    assert scaled and usage.weight < HEAVIEST * 1.01
    assert (usage.counts / usage.weight)[0, 0].item() == pytest.approx(2 / math.e, rel=1e-3)
    assert usage.report().linked == 1 and usage.report().dead == 1
    for _ in range(WINDOW):
        usage.updated()
    assert usage.report().linked == 0 == usage.report().dead


def test_dead_is_linked_of_late_and_not_found_of_late():
    usage = Usage(5)
    usage.add(linked=[0, 1, 2, 2], found=[0, 2], read=[0, 2])
    usage.updated()
    for _ in range(2 * WINDOW):
        usage.add(linked=[0, 1], found=[0])
        usage.updated()
    report = usage.report()
    assert (report.entries, report.linked, report.dead) == (5, 2, 1)  # 2 was found, but is not spoken of any more
    usage.add(found=[1])
    usage.updated()
    assert usage.report().dead == 0


def drive(usage, ranks, settle_at=()):
    """Ten updates; ``ranks`` share the events of each; settled after these updates and at the end."""
    for step in range(10):
        for part in range(4):
            target = usage[part % ranks]
            target.add(linked=[(step * part) % 7, part], found=[part], read=[step % 7, step % 7, part])
        for one in usage:
            one.updated()
        if ranks > 1 and (step in settle_at or step == 9):
            waiting = [one.waiting() for one in usage]
            for one in usage:
                one.settle(waiting)
    return usage


def test_ranks_count_alike_whenever_they_exchange_and_like_one():
    [alone] = drive([Usage(7)], ranks=1)
    for settle_at in ((), (3,), range(10)):
        ranks = [Usage(7), Usage(7)]
        for one in ranks:
            one.shared = True
        drive(ranks, 2, settle_at)
        for one in ranks:
            assert torch.equal(one.counts, alone.counts) and one.weight == alone.weight


def test_a_restart_goes_on_to_the_bit():
    [whole] = drive([Usage(7)], ranks=1)
    [first] = drive([Usage(7)], ranks=1)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = Usage()
    second.load(state)
    drive([whole], 1)
    drive([second], 1)
    assert torch.equal(whole.counts, second.counts) and whole.weight == second.weight
    second.load({})  # a checkpoint of before there were counters
    assert second.counts.numel() == 0 and second.weight == 1.0


def test_the_counters_travel_with_the_index(memory):
    model = watched(memory).train()
    model(memory.batch())
    model.after_step({})
    state = {name: tensor.clone() for name, tensor in model.training_state().items()}
    other = watched(memory, seed=1).train()
    other.load_training_state(state)
    bank, its = memory.bank_of(model), memory.bank_of(other)
    assert torch.equal(its.usage.counts, bank.usage.counts) and bank.usage.counts.any()
    assert its.refreshed == bank.refreshed == 0
    older = {name: tensor for name, tensor in state.items() if "usage" not in name}
    older["knowledge/updates"] = older["knowledge/updates"][:2]
    other.load_training_state(older)
    assert its.usage.counts.numel() == 0


def test_another_content_is_counted_anew(memory):
    model = watched(memory).train()
    model(memory.batch())
    model.after_step({})
    bank = memory.bank_of(model)
    bank.set_entries(bank.entries)
    assert bank.usage.counts.numel() == 0


def test_the_entropy_is_of_shares_and_over_ln_n():
    assert normalised_entropy(torch.full((50,), 3.0)) == pytest.approx(1.0)
    assert normalised_entropy(torch.tensor([0.0, 9.0, 0.0])) == 0.0
    assert math.isnan(normalised_entropy(torch.tensor([5.0])))


def test_a_checksum_is_of_every_bit_and_of_the_place(memory):
    entries = memory.ENTRIES
    same = type(entries).of(
        tokens=entries.tokens.tolist(), keys=entries.keys.tolist(), subject_lengths=entries.subject_lengths.tolist()
    )
    assert entries.checksum() == same.checksum()
    same.tokens[8, 3] += 1
    assert entries.checksum() != same.checksum()
    keys = torch.randn(6, 4).bfloat16()
    assert checksum(keys) == checksum(keys.clone()) != checksum(keys.flip(0))
    assert checksum(torch.zeros(2, 3)) != checksum(torch.zeros(3, 2)) != checksum(torch.zeros(3, 2).int())
