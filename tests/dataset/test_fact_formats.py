import gzip
import json
from pathlib import Path

import pytest

from lichen.config.errors import UsageError
from lichen.config.knowledge import BankConfig
from lichen.dataset.fact_formats import FactReader
from lichen.dataset.facts import Fact
from lichen.dataset.records import Reject
from lichen.dataset.sources import SourceError


def read(path: Path, **settings: object) -> tuple[list[Fact], list[Reject], FactReader]:
    reader = FactReader(BankConfig.from_data(settings))
    items = list(reader.read(reader.find(path)))
    facts = [item for item in items if isinstance(item, Fact)]
    return facts, [item for item in items if isinstance(item, Reject)], reader


def rows(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def test_every_shape_gives_the_same_fact(tmp_path: Path) -> None:
    parts = {"subject": "杜甫", "object": "巩县"}
    triple = {"uuid": "u", "predicate": "P19", **parts}
    shapes = [
        rows(tmp_path / "own.jsonl", {"id": "u", "relation": "place of birth", **parts}),
        rows(tmp_path / "P19.jsonl", triple),
        rows(tmp_path / "lama.jsonl", {"uuid": "u", "predicate_id": "P19", "sub_label": "杜甫", "obj_label": "巩县"}),
        rows(tmp_path / "collisions.jsonl", {**triple, "made": True}),
        rows(tmp_path / "trex.jsonl", {"target": [triple]}),
    ]
    (tmp_path / "trex.json").write_text(json.dumps([{"target": [triple]}], indent=2))
    with gzip.open(tmp_path / "P19.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(shapes[1].read_text(encoding="utf-8"))
    for path in [*shapes, tmp_path / "trex.json", tmp_path / "P19.jsonl.gz"]:
        (fact,), rejects, _ = read(path)
        assert not rejects
        source = f"{tmp_path.name}/{path.name}"
        assert fact == Fact("u", "杜甫，place of birth：巩县", "杜甫", "place of birth", "巩县", source)


def test_t_rex_gives_a_fact_for_every_target_and_keeps_its_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trex.json"
    target = {
        "sentence": "Ada was born\n in London.",
        "uuid": "a",
        "subject": "Ada",
        "predicate": "birth",
        "object": "London",
    }
    data = [{"target": [target, {**target, "uuid": "b", "sentence": "Ada came."}]}, {"target": []}, {"target": 3}, 7]
    path.write_text(json.dumps(data, indent=2))
    facts, rejects, reader = read(path)
    assert [(fact.id, fact.text) for fact in facts] == [("a", "Ada was born in London."), ("b", "Ada came.")]
    assert [(reject.cause, reject.line) for reject in rejects] == [
        ("no_fact", 20),
        ("wrong_type", 23),
        ("not_an_object", 26),
    ]
    assert reader.respaced == 1


def test_plain_sentences_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_bytes("\ufeff苔是绿的。\r\n\n Moss  is green.\n\xff\n".encode("utf-8")[:-3] + b"\xff\n")
    facts, rejects, _ = read(path)
    assert [fact.text for fact in facts] == ["苔是绿的。", "Moss is green."]
    assert [(reject.line, reject.cause) for reject in rejects] == [(2, "empty_line"), (4, "invalid_utf8")]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"subject": "a", "relation": "b"}, "missing_field"),
        ({"objct": "a"}, "missing_field"),
        ({"text": 3}, "wrong_type"),
        ({"text": "a", "subject": ["b"]}, "wrong_type"),
        ({"text": "red \x1b[31m"}, "control_character"),
        ({"text": "nul \x00"}, "nul"),
        ({"text": "half \ud800"}, "lone_surrogate"),
        ({"id": True, "text": "a"}, "wrong_type"),
        ([1], "not_an_object"),
        ({}, "missing_field"),
    ],
)
def test_a_bad_row_is_named_and_the_next_one_read(tmp_path: Path, row: object, cause: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + '\n{"id": 7, "text": "moss"}\n')
    (fact,), (reject,), _ = read(path)
    assert (reject.file, reject.line, reject.cause) == (str(path), 1, cause)
    assert fact.id == "7"


def test_lines_too_long_or_broken_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a" * 200}) + '\n{"text": "moss"}\n{"text": "st')
    facts, rejects, _ = read(path, max_line_bytes=100)
    assert [fact.text for fact in facts] == ["moss"]
    assert [(reject.line, reject.cause) for reject in rejects] == [(1, "too_long_line"), (3, "truncated")]


def test_a_folder_of_relation_files_gives_these_alone_and_names_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "lama"
    folder.mkdir()
    row = {"uuid": "a", "subject": "Ada", "object": "London", "predicate": "P19"}
    rows(folder / "P19.jsonl", row)
    rows(folder / "P20.jsonl", {**row, "uuid": "b", "predicate": "P20"})
    rows(folder / "collisions.jsonl", {**row, "uuid": "c", "object": "Paris"})
    (folder / "P19.patterns.json").write_text('["[X] was born in [Y]."]')
    (folder / "relations.json").write_text('{"P20": "died in"}')
    (folder / "README.md").write_text("about")
    reader = FactReader(BankConfig())
    found = reader.find(folder)
    facts = [item for item in reader.read(found) if isinstance(item, Fact)]
    assert [(fact.relation, fact.source) for fact in facts] == [
        ("place of birth", "lama/P19.jsonl"),
        ("died in", "lama/P20.jsonl"),
    ]
    assert found.left_out == (str(folder / "collisions.jsonl"),)
    assert reader.relations["place of birth"].patterns == ("[X] was born in [Y].",)


def test_any_other_folder_gives_all_its_files_but_a_bank_its_facts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    rows(tmp_path / "a.jsonl", {"text": "a"})
    (tmp_path / "deep" / "b.txt").write_text("b\n")
    reader = FactReader(BankConfig())
    facts = list(reader.read(reader.find(tmp_path)))
    assert [fact.source for fact in facts if isinstance(fact, Fact)] == [
        f"{tmp_path.name}/a.jsonl",
        f"{tmp_path.name}/deep/b.txt",
    ]
    rows(tmp_path / "facts.jsonl", {"id": "f", "text": "f"})
    (tmp_path / "bank.json").write_text("{}")
    found = reader.find(tmp_path)
    assert [file.path.name for file in found.source.files] == ["facts.jsonl"]


def test_unknown_identifiers_and_fields_are_counted(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", {"subject": "a", "predicate": "P98765", "object": "b", "weight": 1, "made": True})
    (fact,), _, reader = read(path)
    assert fact.relation == "P98765"
    assert dict(reader.unlabelled) == {"P98765": 1} and dict(reader.ignored) == {"weight": 1, "made": 1}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.json", b'[{"text": "a"}, {"te', "no JSON in line 1.*breaks off.*restore the file"),
        ("a.json", b'[{"text": "\xff\xfe"}]', "no UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "moss"}\n' * 99, mtime=0)[:-9], "damaged"),
        ("a.json.gz", gzip.compress(b'[{"text": "moss"}]', mtime=0)[:-9], "damaged"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_a_damaged_file_ends_its_source(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"{name}: .*{words}"):
        read(tmp_path / name)


def test_kinds_that_hold_no_facts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="convert the file"):
        read(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="holds no file of facts"):
        read(tmp_path)
    with pytest.raises(UsageError, match=r"nearest: a\.parquet"):
        read(tmp_path / "a.parqet")
