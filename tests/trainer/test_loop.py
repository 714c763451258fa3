"""Exact resuming, stopping, what is written when."""

import json
import signal
from dataclasses import replace

import pytest

from lichen.config.errors import LichenError
from lichen.core.runs import Run
from lichen.metrics import records
from lichen.trainer import assembly, saving
from lichen.trainer.checkpoints import latest_checkpoint
from lichen.trainer.runtime import RankLost
from lichen.trainer.saving import SavingFailed
from lichen.trainer.step import UpdateFailed

MEASURED = ("tokens_per_second", "time_", "memory")


def rows(folder):
    """The metrics, but for measurements of the machine."""
    found = records.read(Run(folder).metrics)
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in found]


def run(found, until=None, number=signal.SIGTERM):
    """Train; if asked, with a signal in the middle of a step."""
    take_note = found.take_note

    def note(*arguments):
        take_note(*arguments)
        if found.state.step == until:
            found.interruption.note(number)

    found.take_note = note
    reason = found.run()
    for observer in found.observers:
        observer.close()
    return reason


def memory(search):
    """A model that reads facts; the index is two updates old at most, so that stops fall on and between refreshes."""
    part = {
        "kind": "knowledge",
        "knowledge_dim": 8,
        "heads": 2,
        "top_k": 2,
        "router": "language-loss",
        "refresh_every": 2,
    }
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return {"model": {**size, "feed_forward_by_layer": {"1": {**part, "search": search}}}}


AVERAGED = {
    "averages": {"enabled": True, "decay": 0.9},
    "train": {"steps": 6, "batch_size": 4, "precision": "bf16"},
}
VARIANTS = {
    "plain": {},
    "bf16": {"train": {"steps": 6, "batch_size": 4, "precision": "bf16"}},
    "accumulation": {"train": {"steps": 6, "batch_size": 4, "precision": "fp32", "accumulation": 2}},
    "averages": {"averages": {"enabled": True, "decay": 0.9}},
    "muon": {"optim": {"name": "muon", "lr": 1e-2}},
    "memory": memory("exact"),
    "memory in cells": memory("product"),
    "memory, averages, bf16": {**memory("exact"), **AVERAGED},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere_and_continued_ends_with_the_same_bits(tiny, tmp_path, variant):
    recipe = tiny.recipe(**VARIANTS[variant])
    whole = tiny.training(tmp_path / "whole", recipe)
    assert run(whole) == "finished"
    folder = tmp_path / "parts"
    assert run(tiny.training(folder, recipe), until=1) == "interrupted"
    assert run(tiny.resumed(folder, recipe), until=3) == "interrupted"  # before the validation due at this step
    assert run(tiny.resumed(folder, recipe), until=5) == "interrupted"
    last = tiny.resumed(folder, recipe)
    assert last.state.step == 5
    assert run(last) == "finished"
    assert tiny.fingerprint(last) == tiny.fingerprint(whole)
    assert rows(folder) == rows(tmp_path / "whole")
    assert last.state == whole.state


def test_killed_between_saves_drops_later_rows(tiny, tmp_path):
    recipe = tiny.recipe()
    whole = tiny.training(tmp_path / "whole", recipe)
    run(whole)
    found = tiny.training(tmp_path / "killed", recipe)
    take_note = found.take_note

    def die(*arguments):
        take_note(*arguments)
        if found.state.step == 5:
            raise KeyboardInterrupt

    found.take_note = die
    with pytest.raises(KeyboardInterrupt):
        found.run()
    again = tiny.resumed(tmp_path / "killed", recipe)
    assert again.state.step == 3
    run(again)
    assert tiny.fingerprint(again) == tiny.fingerprint(whole)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_a_run_without_a_checkpoint_starts_at_zero_and_damaged_ones_do_not(tiny, tmp_path):
    recipe = tiny.recipe()
    assert tiny.resumed(tmp_path, recipe).state.step == 0
    run(tiny.training(tmp_path, recipe))
    for folder in Run(tmp_path).checkpoint_folders():
        (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LichenError, match="all 2 checkpoints are damaged"):
        tiny.resumed(tmp_path, recipe)


def test_metrics_have_what_was_promised(tiny, tmp_path):
    recipe = tiny.recipe(train={"steps": 24, "batch_size": 4, "precision": "fp32"})
    found = tiny.training(tmp_path, recipe)
    run(found)
    every = records.read(Run(tmp_path).metrics)
    train = [row for row in every if row["type"] == "train"]
    assert [row["step"] for row in train] == list(range(2, 25, 2))
    assert {"loss", "loss_mean", "perplexity", "lr", "gradient_norm", "clip_rate", "clip_ratio"} <= train[0].keys()
    assert {"tokens", "tokens_per_second", "epoch", "skipped"} <= train[0].keys()
    assert "memory_mib" not in train[0] and {"memory_mib", "time_data", "time_other"} <= train[1].keys()
    assert train[-1]["tokens"] == found.state.tokens
    assert train[-1]["loss"] < train[0]["loss"]
    epochs = [row for row in every if row["type"] == "epoch"]
    assert [row["epoch"] for row in epochs] == list(range(1, int(train[-1]["epoch"]) + 1)) != []
    validations = [row for row in every if row["type"] == "validation"]
    assert [row["step"] for row in validations] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert validations[-1]["bits_per_byte"] < validations[0]["bits_per_byte"]


def test_the_curve_is_golden_within_a_machine(tiny, tmp_path):
    curves = []
    for name in ("one", "two"):
        run(tiny.training(tmp_path / name, tiny.recipe()))
        curves.append([row["loss"] for row in rows(tmp_path / name) if row["type"] == "train"])
    assert curves[0] == curves[1]
    assert curves[0] == pytest.approx(GOLDEN, rel=2e-3)


GOLDEN = [5.574015, 5.417277, 5.352205]


def test_early_stopping_by_patience_and_its_end_is_final(tiny, tmp_path):
    recipe = tiny.recipe(
        train={"steps": 40, "batch_size": 4},
        evaluation={"every": 2, "max_batches": 1},
        early_stopping={"enabled": True, "patience": 2, "min_delta": 100.0},
    )
    found = tiny.training(tmp_path, recipe)
    assert run(found) == "stopped early"
    assert (found.state.step, found.state.best_step, found.state.finished) == (6, 6, True)
    assert Run(tmp_path).best().name.endswith("0000006")


def test_too_many_skips_in_a_row_stop_and_name_the_rows(tiny, tmp_path):
    recipe = tiny.recipe(train={"steps": 9, "batch_size": 4, "max_consecutive_skips": 2}, evaluation={"every": 0})
    found = tiny.training(tmp_path, recipe)
    found.module.model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(LichenError, match=r"2 steps in a row .*rows 4-7"):
        found.run()
    events = [row for row in records.read(Run(tmp_path).metrics) if row["type"] == "event"]
    assert [(row["step"], row["event"]) for row in events] == [(1, "skip"), (2, "skip")]
    assert "rows 0-3" in events[0]["text"]


def spike(found, at):
    """Make the loss of one step a hundred times as large."""
    step = found.step

    def spiked(batch, totals):
        result = step(batch, totals)
        return replace(result, loss=result.loss * 100) if found.state.step == at else result

    found.step = spiked


def test_a_spike_is_told_and_on_request_undone(tiny, tmp_path):
    short = {"steps": 30, "batch_size": 4}
    often = {"every": 0}
    told = tiny.training(tmp_path / "told", tiny.recipe(train=short, evaluation=often, checkpoint={"every": 5}))
    spike(told, 27)
    run(told)
    assert [row["event"] for row in rows(tmp_path / "told") if row["type"] == "event"] == ["spike"]
    recipe = tiny.recipe(train={**short, "spike_rollbacks": 1}, evaluation=often, checkpoint={"every": 5})
    undone = tiny.training(tmp_path / "undone", recipe)
    spike(undone, 27)
    run(undone)
    events = [row for row in rows(tmp_path / "undone") if row["type"] == "event"]
    assert [row["event"] for row in events] == ["spike", "rollback"]
    assert (undone.state.rollbacks, undone.state.skipped) == (1, 3)
    assert tiny.fingerprint(told) != tiny.fingerprint(undone)


def test_state_is_plain_json(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe(averages={"enabled": True}))
    run(found)
    state = json.loads((Run(tmp_path).latest() / "training" / "state.json").read_text())
    assert (state["step"], state["rows"], state["reason"], state["finished"]) == (6, 24, "finished", True)


def saved(folder):
    """The newest checkpoint's state."""
    return latest_checkpoint(Run(folder)).state


@pytest.mark.parametrize("step", [3, 6])
def test_the_outcome_of_a_validation_that_was_owed_is_saved(tiny, tmp_path, step):
    recipe = tiny.recipe()
    whole = tiny.training(tmp_path / "whole", recipe)
    run(whole)
    folder = tmp_path / "parts"
    found = tiny.training(folder, recipe)
    look = found.look

    def interrupted(weights):
        if found.state.step == step:
            found.interruption.note(signal.SIGTERM)
        return look(weights)

    found.look = interrupted
    assert run(found) == "interrupted" and saved(folder).reason == "interrupted"
    again = tiny.resumed(folder, recipe)
    assert run(again, until=step + 1) == ("interrupted" if step == 3 else "finished")
    best = Run(folder).read_best()
    assert best is not None and best.step == step == saved(folder).best_step
    if step == 3:
        run(tiny.resumed(folder, recipe))
    assert saved(folder) == whole.state
    done = assembly.find_checkpoint(Run(folder), latest_checkpoint(Run(folder)).fingerprint, whole.runtime)
    assert done is not None and assembly.is_done(done, 6, recipe)
    assert rows(folder) == rows(tmp_path / "whole")


def test_a_checkpoint_set_aside_while_it_was_replaced_is_found(tiny, tmp_path):
    run(tiny.training(tmp_path, tiny.recipe()), until=3)
    [folder] = Run(tmp_path).checkpoint_folders()
    folder.rename(folder.with_name(f".{folder.name}.replaced"))
    assert tiny.resumed(tmp_path, tiny.recipe()).state.step == 3


def test_a_save_that_failed_beside_the_training_is_repeated_when_it_is_stopped(tiny, tmp_path, monkeypatch):
    recipe = tiny.recipe(checkpoint={"every": 2, "asynchronous": True}, evaluation={"every": 0})
    write, failures = saving.write_checkpoint, []

    def full(folder, contents):
        if contents.state.step == 2 and not failures:
            failures.append(folder)
            raise LichenError("no space left")
        write(folder, contents)

    monkeypatch.setattr(saving, "write_checkpoint", full)
    assert run(tiny.training(tmp_path, recipe), until=2) == "interrupted"
    assert failures and (saved(tmp_path).step, saved(tmp_path).reason) == (2, "interrupted")


def test_an_unforeseen_error_beside_the_training_does_not_vanish(tiny, tmp_path, monkeypatch):
    recipe = tiny.recipe(checkpoint={"every": 2, "asynchronous": True}, evaluation={"every": 0})

    def broken(folder, contents):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(saving, "write_checkpoint", broken)
    with pytest.raises(RuntimeError, match="unforeseen"):
        run(tiny.training(tmp_path, recipe), until=2)


def test_a_checkpoint_says_why_it_is_the_last_even_if_it_was_due_anyway(tiny, tmp_path):
    recipe = tiny.recipe(checkpoint={"every": 2}, evaluation={"every": 0})
    run(tiny.training(tmp_path, recipe), until=4)
    assert (saved(tmp_path).step, saved(tmp_path).reason) == (4, "interrupted")


def test_a_fault_beside_the_weights_saves_them_and_can_be_continued_from(tiny, tmp_path):
    recipe = tiny.recipe()
    whole = tiny.training(tmp_path / "whole", recipe)
    run(whole)
    found = tiny.training(tmp_path / "parts", recipe)
    count = found.count

    def dies(batch):
        if found.state.step == 5:
            raise LichenError("loader worker 0 died")
        return count(batch)

    found.count = dies
    with pytest.raises(LichenError, match="worker 0 died"):
        found.run()
    assert (saved(tmp_path / "parts").step, saved(tmp_path / "parts").reason) == (5, "fault: loader worker 0 died")
    again = tiny.resumed(tmp_path / "parts", recipe)
    assert run(again) == "finished"
    assert tiny.fingerprint(again) == tiny.fingerprint(whole) and again.state == whole.state
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("error", [RankLost("gone"), SavingFailed("disk full"), UpdateFailed("out of memory")])
def test_a_fault_that_may_have_touched_the_weights_saves_nothing(tiny, tmp_path, error):
    found = tiny.training(tmp_path, tiny.recipe())
    count = found.count

    def dies(batch):
        if found.state.step == 2:
            raise error
        return count(batch)

    found.count = dies
    with pytest.raises(type(error)):
        found.run()
    assert not Run(tmp_path).checkpoint_folders()


def test_a_spike_before_the_first_checkpoint_is_told_and_no_more(tiny, tmp_path):
    recipe = tiny.recipe(train={"steps": 30, "batch_size": 4, "spike_rollbacks": 1}, evaluation={"every": 0})
    found = tiny.training(tmp_path, recipe)
    spike(found, 27)
    assert run(found) == "finished"
    events = [row["text"] for row in rows(tmp_path) if row["type"] == "event"]
    assert len(events) == 2 and "no checkpoint to go back to" in events[1]
    assert (found.state.rollbacks, found.state.skipped) == (0, 0)


def test_a_skip_that_a_rollback_undoes_counts_once(tiny, tmp_path):
    train = {"steps": 30, "batch_size": 4, "spike_rollbacks": 1}
    found = tiny.training(tmp_path, tiny.recipe(train=train, evaluation={"every": 0}, checkpoint={"every": 5}))
    spike(found, 27)
    step = found.step

    def skipping(batch, totals):  # step 23, in the checkpoint, and step 27, after it
        result = step(batch, totals)
        return replace(result, applied=False) if found.state.step in (22, 26) else result

    found.step = skipping
    run(found)
    # of 30 steps, 25 - 1 updates are the checkpoint's and 2 came after the return
    assert (found.state.rollbacks, found.state.step - found.state.skipped) == (1, 26)


def test_ranks_meet_around_a_save(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    order = []
    for owner, name in ((found.saver, "save"), (found.runtime, "meet")):
        function = getattr(owner, name)
        setattr(owner, name, lambda *given, name=name, function=function: order.append(name) or function(*given))
    found.save("due")
    assert order == ["meet", "save", "meet"]
