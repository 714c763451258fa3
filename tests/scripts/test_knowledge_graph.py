import json
from pathlib import Path

import pytest

from lichen.dataset.bank import write_bank
from lichen.dataset.facts import Fact, made_fact
from lichen.scripts.command_line import main

FACTS = [
    made_fact("Ada", "place of birth", "London", id="a"),
    made_fact("Ada", "place of death", "London", id="a2"),
    made_fact("London", "capital of", "England", id="l"),
    made_fact("杜甫", "出生地", "巩县", id="d"),
    Fact("s", "Moss is green."),
]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return write_bank(tmp_path / "bank", FACTS).folder


def test_the_whole_neighbours_and_ways(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "graph", str(bank)]) == 0
    assert "5 nodes, 4 facts, 2 parts, the largest of 3 nodes" in capsys.readouterr().out
    assert main(["knowledge", "graph", str(bank), "--from", "london"]) == 0
    assert "London ← place of birth — Ada  (a)" in capsys.readouterr().out
    assert main(["knowledge", "graph", str(bank), "--from", "Ada", "--to", "England", "--json"]) == 0
    assert [step["id"] for step in json.loads(capsys.readouterr().out)] == ["a", "l"]
    assert main(["knowledge", "graph", str(bank), "--from", "Ada", "--to", "杜甫"]) == 1
    assert "no way leads from Ada to 杜甫" in capsys.readouterr().out


def test_wrong_requests(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--from", "Adda"], "nearest: Ada"),
        (["--to", "Ada"], "--to needs --from"),
        (["--output", "x.graphm"], "nearest: .graphml"),
    ):
        assert main(["knowledge", "graph", str(bank), *words]) == 2
        assert message in capsys.readouterr().err


def test_files_and_pictures(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "graph", str(bank), "--output", str(tmp_path / "g.graphml")]) == 0
    assert "5 nodes, 4 facts" in capsys.readouterr().out
    assert "出生地" in (tmp_path / "g.graphml").read_text(encoding="utf-8")
    for name, words in (("a.png", ["--from", "Ada"]), ("b.svg", []), ("c.png", ["--from", "Ada", "--to", "England"])):
        assert main(["knowledge", "graph", str(bank), "--output", str(tmp_path / name), *words]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "b.svg").read_bytes()
