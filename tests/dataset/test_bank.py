import json
import logging
from pathlib import Path

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.dataset import bank as banks
from lichen.dataset.bank import Bank, bank_folder, data_of, line_of, read_hash, read_settings, write_bank
from lichen.dataset.bank_edits import BankEditor
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.relations import Relation

FACTS = [
    made_fact("Ada", "place of birth", "London", id="a"),
    made_fact("杜甫", "出生地", "巩县", id="d"),
    Fact("s", 'Moss is "green" — \\ always.', source="x.txt"),
]
BORN = {"place of birth": Relation("P19", "place of birth", ("[X] was born in [Y].",))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bank(tmp_path / "bank", FACTS, BORN, {"knowledge_length": 24}).folder


def test_what_is_written_is_read_and_readable(folder: Path) -> None:
    bank = Bank.open(folder)
    assert bank.facts == FACTS and bank.version == 1 and bank.state == "stored"
    assert bank.relations == {**BORN, "出生地": Relation("", "出生地")}
    assert bank.counts() == {"place of birth": 1, "出生地": 1, "": 1}
    assert bank.settings == read_settings(folder) == {"knowledge_length": 24}
    lines = (folder / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [fact.to_data() for fact in FACTS]
    assert '"subject": "杜甫"' in lines[1]
    assert (
        lines == [json.dumps(fact.to_data(), ensure_ascii=False) for fact in FACTS] == [line_of(f)[:-1] for f in FACTS]
    )


def test_entries_are_found_by_id_or_number(folder: Path) -> None:
    bank = Bank.open(folder)
    assert [bank.index_of("d"), bank.find("d"), bank.find("2")] == [1, 1, 2]
    for key in ("3", "-1", "dd"):
        with pytest.raises(UsageError, match=f"no fact has the id '{key}'"):
            bank.find(key)
    numbered = write_bank(folder.with_name("numbered"), [Fact("1", "x"), Fact("0", "y")])
    assert [numbered.find("1"), numbered.find("0")] == [0, 1]


def test_a_run_is_named_for_its_bank(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    Bank.open(folder).copy_to(tmp_path / "runs" / "mine" / "knowledge")
    assert bank_folder(tmp_path / "runs" / "mine") == tmp_path / "runs" / "mine" / "knowledge"
    monkeypatch.chdir(tmp_path)
    assert Bank.open("mine").facts == FACTS
    with pytest.raises(UsageError, match="nearest: bank"):
        bank_folder("bnk")
    with pytest.raises(UsageError, match="neither a bank nor a run"):
        bank_folder("runs")


def test_a_change_by_hand_is_a_version_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "facts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("London", "Paris"), encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="lichen"):
        bank = Bank.open(folder)
    assert bank.facts[0].object == "Paris" and bank.version == 2 and bank.state == "by hand"
    assert "changed by hand after version 1: 3 facts instead of 3" in caplog.text
    with BankEditor(folder) as editor:
        assert (editor.bank.version, editor.bank.state, editor.bank.hash) == (2, "stored", bank.hash)
    assert Bank.open(folder).state == "stored"


def test_another_layout_is_the_same_version(folder: Path) -> None:
    path = folder / "facts.jsonl"
    before = Bank.open(folder)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(dict(reversed(row.items()))) + "\r\n" for row in rows))
    after = Bank.open(folder)
    assert (after.facts, after.version, after.hash, after.state) == (before.facts, 1, before.hash, "stored")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "x", "text": "mo', "facts.jsonl:4: the file's last line breaks off"),
        ('{"id": "x", "text": "mo\n', "facts.jsonl:4: no JSON"),
        ('{"id": "x"}\n', "facts.jsonl:4: text is missing"),
        ('{"id": "x", "text": "a", "objct": "b"}\n', "facts.jsonl:4: no such field 'objct' .nearest: object"),
        ('{"id": "a", "text": "a"}\n', "facts.jsonl:4: the id 'a' stands in line 1 already"),
        ('{"id": "x", "text": "a\\u001bb"}\n', "facts.jsonl:4: text holds a control character"),
        ("\n", "facts.jsonl:4: an empty line"),
        ("[1]\n", "facts.jsonl:4: no fact"),
    ],
)
def test_a_damaged_line_is_named_with_the_remedy(folder: Path, line: str, words: str) -> None:
    with (folder / "facts.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(LichenError, match=rf"{words}.*mend the line, or put back a copy"):
        Bank.open(folder)


def test_a_damaged_folder_is_named(folder: Path) -> None:
    (folder / "facts.jsonl").write_text("")
    with pytest.raises(LichenError, match="there is no fact"):
        Bank.open(folder)
    (folder / "facts.jsonl").unlink()
    with pytest.raises(LichenError, match=r"facts\.jsonl: No such file"):
        Bank.open(folder)
    for text in ("{", "[]", '{"version": 1}'):
        (folder / "bank.json").write_text(text)
        with pytest.raises(LichenError, match=r"bank\.json: damaged"):
            Bank.open(folder)
    (folder / "bank.json").unlink()
    (folder / "facts.jsonl").write_bytes(data_of(FACTS))
    with pytest.raises(LichenError, match=r"bank\.json: missing"):
        Bank.open(folder)


def test_a_copy_is_the_version_that_was_open(folder: Path, tmp_path: Path) -> None:
    bank = Bank.open(folder)
    with BankEditor(folder) as editor:
        editor.edit("a", object="Paris")
    bank.copy_to(tmp_path / "copy")
    copy = Bank.open(tmp_path / "copy")
    assert (copy.facts, copy.version, copy.hash, copy.relations) == (bank.facts, 1, bank.hash, bank.relations)
    Bank.open(folder).copy_to(tmp_path / "later")
    with BankEditor(tmp_path / "later") as editor:
        editor.undo()
        assert editor.bank.facts == FACTS
    with pytest.raises(UsageError, match="exists already"):
        bank.copy_to(tmp_path / "copy")


def test_a_copy_is_made_of_the_files_bytes_unless_they_have_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(folder)
    with monkeypatch.context() as patched:
        patched.setattr(banks, "data_of", lambda _: pytest.fail("encoded again"))
        bank.copy_to(tmp_path / "copy")
    (folder / "facts.jsonl").unlink()
    bank.copy_to(tmp_path / "later")
    assert (tmp_path / "later" / "facts.jsonl").read_bytes() == (tmp_path / "copy" / "facts.jsonl").read_bytes()


def test_the_hash_is_read_without_the_facts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Bank.open(folder).hash
    with BankEditor(folder) as editor:
        editor.edit("a", object="Paris")
    edited = Bank.open(folder).hash
    with monkeypatch.context() as patched:
        patched.setattr(banks, "read_facts", lambda *_, **__: pytest.fail("read"))
        assert read_hash(folder) == edited != first
    facts = (folder / "facts.jsonl").read_text(encoding="utf-8")
    (folder / "facts.jsonl").write_text(facts.replace('"id": "a", ', '"id":  "a", '), encoding="utf-8")
    assert read_hash(folder) == edited  # only laid out otherwise
    (folder / "facts.jsonl").write_text(facts.replace("Paris", "Rome"), encoding="utf-8")
    assert read_hash(folder) == Bank.open(folder).hash != edited


def test_a_copy_does_not_need_the_history(folder: Path, tmp_path: Path) -> None:
    (folder / "history.jsonl").write_text("{\n")
    Bank.open(folder).copy_to(tmp_path / "copy")
    assert Bank.open(tmp_path / "copy").facts == FACTS


def test_nothing_is_written_over_and_nothing_half(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        write_bank(folder, FACTS)
    for facts, words in (([], "at least one"), ([FACTS[0]] * 2, "used twice"), ([Fact("x", "\x00")], "control")):
        with pytest.raises(UsageError, match=words):
            write_bank(tmp_path / "new", facts)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lichen.dataset.bank.rename", full)
    with pytest.raises(LichenError, match="no space left"):
        write_bank(tmp_path / "new", FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank"]
