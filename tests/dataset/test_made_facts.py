"""Made facts are many, distinct, tellable, and the same every time."""

from lichen.config.knowledge import BankConfig
from lichen.dataset.bank_building import build_bank
from lichen.dataset.made_facts import RELATIONS, made_facts, write_world


def test_a_person_has_three_facts_of_different_relations_and_no_fact_comes_twice():
    facts = made_facts(3000)
    assert len(facts) == len({fact.id for fact in facts}) == 3000
    by_person: dict[str, set[str]] = {}
    for fact in facts:
        by_person.setdefault(fact.subject, set()).add(fact.relation)
    assert all(len(relations) == 3 for relations in by_person.values())


def test_no_object_is_common_enough_to_be_a_good_guess():
    facts = made_facts(3000)
    for relation in RELATIONS:
        objects = [fact.object for fact in facts if fact.relation == relation]
        assert max(objects.count(one) for one in set(objects)) < 0.15 * len(objects)


def test_a_world_is_read_back_with_its_sentences(tmp_path):
    write_world(tmp_path / "world", 60, seed=3)
    built = build_bank([tmp_path / "world"], tmp_path / "bank", BankConfig())
    assert {fact.id for fact in built.bank.facts} == {fact.id for fact in made_facts(60, seed=3)}
    assert all(len(relation.patterns) == 4 for relation in built.bank.relations.values())
