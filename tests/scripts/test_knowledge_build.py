import json
from pathlib import Path

import pytest

from lichen.dataset.bank import Bank
from lichen.dataset.tokenizer import Tokenizer
from lichen.scripts.command_line import main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {"uuid": f"u{n}", "subject": f"Ada {n}", "predicate": "P19", "object": "London", "made": True}
        for n in range(300)
    ]
    (folder / "P19.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "moss\n\n")
    (folder / "more.txt").write_text("Moss  is green.\nAda 3 — place of birth: London\n")
    return folder


def test_every_row_is_accounted_for(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Tokenizer.train(["place of birth"] * 3, 330).save(tmp_path / "tokenizer")
    output = tmp_path / "bank"
    words = ["--output", str(output), "--tokenizer", str(tmp_path / "tokenizer"), "--length", "20"]
    assert main(["knowledge", "build", str(source), str(source / "more.txt"), *words]) == 0
    said = capsys.readouterr().out
    for line in (
        "read 304 = kept 301 + duplicates 1 + rejected 2",
        f"  {source}: read 302, kept 300",
        "  duplicates: same_text 1",
        "  rejected: empty_line 1, not_json 1",
        f"  left out, name it to read it: {source / 'more.txt'}",
        "  fields without a meaning here: made 300",
        "  white space made single spaces in 1 facts",
        f"next: lichen knowledge stats {output}",
    ):
        assert line in said.splitlines()
    assert "texts of more than 20 tokens" in said
    assert Bank.open(output).settings["knowledge_length"] == 20


def test_a_recipe_and_json(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "bank.yaml"
    recipe.write_text(f"sources: [{source}]\noutput: {tmp_path / 'a'}\nbank: {{knowledge_length: 40}}\n")
    assert main(["knowledge", "build", str(recipe), "--output", str(tmp_path / "b"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    bank = Bank.open(tmp_path / "b")
    assert said["hash"] == bank.hash and said["read"] == said["kept"] + 2 and bank.settings["knowledge_length"] == 40


def test_wrong_requests_end_with_2_and_bad_data_with_1(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "bank")]
    assert main(["knowledge", "build", *output]) == 2
    assert "name at least one source" in capsys.readouterr().err
    assert main(["knowledge", "build", str(source / "mor.txt"), *output]) == 2
    assert "nearest: more.txt" in capsys.readouterr().err
    assert main(["knowledge", "build", str(source), *output, "--length", "999"]) == 2
    assert "bank.knowledge_length = 999" in capsys.readouterr().err
    assert main(["knowledge", "build", str(source), *output, "--max-bad-fraction", "0"]) == 1
    error = capsys.readouterr().err
    assert "P19.jsonl:301" in error and "bank.rejects.jsonl" in error
    assert (tmp_path / "bank.rejects.jsonl").is_file() and not (tmp_path / "bank").exists()
