"""Where a training's facts come from, and what is refused before a folder is made."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.core.runs import Run
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.facts import made_fact
from lichen.metrics import records
from lichen.trainer.checkpoints import read_checkpoint
from lichen.trainer.memory import MemoryWatch, Watch, bank_hash, check_bank, differing, keep_bank, router_parameters

FACTS = [made_fact(f"stone {n}", "bears", f"lichen {n}") for n in range(3)]
READING = {"num_hidden_layers": 2, "feed_forward_by_layer": {"1": {"kind": "knowledge"}}}


def recipe(tiny, given=None, model=READING):
    return tiny.recipe(model=model, knowledge={} if given is None else {"database_init_path": str(given)})


def data(knowledge=None) -> Any:
    return SimpleNamespace(knowledge=knowledge)


@pytest.fixture
def banks(tmp_path):
    return [write_bank(tmp_path / name, facts).folder for name, facts in (("one", FACTS), ("two", FACTS[1:]))]


def test_a_model_that_reads_needs_facts(tiny):
    with pytest.raises(UsageError, match="prepared without a bank"):
        check_bank(recipe(tiny), data())
    check_bank(tiny.recipe(), data())


def test_the_bank_given_must_be_the_one_the_data_is_linked_with(tiny, banks):
    check_bank(recipe(tiny, banks[0]), data(banks[0]))
    check_bank(recipe(tiny, banks[0]), data())
    with pytest.raises(UsageError, match="is not the bank the data is linked with"):
        check_bank(recipe(tiny, banks[1]), data(banks[0]))


def test_the_run_keeps_a_copy_that_later_changes_do_not_reach(tiny, banks, tmp_path):
    run = Run(tmp_path / "run")
    run.make_folders()
    keep_bank(recipe(tiny), data(banks[0]), run)
    kept = Bank.open(run.folder / "knowledge")
    assert kept.facts == FACTS
    assert bank_hash(recipe(tiny), run) == kept.hash
    keep_bank(recipe(tiny), data(banks[1]), run)  # an interrupted start has done it
    assert Bank.open(run.folder / "knowledge").facts == FACTS


def test_a_dense_training_keeps_none(tiny, banks, tmp_path):
    run = Run(tmp_path / "run")
    run.make_folders()
    keep_bank(tiny.recipe(), data(banks[0]), run)
    assert not (run.folder / "knowledge").exists()
    assert bank_hash(tiny.recipe(), run) is None


# --- How it fares ---

METERS = {
    "knowledge_router_gradient_norm",
    "knowledge_linked",
    "knowledge_dead",
    "knowledge_usage_entropy",
    "knowledge_drift",
    "knowledge_refreshed",
}


@pytest.fixture(scope="session")
def linked(tiny, load_beside):
    """Trainings whose text is linked with their bank; see linked_memory.py."""
    return load_beside(__file__, "linked_memory")


def rows(folder):
    """Train rows by step, but for measurements of the machine."""
    found = records.read(Run(folder).metrics, ["train"])
    return {
        row["step"]: {k: v for k, v in row.items() if not k.startswith(("time_", "memory_", "tokens_per"))}
        for row in found
    }


def test_statistics_steps_say_how_the_memory_fares(linked, tmp_path):
    found = linked.training(tmp_path, train={"clip": 0.0})
    norms = []
    step = found.optimizer.step

    def look():
        grads = [p.grad.norm() for p in router_parameters(found.module) if p.grad is not None]
        norms.append(float(torch.stack(grads).norm()))
        step()

    found.optimizer.step = look
    found.run()
    said = rows(tmp_path)
    assert (
        all(said[n].keys() >= METERS for n in (4, 8, 10))
        and not said[2].keys() & METERS
        and not said[6].keys() & METERS
    )
    for n in (4, 8, 10):
        assert said[n]["knowledge_router_gradient_norm"] == pytest.approx(norms[n - 1], rel=1e-4) and norms[n - 1] > 0
    report = linked.bank_of(found).usage.report()
    last = said[10]
    assert (last["knowledge_linked"], last["knowledge_usage_entropy"]) == (report.linked, report.entropy)
    assert last["knowledge_dead"] == report.dead / report.linked and 0 < report.linked <= 12
    assert (
        last["knowledge_refreshed"] == 9 == linked.bank_of(found).refreshed
    )  # every three updates, at the next search
    assert "knowledge_ranks_agree" not in last


def test_watching_changes_no_bit(linked, tiny, tmp_path):
    watched, alone = linked.training(tmp_path / "watched"), linked.training(tmp_path / "alone")
    assert isinstance(watched.memory, MemoryWatch)
    alone.memory = Watch()
    linked.bank_of(alone).usage.note = lambda *given: None
    watched.run()
    alone.run()
    assert tiny.fingerprint(watched) == tiny.fingerprint(alone)
    losses = [{step: row["loss"] for step, row in rows(tmp_path / name).items()} for name in ("watched", "alone")]
    assert losses[0] == losses[1]


def test_counters_go_on_to_the_bit_where_a_training_was_stopped(linked, tmp_path):
    whole = linked.training(tmp_path / "whole")
    whole.run()
    for until in (1, 5):  # before and after a refresh and a statistics step
        part = linked.training(tmp_path / "parts", resume=until > 1)
        linked.stop_after(part, until)
        assert part.run() == "interrupted"
    last = linked.training(tmp_path / "parts", resume=True)
    assert linked.bank_of(last).usage.counts.any()
    last.run()
    states = [found.module.training_state() for found in (whole, last)]
    assert states[0].keys() == states[1].keys() >= {"knowledge/usage", "knowledge/usage_weight"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_step_that_is_not_taken_counts_nothing(linked, tmp_path):
    found = linked.training(tmp_path, train={"steps": 3})
    backward = found.runtime.backward
    found.runtime.backward = lambda loss: backward(loss * (float("nan") if found.state.step == 1 else 1.0))
    found.run()
    usage = linked.bank_of(found).usage
    assert found.state.skipped == 1
    other = linked.training(tmp_path / "other", train={"steps": 3})
    other.run()
    linked_events = [float(one.counts[0].sum() / one.weight) for one in (usage, linked.bank_of(other).usage)]
    assert linked_events[0] < linked_events[1] - 2


def test_a_model_without_a_memory_has_nothing_to_say(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    assert type(found.memory) is Watch
    found.run()
    assert not any(key.startswith("knowledge") for row in rows(tmp_path).values() for key in row)


def test_the_rank_that_differs_is_the_one_in_the_minority():
    assert differing(["a", "b", "a", "c"]) == [1, 3] and differing(["a"] * 3) == []


@pytest.fixture(scope="module")
def two_ranks(linked, load_beside, tmp_path_factory):
    """What two processes with the same memory, with another bank and with another index came to."""
    ranks = load_beside(__file__, "test_runtime")
    folder, port = tmp_path_factory.mktemp("memories"), ranks.free_port()
    started = [ranks.start(folder, rank, port=port, program=(linked.__file__,)) for rank in range(2)]
    outputs = [rank.communicate(timeout=120)[0] for rank in started]
    assert [rank.returncode for rank in started] == [0, 0], "\n".join(outputs)
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_count_together_what_one_counts(linked, two_ranks, tmp_path):
    folder, (one, two) = two_ranks
    assert one["usage"] == two["usage"] and one["waiting"] == two["waiting"] == 0
    alone = linked.training(tmp_path)
    alone.run()
    usage = linked.bank_of(alone).usage
    assert one["usage"][0] == usage.counts[0].tolist()  # who is linked does not depend on rounding
    assert one["usage_weight"] == usage.weight
    saved = [read_checkpoint(path).module()["knowledge/usage"] for path in Run(folder / "same").checkpoint_folders()]
    assert saved[1].tolist() == one["usage"]
    half = read_checkpoint(Run(tmp_path).checkpoint_folders()[0]).module()["knowledge/usage"]
    assert torch.equal(saved[0][0], half[0])  # of the sixth step, where nothing else made the ranks exchange
    last = rows(folder / "same")[10]
    assert last["knowledge_ranks_agree"] == 1.0 and last["knowledge_linked"] == usage.report().linked


def test_ranks_with_other_facts_do_not_begin(two_ranks):
    _, found = two_ranks
    for rank in found:
        assert "rank 1 reads other facts than the rest" in rank["other bank"]


def test_another_index_over_the_same_facts_is_said_loudly_and_the_training_goes_on(two_ranks):
    folder, found = two_ranks
    assert all(rank["other index"] == "finished" for rank in found)
    events = records.read(Run(folder / "other index").metrics, ["event"])
    assert [event["step"] for event in events] == [4]
    assert events[0]["event"] == "disagreement" and "rank 1 computes another index" in events[0]["text"]
    assert [rows(folder / "other index")[n]["knowledge_ranks_agree"] for n in (4, 8, 10)] == [0.0, 1.0, 1.0]
