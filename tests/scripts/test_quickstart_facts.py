"""The chapter on facts goes through the verbs: small here; nightly with all it promises."""

import json
from pathlib import Path

import pytest

from lichen.scripts import quickstart
from lichen.scripts.quickstart_facts import PROMISED, written


def test_the_whole_chapter(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.scripts.quickstart_facts.FACTS", 240)
    monkeypatch.setattr("lichen.scripts.quickstart_facts.QUESTIONS", 12)
    library, output = Path(json.__file__).parent, tmp_path / "out"
    words = ["--output", str(output), "--steps", "2", "--library", str(library), "--held-out", "0.1"]
    status = quickstart.run([*words, "--chapters", "facts"])
    out = capsys.readouterr().out
    assert status == 0
    for line in (
        "$ lichen knowledge build",
        "$ lichen knowledge texts",
        "$ lichen knowledge add",
        "$ lichen evaluate knowledge",
        "$ lichen generate",
    ):
        assert line in out
    assert "model            seen" in out
    assert json.loads((output / "evaluation" / "facts-dense" / "knowledge.json").read_text(encoding="utf-8"))


@pytest.mark.nightly
def test_added_facts_are_read_and_an_edit_is_followed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert quickstart.run(["--output", str(output), "--chapters", "facts"]) == 0
    shares = {
        name: written(json.loads((output / "evaluation" / name / "knowledge.json").read_text(encoding="utf-8")))
        for name in ("facts-knowledge", "facts-dense")
    }
    assert shares["facts-knowledge"]["added"] >= PROMISED
    assert shares["facts-dense"]["added"] < 0.3
