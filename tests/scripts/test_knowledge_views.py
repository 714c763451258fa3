import json
from pathlib import Path

import pytest

from lichen.dataset.bank import write_bank
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.relations import Relation
from lichen.dataset.tokenizer import Tokenizer
from lichen.scripts.command_line import main

FACTS = [
    made_fact("Ada", "place of birth", "London", id="a", source="x/P19.jsonl"),
    made_fact("ada", "occupation", "poet", id="p"),
    made_fact("Ada", "occupation", "baker", id="b"),
    made_fact("杜甫", "出生地", "巩县", id="d"),
    Fact("s", "Moss is green."),
]
BORN = {"place of birth": Relation("P19", "place of birth", ("[X] was born in [Y].",))}


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    Tokenizer.train(["place of birth"] * 3, 330).save(tmp_path / "tokenizer")
    return write_bank(tmp_path / "bank", FACTS, BORN, {"knowledge_length": 40}).folder


def test_search_shows_the_nearest_first(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "search", str(bank), "where", "was", "ada", "birth"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["entry", "score", "id", "text"]
    assert lines[1].split()[0] == "0" and lines[1].endswith("Ada — place of birth: London")
    assert main(["knowledge", "search", str(bank), "杜甫", "--json", "--top", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "d"
    assert main(["knowledge", "search", str(bank), "zebra"]) == 0
    assert "no fact holds any of these words" in capsys.readouterr().out


def test_show_tells_all_about_a_fact(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["knowledge", "edit", str(bank), "a", "--object", "Paris"])
    capsys.readouterr()
    assert main(["knowledge", "show", str(bank), "0", "--tokenizer", str(tmp_path / "tokenizer")]) == 0
    said = capsys.readouterr().out
    for words in (
        "entry 0 of 5, version 2",
        "relation  place of birth (P19, 1 patterns)",
        "source    x/P19.jsonl",
        "of 40, key",
        "also of Ada",
        "occupation: poet",
        "version 2: edit (",
        "object    London → Paris",
    ):
        assert words in said
    assert main(["knowledge", "show", str(bank), "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["object"] == "Paris" and [entry["action"] for entry in shown["history"]] == ["edit"]
    assert main(["knowledge", "show", str(bank), "q"]) == 2


def test_stats_count_relations_contradictions_and_tokens(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["knowledge", "stats", str(bank)]) == 0
    said = capsys.readouterr().out
    assert "2         1        2        1  occupation" in said and "tokens were not counted" in said
    assert "1 times a subject has several objects for a relation\n  ada, occupation: poet, baker" in said
    words = ["--tokenizer", str(tmp_path / "tokenizer"), "--length", "12"]
    assert main(["knowledge", "stats", str(bank), *words]) == 0
    said = capsys.readouterr().out
    assert "texts of more than 12 tokens" in said and "#" in said
    assert main(["knowledge", "stats", str(bank), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["entries"] == sum(row["facts"] for row in found["relations"]) == 5
    assert found["tokens"]["cut_entries"] >= 3 and found["tokens"]["length"] == 12
