"""Parts from a recipe, epochs from rows, and what may change when a run is continued."""

import json

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.core.runs import Run
from lichen.inference.loading import load
from lichen.trainer import assembly
from lichen.trainer.assembly import EpochClock
from lichen.trainer.checkpoints import read_checkpoint


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
    for name in assembly.HARMLESS:
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
