"""Parts from a recipe, epochs from rows, and what may change when a run is continued."""

import json

import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.core.runs import Run
from lichen.inference.loading import load
from lichen.trainer import assembly
from lichen.trainer.assembly import EpochClock
from lichen.trainer.checkpoints import compare_for_resume, latest_checkpoint, read_checkpoint
from lichen.trainer.runtime import Runtime


def test_epochs_are_counted_in_rows():
    sizes = [4, 6, 5]
    asked = []

    def rows_in_epoch(epoch):
        asked.append(epoch)
        return sizes[epoch]

    clock = EpochClock(rows_in_epoch, lambda epoch: sum(sizes[:epoch]))
    assert [clock.at(rows) for rows in (0, 2, 4, 7, 10)] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert asked == [0, 1, 2]
    assert clock.at(1) == 0.25


def test_steps_of_epochs(tiny):
    recipe = tiny.recipe(train={"steps": None, "epochs": 2.0})
    data = tiny.data(recipe)
    rows = data.rows.rows_in_epoch(0)
    assert assembly.total_steps(recipe.train, data) == -(-2 * rows // 4)


def test_what_is_harmless_may_change(tiny, tmp_path):
    tiny.training(tmp_path, tiny.recipe()).run()

    def resumed(**changes):
        return tiny.resumed(tmp_path, tiny.recipe(**changes))

    assert resumed(log={"every": 1}, checkpoint={"keep_last": 1}).state.step == 6
    longer = resumed(train={**tiny.RECIPE["train"], "steps": 8})
    assert longer.total == 8
    for changes in (
        {"optim": {"lr": 0.5}},
        {"train": {"batch_size": 8}},
        {"train": {"precision": "bf16"}},
        {"train": {"seed": 1}},
        {"data": {"sequence_length": 16}},
        {"averages": {"enabled": True}},
        {"schedule": {"name": "linear"}},
        {"evaluation": {"max_batches": 1}},
    ):
        with pytest.raises(UsageError, match="->"):
            resumed(**changes)


def test_every_setting_is_either_harmless_or_refused():
    from lichen.config.base import leaves
    from lichen.scripts.train import TrainRecipe

    known = {f"config.{path}" for path, _ in leaves(TrainRecipe)}
    for name in (name.partition(".*.")[0] for name in assembly.HARMLESS):
        assert any(path == name or path.startswith(name + ".") for path in known), name


def test_a_damaged_state_is_named(tiny, tmp_path):
    tiny.training(tmp_path, tiny.recipe()).run()
    state = Run(tmp_path).latest() / "training" / "state.json"
    state.write_text(json.dumps({"step": 3}))
    assert tiny.resumed(tmp_path, tiny.recipe()).state.step == 3  # the one before
    with pytest.raises(LichenError, match=r"state\.json"):
        read_checkpoint(state.parent.parent, verified=True)


def test_a_checkpoint_is_a_model_one_can_load(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    found.run()
    model, tokenizer = load(str(Run(tmp_path).latest()), device="cpu", dtype="fp32")
    assert tokenizer.fingerprint == tiny.tokenizer().fingerprint
    for name, value in model.state_dict().items():
        assert value.equal(found.module.state_dict()[name])


def test_texts_are_continued_with_the_weights_of_the_moment(tiny, tmp_path):
    recipe = tiny.recipe(log={"prompts": ["lichen"], "sample_tokens": 3})
    whole = tiny.training(tmp_path / "watched", recipe)
    whole.run()
    text = Run(tmp_path / "watched").samples.read_text()
    assert text.count("> lichen") == 2 and "## Step 6" in text
    plain = tiny.training(tmp_path / "plain", tiny.recipe())
    plain.run()
    assert tiny.fingerprint(plain) == tiny.fingerprint(whole)  # looking changes nothing


def test_the_paths_of_a_mixture_may_change_and_its_weights_may_not(tiny):
    def saved(path, weight):
        sources = [{"path": path, "weight": weight}, {"path": "b", "weight": 1.0}]
        return {"config": {"data": {"sources": sources}}}

    [found] = compare_for_resume(saved("a", 2.0), saved("elsewhere/a", 2.0), assembly.HARMLESS)
    assert str(found) == "config.data.sources.0.path: 'a' -> 'elsewhere/a'"
    with pytest.raises(UsageError, match=r"config\.data\.sources\.0\.weight: 2\.0 -> 3\.0"):
        compare_for_resume(saved("a", 2.0), saved("a", 3.0), assembly.HARMLESS)


def test_rows_longer_than_the_model_and_prompts_without_room_are_refused(tiny):
    def check(**changes):
        recipe = tiny.recipe(**changes)
        assembly.check(recipe, tiny.data(recipe), tiny.tokenizer(), Runtime.start("fp32", device="cpu"))

    check(model={"max_position_embeddings": 32}, log={"prompts": ["lichen"]})
    with pytest.raises(UsageError, match=r"data\.sequence_length = 32: the model has 16 positions; lower it"):
        check(model={"max_position_embeddings": 16})
    with pytest.raises(UsageError, match=r"log\.prompts: .* has \d+ tokens, the model 32 positions"):
        check(model={"max_position_embeddings": 32}, log={"prompts": ["xyz" * 30]})
    with pytest.raises(UsageError, match="prompt is empty"):
        check(log={"prompts": [""]})


def test_a_run_that_stopped_early_goes_on_only_by_another_rule(tiny, tmp_path):
    def recipe(steps=40, **stopping):
        return tiny.recipe(
            train={"steps": steps, "batch_size": 4, "precision": "fp32"},
            evaluation={"every": 2, "max_batches": 1},
            early_stopping={"enabled": True, "patience": 2, "min_delta": 100.0, **stopping},
        )

    tiny.training(tmp_path, recipe()).run()
    checkpoint = latest_checkpoint(Run(tmp_path))
    assert (checkpoint.state.step, checkpoint.state.reason) == (6, "stopped early")
    assert assembly.is_done(checkpoint, 40, recipe()) and assembly.is_done(checkpoint, 80, recipe(steps=80))
    assert not assembly.is_done(checkpoint, 40, recipe(patience=4))
    assert not assembly.is_done(checkpoint, 40, recipe(enabled=False))
    patient = tiny.resumed(tmp_path, recipe(patience=4))
    assert patient.run() == "stopped early" and patient.state.step == 6 + 2 * 5
    endless = tiny.resumed(tmp_path, recipe(steps=20, enabled=False))
    assert endless.run() == "finished" and endless.state.step == 20


def test_batches_are_pinned_for_a_gpu_alone(tiny, monkeypatch):
    recipe, runtime = tiny.recipe(), Runtime.start("fp32", device="cpu")
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    plain = assembly.make_loader(recipe, tiny.data(recipe), tiny.tokenizer(), runtime).batch(0)
    assert not pinned
    runtime.device = torch.device("cuda", 0)
    again = tiny.recipe(data={"workers": 0})
    batch = assembly.make_loader(again, tiny.data(recipe), tiny.tokenizer(), runtime).batch(0)
    assert len(pinned) == 4 and batch.tokens.equal(plain.tokens)
