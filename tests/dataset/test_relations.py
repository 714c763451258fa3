import json
from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.dataset.relations import LABELS, Relation, label_of, merged, read_relations, render


def test_labels_differ() -> None:
    assert len(set(LABELS.values())) == len(LABELS)


def test_a_folder_of_relations(tmp_path: Path) -> None:
    (tmp_path / "P19.patterns.json").write_text('["[X] was born in [Y] ."]')
    (tmp_path / "P20.jsonl").write_text("")
    (tmp_path / "P999.jsonl.gz").write_bytes(b"")
    (tmp_path / "Poems.jsonl").write_text("")
    (tmp_path / "relations.json").write_text(json.dumps({"P19": "出生地", "P77": "owner of"}))
    found = read_relations(tmp_path)
    assert list(found) == ["P19", "P20", "P77", "P999"]
    assert found["P19"] == Relation("P19", "出生地", ("[X] was born in [Y] .",))
    assert [relation.label for relation in found.values()] == ["出生地", "place of death", "owner of", "P999"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("P19.patterns.json", '["[X] was born"]', "pattern 1 is no sentence"),
        ("P19.patterns.json", "{", "no JSON"),
        ("P19.patterns.json", '{"a": 1}', "a list of sentences"),
        ("relations.json", '{"P19": 3}', "identifiers and their labels"),
        ("relations.json", "[]", "identifiers and their labels"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LichenError, match=rf"{name}.*{words}"):
        read_relations(tmp_path)


def test_patterns_of_one_label_are_joined() -> None:
    joined = merged([Relation("", "job", ("a",)), Relation("P106", "job", ("b", "a"))])
    assert joined == {"job": Relation("P106", "job", ("a", "b"))}


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("[X] is in [Y] .", "Ada is in London."),
        ("[Y] player [X] ", "London player Ada"),
        ("[X],  a type of [Y]", "Ada, a type of London"),
        ("[X] label : [Y].", "Ada label : London."),
        ("[X]是[Y] 。", "Ada是London。"),
    ],
)
def test_stray_spaces_before_the_last_stop_go(pattern: str, sentence: str) -> None:
    assert render(pattern, "Ada", "London") == sentence


def test_names_that_look_like_places_are_left_alone() -> None:
    assert render("[X] is [Y].", "[Y]", "a  [X] .") == "[Y] is a  [X] .."
    assert label_of("P19", {"P19": "born"}) == "born"
