"""Groups: every fact in one, asked with the bank of its time, and collisions with one answer each."""

import json

import pytest

from lichen.config.errors import UsageError
from lichen.config.prepare import FactTextsConfig
from lichen.dataset.fact_split import part_of, split_facts
from lichen.dataset.fact_texts import write_fact_texts
from lichen.dataset.facts import made_fact
from lichen.evaluation.fact_groups import fact_groups, read_material


def by_name(groups):
    return {group.name: group for group in groups}


def test_facts_are_where_their_part_says_and_banks_grow(small):
    facts = small.world()
    held_out = [made_fact(f"Person {n} Smith", "work location", "Bonn") for n in range(5)]
    relations = {**small.RELATIONS, "work location": small.RELATIONS["employer"]}
    groups = by_name(fact_groups(split_facts([*facts, *held_out], relations)))
    assert list(groups) == ["seen", "bank only", "added", "unseen relations"]
    assert all(part_of(fact.id) < 6 for fact in groups["seen"].facts) and groups["seen"].in_text
    assert {part_of(fact.id) for fact in groups["bank only"].facts} <= {6, 7} and not groups["bank only"].in_text
    assert sum(len(group.facts) for group in groups.values()) == len(facts) + 5
    assert not set(groups["seen"].bank) & set(groups["added"].facts)
    assert set(groups["added"].bank) == set(facts)
    assert set(groups["unseen relations"].bank) == {*facts, *held_out}
    assert groups["unseen relations"].any_wording == {"work location"}


def test_collisions_displace_what_else_is_said_of_the_same(small):
    facts = small.world()
    invented = [made_fact(facts[0].subject, facts[0].relation, "Atlantis"), made_fact("Nobody", "employer", "Acme")]
    group = fact_groups(split_facts(facts, small.RELATIONS), invented)[-1]
    assert group.name == "collisions" and group.set_aside == 1 and facts[0] not in group.bank
    assert set(invented) <= set(group.bank) and len(group.bank) == len(facts) - 1 + 2


@pytest.fixture
def folder(tmp_path, small):
    """Facts by relation, as T-REx has them."""
    for id, label in (("P20", "place of death"), ("P106", "occupation"), ("P19", "home town")):
        rows = [
            {"uuid": f"{id}-{n}", "subject": f"Person {n}", "predicate": id, "object": small.OBJECTS[label][n % 5]}
            for n in range(40)
        ]
        (tmp_path / f"{id}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / f"{id}.patterns.json").write_text(json.dumps(small.PATTERNS[label]), encoding="utf-8")
    row = {"uuid": "made", "subject": "Person 1", "predicate": "P20", "object": "Atlantis", "made": True}
    (tmp_path / "collisions.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


def test_relation_files_are_read_with_their_patterns_and_collisions(folder, small):
    material = read_material(folder)
    assert {fact.relation for fact in material.split.unseen_relations} == {"place of birth"}
    assert len(material.split.unseen_relations) == 40  # P19 is left out of training
    assert material.relations["occupation"].patterns == small.PATTERNS["occupation"]
    assert [fact.object for fact in material.collisions] == ["Atlantis"] and len(material.split.bank) < 80
    assert len(read_material(folder, limit=10).split.told) == 10


def test_the_folder_of_training_texts_gives_exactly_what_was_told(folder, tmp_path):
    material = read_material(folder)
    config = FactTextsConfig(kind="trex", limit=20)
    facts = [
        fact for name in ("told", "bank_only", "added", "unseen_relations") for fact in getattr(material.split, name)
    ]
    write_fact_texts(tmp_path / "texts", facts, material.relations, config=config)
    again = read_material(tmp_path / "texts", collisions=folder / "collisions.jsonl")
    assert len(again.split.told) == 20 and again.relations == material.relations and len(again.collisions) == 1
    assert again.split == split_facts(facts, material.relations, 20)


def test_what_is_not_there_is_said(folder, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_material(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no such file"):
        read_material(folder, collisions=tmp_path / "nowhere.jsonl")
