"""`lichen doctor` says beforehand what a training would stumble over."""

from pathlib import Path

import pytest

from lichen.config.errors import ConfigError
from lichen.scripts import doctor


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"run: {{root: {tmp_path}/runs}}\n")
    return path


def test_a_sound_recipe_is_tried_and_leaves_nothing_behind(
    recipe: Path, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run([str(recipe), *tiny_flags, "--train.steps", "9", "--trial-steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "ok    trial: 3 steps, loss" in out and "the whole training of 9 steps would take" in out
    assert [entry.name for entry in tmp_path.iterdir()] == ["recipe.yaml"]


def test_what_is_missing_is_said_and_nothing_is_tried(
    recipe: Path, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    flags = [*tiny_flags, "--data.path", str(tmp_path / "gone"), "--run.root", str(blocked / "runs")]
    assert doctor.run([str(recipe), *flags, "--train.steps", "9"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  data: " in out and "FAIL  run folder: " in out and "trial:" not in out


def test_a_tracker_that_is_not_there_is_named(recipe: Path, tiny_flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="nosuchtracker"):
        doctor.run([str(recipe), *tiny_flags, "--log.trackers", "nosuchtracker", "--trial-steps", "0"])
