"""What comparisons are made from: contents make the difference, places do not; what is made is made once."""

import json
from pathlib import Path
from typing import Any

import pytest

from lichen.config.comparison import ComparisonConfig, SizeConfig
from lichen.config.errors import UsageError
from lichen.dataset import standard_library
from lichen.dataset.made_facts import write_world
from lichen.experiments import comparison_material
from lichen.experiments.comparison_material import contents, find_facts, make, material_of, settle_sizes
from lichen.scripts import knowledge_texts


def settings(**more: Any) -> ComparisonConfig:
    return ComparisonConfig.from_data({"sizes": [{"told": 40}], "arms": {"knowledge": {}}, **more})


def test_made_facts_are_enough_for_the_largest_size(tmp_path: Path) -> None:
    for told in (40, 1000):
        facts = find_facts("made", settings(sizes=[{"told": told}]), tmp_path)
        assert len(facts.split(None).told) >= told == len(facts.split(told).told)
    assert find_facts("made", settings(made=77), tmp_path).number == 77


def test_a_folder_of_facts_is_known_by_what_it_holds(tmp_path: Path) -> None:
    for name, number in (("one", 90), ("two", 90), ("three", 120)):
        write_world(tmp_path / name, number)
    one, two, three = (find_facts(str(tmp_path / name), settings(), tmp_path) for name in ("one", "two", "three"))
    assert one.id == two.id != three.id
    made = find_facts("made", settings(made=90), tmp_path)
    assert {fact.id for fact in one.split(None).told} == {fact.id for fact in made.split(None).told}
    assert material_of(one, settings(), tmp_path).collisions is None
    fact = {"subject": "a", "relation": "b", "object": "c", "text": "a b c", "id": "x"}
    (tmp_path / "one" / "collisions.jsonl").write_text(json.dumps(fact) + "\n")
    again = find_facts(str(tmp_path / "one"), settings(), tmp_path)
    assert (
        again.id != one.id
        and material_of(again, settings(), tmp_path).collisions == tmp_path / "one" / "collisions.jsonl"
    )


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "facts").mkdir()
    with pytest.raises(UsageError, match=r"fact: no such folder of facts \(nearest: facts"):
        find_facts(str(tmp_path / "fact"), settings(), tmp_path)
    with pytest.raises(UsageError, match=r"no\.jsonl: no such file"):
        contents([tmp_path / "no.jsonl"])
    with pytest.raises(UsageError, match="two patterns"):
        settle_sizes([SizeConfig(told=5)], 0)


def test_files_of_general_text_take_the_place_of_the_librarys(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "one"}\n')
    facts = find_facts("made", settings(made=30), tmp_path)
    library = material_of(facts, settings(library=["topics"]), tmp_path)
    own = material_of(facts, settings(general=[str(path)], language={"text": [str(path)]}), tmp_path)
    assert own.general == own.held_out == (path,) and own.general_id != library.general_id
    assert [file.parent.name for file in (*library.general, *library.held_out)] == ["train", "validation"]
    path.write_text('{"text": "two"}\n')
    assert material_of(facts, settings(general=[str(path)]), tmp_path).general_id != own.general_id


def test_facts_and_library_are_written_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def collect(path: Path, fraction: float) -> None:
        calls.append(fraction)
        (path / "train").mkdir(parents=True)

    monkeypatch.setattr(standard_library, "collect", collect)
    facts = find_facts("made", settings(made=30), tmp_path)
    material = material_of(facts, settings(), tmp_path)
    (tmp_path / f".{facts.folder.name}.partial").mkdir()
    make(facts, material, tmp_path)
    make(facts, material, tmp_path)
    assert (facts.folder / "relations.json").is_file() and calls == [knowledge_texts.HELD_OUT]
    assert comparison_material.HELD_OUT == knowledge_texts.HELD_OUT
    assert comparison_material.STANDARD_LIBRARY == knowledge_texts.STANDARD_LIBRARY
    assert not list(tmp_path.glob(".*"))
