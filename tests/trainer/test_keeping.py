"""What goes into a checkpoint comes out again, in any optimizer, and nothing else passes for it."""

import json

import pytest

from lichen.config.errors import LichenError
from lichen.core.runs import Run
from lichen.trainer.checkpoints import latest_checkpoint


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
