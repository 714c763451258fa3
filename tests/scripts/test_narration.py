"""The quickstart shows every command before it runs, and does not go on after one that failed."""

from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.scripts import narration
from lichen.scripts.narration import call


def test_a_verb_is_shown_as_one_would_type_it_and_then_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lichen.scripts.inspection.run", lambda argv: print("argv", argv) or 0)
    call("inspect", tmp_path / "a b", "--rows", 3)
    shown, ran = capsys.readouterr().out.splitlines()
    assert shown == f"$ lichen inspect '{tmp_path}/a b' --rows 3"
    assert ran == f"argv {[f'{tmp_path}/a b', '--rows', '3']}"


def test_a_verb_that_fails_ends_the_road(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.scripts.plot.run", lambda argv: 3)
    with pytest.raises(LichenError, match="lichen plot ended with status 3"):
        call("plot", "runs/x")


def test_what_a_model_says_is_shown_and_handed_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lichen.scripts.generate.run", lambda argv: print("Ada was born in London"))
    assert narration.said_by(tmp_path, ["--prompt", "Ada was"]) == "Ada was born in London"
    shown = capsys.readouterr().out
    assert "--prompt 'Ada was'" in shown
    assert shown.endswith("Ada was born in London\n")
