"""Fault 48: too long, unknown tokens, duplicate ids, half-saved files; and what happens when a change is interrupted."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.bank_edits import BankEditor
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.relations import Relation
from lichen.dataset.tokenizer import Tokenizer

word_tokenizer = runpy.run_path(str(Path(__file__).with_name("word_tokenizers.py")))["word_tokenizer"]
CRASH = Path(__file__).parents[1] / "crash"
FACTS = [
    made_fact("Ada", "place of birth", "London", id="a"),
    made_fact("Bo", "place of birth", "Oslo", id="b"),
    Fact("s", "Moss is green."),
]
ADDED = made_fact("Cleo", "place of birth", "Rome", id="c")
BORN = {"place of birth": Relation("P19", "place of birth", ("[X] was born in [Y].",))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bank(tmp_path / "bank", FACTS, BORN).folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lichen.lock"}


def test_every_change_is_a_version_and_undoing_all_gives_the_same_bytes(folder: Path) -> None:
    before = bytes_of(folder)["facts.jsonl"]
    with BankEditor(folder) as editor:
        editor.add(Fact("", "", "Dan", "occupation", "poet"))
        assert editor.edit("b", object="Bergen")[1].text == "Bo — place of birth: Bergen"
        assert [fact.id for fact in editor.delete(["a", "1"])] == ["a", "b"]
        assert [fact.text for fact in editor.bank.facts] == ["Moss is green.", "Dan — occupation: poet"]
        assert editor.bank.index_of("s") == 0 and editor.bank.version == 4
        assert list(editor.bank.relations) == ["occupation", "place of birth"]  # with its patterns
    opened = Bank.open(folder)
    assert (opened.version, opened.facts, opened.hash) == (4, editor.bank.facts, editor.bank.hash)
    with BankEditor(folder) as editor:
        assert [entry.action for entry in editor.undo(2)] == ["delete", "edit"]
        assert editor.bank.facts[:3] == FACTS
        editor.undo()
        assert (editor.bank.version, editor.bank.facts) == (6, FACTS)
        with pytest.raises(UsageError, match="0 changes can be taken back, not 1"):
            editor.undo()
    assert bytes_of(folder)["facts.jsonl"] == before
    assert list(Bank.open(folder).relations) == ["place of birth"]


def test_an_undo_stops_at_a_change_by_hand(folder: Path) -> None:
    with BankEditor(folder) as editor:
        editor.edit("b", object="Bergen")
    path = folder / "facts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("London", "Paris"), encoding="utf-8")
    with BankEditor(folder) as editor:
        editor.edit("b", object="Bodø")
        editor.undo()
        with pytest.raises(UsageError, match="before version 3, made by hand, is not known"):
            editor.undo()
        assert [fact.object for fact in editor.bank.facts[:2]] == ["Paris", "Bergen"]


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (Fact("a", "Something else."), "its id is that of a "),
        (Fact("", "", "ada", "Place of Birth", "LONDON"), "the bank says that already: a "),
        (Fact("", "Moss  is green."), "has that text already: s "),
        (Fact("", "", "Ada", "occupation"), "no object is given"),
        (Fact("", "  "), "no subject, relation, object is given"),
        (Fact("", "red \x1b[31m"), "control character"),
        (Fact("", "Moss " * 40), "the text has .* tokens, an entry has 32: shorten it"),
    ],
)
def test_a_bad_fact_is_refused_and_nothing_changes(folder: Path, fact: Fact, words: str) -> None:
    before = bytes_of(folder)
    with (
        BankEditor(folder, Tokenizer.train(["Moss is green."] * 3, 330)) as editor,
        pytest.raises(UsageError, match=words),
    ):
        editor.add(fact)
    assert bytes_of(folder) == before


def test_a_bad_edit_is_refused_and_nothing_changes(folder: Path) -> None:
    before = bytes_of(folder)
    with BankEditor(folder, word_tokenizer("Moss", "is", "green."), 4) as editor:
        for key, changes, words in (
            ("s", {"text": "Moss is grun."}, "does not know 'grun.'"),
            ("s", {"text": "Moss is Moss is Moss"}, "5 tokens, an entry has 4"),
            ("s", {"text": " Moss  is green. "}, "says already"),
            ("x", {"text": "Moss"}, "no fact has the id 'x'"),
            ("s", {"text": ""}, "text is empty"),
        ):
            with pytest.raises(UsageError, match=words):
                editor.edit(key, **changes)
        with pytest.raises(UsageError, match="at least one fact"):
            editor.delete(["a", "b", "s"])
    assert bytes_of(folder) == before


def test_good_rows_of_a_file_are_added_and_bad_ones_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    rows = [
        ADDED.to_data(),
        {"id": "a", "text": "Other."},
        {"text": "Moss is green."},
        {"text": "x " * 60},
        {"id": "c", "text": "y"},
    ]
    half = '{"id": "z", "text": "half a li'
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n" + half)
    before = bytes_of(folder)
    tokenizer = Tokenizer.train(["Moss is green."] * 3, 330)
    with BankEditor(folder, tokenizer) as editor:
        with pytest.raises(
            LichenError, match=r"4 of 7 rows are bad, nothing was changed; first .*new\.jsonl:2: its id"
        ):
            editor.add_file(path, strict=True)
        assert bytes_of(folder) == before and editor.bank.version == 1
        outcome = editor.add_file(path)
        assert (outcome.read, outcome.changed, outcome.duplicates) == (7, 1, 1)
        named = [(reject.line, reject.cause) for reject in outcome.rejects]
        causes = ["id_used_twice", "too_long", "id_used_twice", "empty_line", "truncated"]
        assert named == list(zip([2, 4, 5, 6, 7], causes, strict=True))
        assert editor.bank.facts == [*FACTS, replace(ADDED, source=f"{tmp_path.name}/new.jsonl")]
    assert Bank.open(folder).version == 2


def test_a_file_that_says_nothing_new_makes_no_version(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "same.txt"
    path.write_text("Moss is green.\n")
    with BankEditor(folder) as editor:
        assert editor.add_file(path).duplicates == 1
        assert editor.bank.version == 1
        path.write_text("\x00\n")
        with pytest.raises(LichenError, match="1 of 1 rows are bad, nothing was changed"):
            editor.add_file(path)


def test_many_facts_are_edited_in_one_version(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    rows = ['{"id": "a", "object": "Paris"}', '{"id": "a", "subject": "Eve"}', '{"id": "x", "object": "y"}']
    rows += [
        '{"id": "b", "objct": "y"}',
        '{"id": "b"}',
        "{",
        "",
        '{"id": "s", "text": "Moss is green."}',
        '{"id": "b", "text": 3}',
    ]
    path.write_text("\n".join(rows) + "\n")
    with BankEditor(folder) as editor:
        with pytest.raises(LichenError, match=r"5 of 9 rows are bad.*edits\.jsonl:3: .*no fact has the id 'x'"):
            editor.edit_file(path, strict=True)
        outcome = editor.edit_file(path)
        assert (outcome.changed, outcome.duplicates, [reject.line for reject in outcome.rejects]) == (
            2,
            1,
            [3, 4, 5, 6, 7, 9],
        )
        assert editor.bank.facts[0].text == "Eve — place of birth: Paris" and editor.bank.version == 2
        editor.undo()
        assert editor.bank.facts == FACTS
        with pytest.raises(UsageError, match=r"nearest: edits\.jsonl"):
            editor.edit_file(tmp_path / "edit.jsonl")


def test_two_editors_at_once_are_refused_and_a_reader_is_not(folder: Path) -> None:
    with BankEditor(folder) as editor:
        with pytest.raises(LichenError, match=rf"in use by process {os.getpid()} .*editing the bank"):
            BankEditor(folder)
        assert Bank.open(folder).facts == FACTS
        editor.add(ADDED)
    with BankEditor(folder) as editor:
        assert len(editor.bank) == 4


def test_a_full_disk_leaves_the_old_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with BankEditor(folder) as editor:
        monkeypatch.setattr("lichen.core.folders.rename", full)
        with pytest.raises(LichenError, match="no space left"):
            editor.edit("a", object="Paris")
        monkeypatch.undo()
        with pytest.raises(LichenError, match="open the bank again"):
            editor.edit("a", object="Paris")
    opened = Bank.open(folder)
    assert (opened.version, opened.facts) == (1, FACTS)
    with BankEditor(folder) as editor:
        editor.edit("a", object="Paris")
        assert [entry.version for entry in editor.undo()] == [2]


# --- Killed at any moment; this file is also the program that does it ---


def crash_points(workplace: Path, number: int | None) -> dict[str, object]:
    """Kill a series of changes at every call that changes the disk and at many lines, look, and finish it."""
    sys.path.insert(0, str(CRASH))
    from crash_points import Scenario, enumerate_points  # type: ignore[import-not-found]

    def prepare(folder: Path) -> None:
        write_bank(folder / "bank", FACTS)

    def act(folder: Path) -> None:
        with BankEditor(folder / "bank") as editor:
            changes: list[Callable[[], object]] = [
                lambda: editor.edit("a", object="Paris"),
                lambda: editor.add(ADDED),
                lambda: editor.delete(["b"]),
                lambda: editor.undo(2),
            ]
            while editor.bank.version <= len(changes):
                changes[editor.bank.version - 1]()
                with (folder / "acknowledged").open("w") as file:
                    file.write(str(editor.bank.version))

    paris = made_fact("Ada", "place of birth", "Paris", id="a")
    edited = [paris, *FACTS[1:]]
    versions = {1: FACTS, 2: edited, 3: [*edited, ADDED], 4: [paris, FACTS[2], ADDED], 5: edited}

    def promise(folder: Path) -> list[str]:
        acknowledged = folder / "acknowledged"
        least = int(acknowledged.read_text() or 1) if acknowledged.exists() else 1
        bank = Bank.open(folder / "bank")
        problems = [] if bank.version >= least else [f"version {bank.version} after {least} was acknowledged"]
        return problems + ([] if bank.facts == versions[bank.version] else [f"version {bank.version} is {bank.facts}"])

    def outcome(folder: Path) -> dict[str, str]:
        files = {name: (folder / "bank" / name).read_text() for name in ("facts.jsonl", "bank.json")}
        history = [json.loads(line) for line in (folder / "bank" / "history.jsonl").read_text().splitlines()]
        return {**files, "history": json.dumps([{**entry, "time": ""} for entry in history])}

    traced = ("dataset/bank_edits.py", "dataset/bank_history.py", "dataset/bank.py", "core/folders.py", "core/disk.py")
    scenario = Scenario("edit", prepare, act, promise, outcome, traced)
    tried = list(enumerate_points(scenario, workplace, number))
    return {"points": len(tried), "failures": [problem for _, problem in tried if problem]}


def killed(tmp_path: Path, number: int | None) -> dict[str, list[str]]:
    command = [sys.executable, __file__, str(tmp_path / "crashes"), str(number or 0)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_killed_at_any_moment_the_bank_is_one_version_or_the_next(tmp_path: Path) -> None:
    report = killed(tmp_path, 40)
    assert report["points"] == 40 and not report["failures"]


@pytest.mark.nightly
def test_killed_at_every_moment(tmp_path: Path) -> None:
    assert not killed(tmp_path, None)["failures"]


if __name__ == "__main__":
    print(json.dumps(crash_points(Path(sys.argv[1]), int(sys.argv[2]) or None)))
