"""``lichen knowledge``: which commands there are, which bank and which tokenizer is meant."""

import shutil
from pathlib import Path

import pytest

from lichen.config.errors import UsageError
from lichen.core.runs import Run
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.scripts import knowledge
from lichen.scripts.command_line import main


def test_commands_are_listed_and_nearly_right_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        assert main(["knowledge", *argv]) == 0
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in knowledge.COMMANDS)
    assert main(["knowledge", "serach"]) == 2
    assert "nearest: search" in capsys.readouterr().err


@pytest.mark.parametrize("command", knowledge.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        knowledge.run([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: lichen knowledge {command}" in capsys.readouterr().out


def test_the_form_is_said(tmp_path: Path) -> None:
    for words in ([], [str(tmp_path)], [str(tmp_path), "a", "b"]):
        with pytest.raises(UsageError, match="the form is: lichen knowledge show BANK_OR_RUN ID"):
            knowledge.target(words, "show", "ID", least=1)


def test_a_runs_own_tokenizer_comes_before_the_one_the_bank_was_built_with(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    other = Tokenizer.train(["quite another text"] * 3, 330)
    other.save(tmp_path / "other")
    settings = {"tokenizer": str(tmp_path / "other")}
    alone = write_bank(tmp_path / "bank", [made_fact("Ada", "job", "poet")], settings=settings).folder
    of_run = write_bank(run / "knowledge", [made_fact("Ada", "job", "poet")], settings=settings).folder
    own = Tokenizer.load(Run(run).latest())

    def fingerprint(folder: Path, given: str | None = None) -> str:
        found = knowledge.tokenizer_for(folder, given)
        assert found is not None
        return found.fingerprint

    assert fingerprint(of_run) == own.fingerprint != other.fingerprint
    assert fingerprint(alone) == fingerprint(of_run, str(tmp_path / "other")) == other.fingerprint
    assert fingerprint(alone, str(run)) == fingerprint(alone, f"{run}@step-4") == own.fingerprint
    shutil.rmtree(tmp_path / "other")
    assert knowledge.tokenizer_for(alone, None) is None
    with pytest.raises(UsageError):
        knowledge.tokenizer_for(alone, str(tmp_path / "other"))


def test_columns_stand_where_they_should() -> None:
    assert knowledge.columns([("n", "name", "x"), (12, "moss", "")], right=1) == " n  name  x\n12  moss"
