from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.dataset.bank_history import BY_HAND, Change, Entry, append, read_history, settle, undoable, version_of


def entries(*actions: str) -> list[Entry]:
    return [Entry(version, action, f"{version}" * 64) for version, action in enumerate(actions, start=1)]


def test_what_did_not_happen_is_settled(tmp_path: Path) -> None:
    for entry in entries("build", "add", "edit"):
        append(tmp_path, entry)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"version": 4, "acti')
    assert [entry.version for entry in read_history(tmp_path)] == [1, 2, 3]
    settle(tmp_path, 2)
    append(tmp_path, Entry(3, "delete", "x", (Change(0, {"id": "1", "text": "苔"}, None),)))
    assert [entry.action for entry in read_history(tmp_path)] == ["build", "add", "delete"]
    assert "苔" in (tmp_path / "history.jsonl").read_text(encoding="utf-8")


def test_facts_tell_their_version(tmp_path: Path) -> None:
    for entry in entries("build", "add", "edit"):
        append(tmp_path, entry)
    one, two, three = ("1" * 64, "2" * 64, "3" * 64)
    assert version_of(tmp_path, 3, three, three) == 3
    assert version_of(tmp_path, 2, two, three) == 3  # bank.json is behind
    assert version_of(tmp_path, 2, two, two) == 2  # version 3 never happened
    assert version_of(tmp_path, 2, two, one) is None  # an older copy put back by hand


def test_what_can_be_taken_back() -> None:
    history = [*entries("build", "add", "edit", "delete"), Entry(5, "undo", "", of=(4, 3)), Entry(6, "add", "")]
    assert undoable(history) == [6, 2]
    assert undoable([*history, Entry(7, BY_HAND, ""), Entry(8, "edit", "")]) == [8]
    assert undoable(entries("build")) == []


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"version": 1}\n')
    with pytest.raises(LichenError, match=r"history\.jsonl:1: no line of a history"):
        read_history(tmp_path)
    assert read_history(tmp_path / "nowhere") == []
