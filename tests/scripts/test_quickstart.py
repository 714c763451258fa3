"""The quickstart goes its whole road through the verbs; small here, in full nightly."""

import json
from pathlib import Path

import pytest

from lichen.config.errors import UsageError
from lichen.scripts import quickstart


def test_the_whole_road(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = Path(json.__file__).parent
    output = tmp_path / "out"
    status = quickstart.run(
        ["--output", str(output), "--steps", "2", "--library", str(library), "--held-out", "0.1", "--chapters", "text"]
    )
    out = capsys.readouterr().out
    assert status == 0
    for line in (
        "$ lichen prepare",
        "$ lichen train",
        "$ lichen plot",
        "$ lichen generate",
        "bits per byte",
        "held out:",
    ):
        assert line in out
    for name in ("dense", "none", "gzip", "xz", "xz, given the training text"):
        assert f"\n{name}  " in out
    assert (output / "curves.png").stat().st_size > 10_000
    assert "What they learnt" in (output / "report.html").read_text(encoding="utf-8")


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        quickstart.run(["--output", str(tmp_path)])
    assert (tmp_path / "x").read_text() == "mine"
