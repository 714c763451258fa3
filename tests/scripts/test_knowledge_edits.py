import json
from pathlib import Path

import pytest

from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.scripts.command_line import main

FACTS = [made_fact("Ada", "place of birth", "London", id="a"), Fact("s", "Moss is green.")]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    Tokenizer.train(["place of birth"] * 3, 330).save(tmp_path / "tokenizer")
    settings = {"knowledge_length": 40, "tokenizer": str(tmp_path / "tokenizer")}
    return write_bank(tmp_path / "bank", FACTS, settings=settings).folder


def test_changes_one_after_the_other(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "edit", str(bank), "a", "--object", "Paris"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "entry 0 (a), version 1 → 2",
        "  text      Ada — place of birth: London → Ada — place of birth: Paris",
        "  object    London → Paris",
    ]
    words = ["--subject", "Ada", "--relation", "place of brith", "--object", "Rome", "--id", "r"]
    assert main(["knowledge", "add", str(bank), *words]) == 0
    said = capsys.readouterr().out
    assert "entry 2 (r), version 2 → 3" in said and "is a new relation (nearest: place of birth" in said
    assert (
        main(["knowledge", "add", str(bank), "--subject", "ada", "--relation", "place of birth", "--object", "Oslo"])
        == 0
    )
    assert "the bank also says of ada, place of birth: Paris" in capsys.readouterr().out
    assert main(["knowledge", "delete", str(bank), "r", "3"]) == 0
    said = capsys.readouterr().out
    assert "removed r: Ada — place of brith: Rome" in said and "version 4 → 5, 2 facts" in said
    assert main(["knowledge", "undo", str(bank), "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "taken back: version 5, delete of 2 facts" in said and "taken back: version 4, add of 1 fact " in said
    assert [fact.id for fact in Bank.open(bank).facts] == ["a", "s", "r"]


def test_what_does_not_fit_is_refused_with_2_and_changes_nothing(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bank / "facts.jsonl").read_bytes()
    for words, message in (
        (["add", "--text", "moss " * 30], "tokens, an entry has 40: shorten it"),
        (["add", "--text", "Moss is green."], "has that text already"),
        (["add", "--id", "a", "--text", "x"], "its id is that of a"),
        (["add"], "a fact needs a text"),
        (["add", "--file", "x", "--text", "y"], "not both"),
        (["edit", "a"], "give a field to change"),
        (["edit", "--object", "x"], "the form is"),
        (["edit", "x", "--object", "y"], "no fact has the id 'x'"),
        (["edit", "s", "--object", "x", "--text", "y"], "does not hold the object"),
        (["delete"], "the form is"),
        (["undo"], "0 changes can be taken back"),
        (["undo", "--steps", "0"], "steps = 0"),
    ):
        argv = ["knowledge", words[0], str(bank), *words[1:]]
        status, said = main(argv), capsys.readouterr().err
        assert (status, message in said) == (2, True), said
    assert (bank / "facts.jsonl").read_bytes() == before


def test_a_file_with_bad_rows_ends_with_1_and_names_them(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"text": "Rain."}\n{"text": "\\u001b[31m"}\n\n{"text": "Sn')
    assert main(["knowledge", "add", str(bank), "--file", str(path), "--strict"]) == 1
    assert f"2 of 4 rows are bad, nothing was changed; first {path}:2" in capsys.readouterr().err
    assert main(["knowledge", "add", str(bank), "--file", str(path)]) == 1
    said = capsys.readouterr().out
    assert "read 4: added 1, said already 0, bad 2; version 1 → 2" in said
    assert f"  {path}:2: text holds a control character (U+001B) (control_character)" in said
    assert f"  {path}:4: the file's last line breaks off (truncated)" in said
    path.write_text(json.dumps({"id": "a", "object": "Paris"}) + "\n")
    assert main(["knowledge", "edit", str(bank), "--file", str(path)]) == 0
    assert "read 1: changed 1, said already 0, bad 0; version 2 → 3" in capsys.readouterr().out
    assert main(["knowledge", "edit", str(bank), "--file", str(path)]) == 0
    assert "said already 1, bad 0; nothing was changed" in capsys.readouterr().out


def test_without_a_tokenizer_it_is_said_that_lengths_were_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bank(tmp_path / "plain", FACTS).folder
    assert main(["knowledge", "add", str(folder), "--text", "moss " * 99]) == 0
    assert "was not checked; give --tokenizer" in capsys.readouterr().out
