"""What goes into a checkpoint comes out again, in any optimizer, and nothing else passes for it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lichen.config.errors import LichenError
from lichen.core.runs import Run
from lichen.trainer.checkpoints import latest_checkpoint
from lichen.trainer.keeping import Keeper, agreed_checkpoint
from lichen.trainer.runtime import Runtime
from lichen.trainer.saving import Saver


def test_everything_comes_out_as_it_went_in(tiny, tmp_path):
    recipe = tiny.recipe(averages={"enabled": True}, optim={"name": "muon"})
    found = tiny.training(tmp_path, recipe)
    found.run()
    other = tiny.training(tmp_path / "other", recipe)
    assert tiny.fingerprint(other) != tiny.fingerprint(found)
    other.saver.restore(latest_checkpoint(Run(tmp_path)))
    assert tiny.fingerprint(other) == tiny.fingerprint(found)


def test_averages_are_not_made_up(tiny, tmp_path):
    tiny.training(tmp_path, tiny.recipe()).run()
    other = tiny.training(tmp_path / "other", tiny.recipe(averages={"enabled": True}))
    with pytest.raises(LichenError, match=r"averages\.enabled"):
        other.saver.restore(latest_checkpoint(Run(tmp_path)))


def test_the_folder_is_a_hugging_face_model(tiny, tmp_path):
    tiny.training(tmp_path, tiny.recipe()).run()
    folder = Run(tmp_path).latest()
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_size"], config["vocab_size"]) == (32, tiny.tokenizer().vocab_size)
    assert config["eos_token_id"] == tiny.tokenizer().eos_id
    assert "lichen.model.hf" in (folder / "README.md").read_text()


def test_generate_stops_where_the_model_was_taught_to(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    import lichen.model.hf  # noqa: F401

    tiny.training(tmp_path, tiny.recipe()).run()
    folder = Run(tmp_path).latest()
    model = AutoModelForCausalLM.from_pretrained(folder)
    words = tiny.tokenizer()
    assert model.generation_config.eos_token_id == list(words.stop_ids)
    assert model.generation_config.pad_token_id == words.pad_id
    assert json.loads((folder / "generation_config.json").read_text())["max_length"] is None


def test_all_ranks_take_the_checkpoint_that_rank_0_found(tiny, tmp_path):
    run = Run(tmp_path)
    tiny.training(tmp_path, tiny.recipe()).run()
    older = run.checkpoint_folders()[0]
    second: Any = SimpleNamespace(is_master=False, broadcast=lambda name, patient: older.name)
    found = agreed_checkpoint(run, second)
    assert found is not None and found.folder == older and found.state.step == 3


def test_nothing_is_cleared_away_before_all_ranks_have_read(tiny, tmp_path, monkeypatch):
    tiny.training(tmp_path, tiny.recipe()).run()
    order = []
    for owner, name in ((Keeper, "restore"), (Runtime, "meet"), (Saver, "settle")):
        function = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, name=name, function=function: order.append(name) or function(*given)
        )
    tiny.resumed(tmp_path, tiny.recipe())
    assert order == ["restore", "meet", "settle"]
