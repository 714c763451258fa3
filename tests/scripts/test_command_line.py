"""How the command answers, rightly and wrongly asked."""

import subprocess
import sys

import pytest

from lichen.config.errors import LichenError
from lichen.scripts import command_line


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lichen.scripts.command_line import main; main(['--help']);"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'tyro', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    assert "usage: lichen VERB" in result.stdout


@pytest.mark.parametrize("verb", command_line.VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lichen", verb, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert f"usage: lichen {verb}" in result.stdout


def test_an_unknown_verb_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["trian"]) == 2
    assert "nearest: train" in capsys.readouterr().err


def test_faults_are_one_line_and_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: list[str]) -> int:
        raise LichenError("file x, line 3: broken; mend it")

    assert command_line.guarded(fail, []) == 1
    assert capsys.readouterr().err == "error: file x, line 3: broken; mend it\n"
    assert command_line.guarded(fail, ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_our_own_defects_are_said_to_be_ours(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: list[str]) -> int:
        raise KeyError("boom")

    assert command_line.guarded(fail, []) == 1
    assert "KeyError: 'boom'; this is a defect of lichen" in capsys.readouterr().err
