"""Which facts go where: by id alone, held-out relations nowhere, and inventions that contradict nothing."""

from collections import defaultdict

import pytest

from lichen.dataset.fact_split import (
    ADDED,
    BANK_ONLY,
    HELD_OUT_RELATIONS,
    TOLD,
    FactSplit,
    companions,
    part_of,
    split_facts,
    told_patterns,
)
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.relations import Relation, label_of

TWO = ("[X] has [Y].", "[Y] of [X].", "last [X] [Y].")
RELATIONS = {
    label_of(id): Relation(id, label_of(id), TWO)
    for id in ("P19", "P20", "P27", "P106", "P1303", "P17", "P30", "P407", "P495")
} | {"has part": Relation("P527", "has part"), "applies to": Relation("P1001", "applies to", ("[X] in [Y].",))}


def people(count: int, relation: str = "P106", start: int = 0) -> list[Fact]:
    label = label_of(relation)
    return [
        made_fact(f"Person {n}", label, f"{label} {n % 9}", id=f"{relation}-{n}") for n in range(start, start + count)
    ]


def test_the_place_of_a_fact_is_that_of_the_known_split() -> None:
    assert part_of("7d58f005-5166-4af7-a2e0-c960de153441") == 0
    parts = [part_of(f"id {n}") for n in range(10_000)]
    assert all(900 < parts.count(part) < 1100 for part in range(10))


def test_every_fact_goes_to_one_place() -> None:
    facts = [*people(300), *people(100, "P19"), Fact("plain", "Moss is green.")]
    facts += [made_fact(f"S {n}", "has part", "x", id=f"part {n}") for n in range(50)]
    facts += [made_fact(f"S {n}", "applies to", "x", id=f"law {n}") for n in range(50)]
    split = split_facts(facts, RELATIONS)
    assert {part_of(fact.id) for fact in split.told} == set(TOLD) == {part_of(fact.id) for fact in split.untold}
    assert {part_of(fact.id) for fact in split.bank_only} == set(BANK_ONLY)
    assert {part_of(fact.id) for fact in split.added} == set(ADDED)
    assert len(split.unseen_relations) == 100 and {f.relation for f in split.untold} == {"has part", "applies to"}
    assert {f.relation for f in split.told} == {"occupation"}  # a single pattern is the last one
    together = [*split.bank, *split.added, *split.unseen_relations]
    assert sorted(fact.id for fact in together) == sorted(fact.id for fact in facts if fact.is_triple)


@pytest.mark.parametrize("id", HELD_OUT_RELATIONS)
def test_relations_held_out_are_found_by_identifier_and_by_label(id: str) -> None:
    renamed = {"出生地": Relation(id, "出生地", TWO)}
    facts = [made_fact("杜甫", "出生地", "巩县", id="x"), made_fact("Ada", label_of(id), "London", id="y")]
    split = split_facts(facts, renamed)
    assert len(split.unseen_relations) == 2 and not split.bank and not split.added


def test_a_limit_takes_some_of_each_kind_and_more_contain_fewer() -> None:
    facts = [*people(500), *people(200, "P19")]
    whole, small, large = (split_facts(facts, RELATIONS, limit) for limit in (None, 50, 150))
    assert len(small.told) == 50 and len(large.told) == 150
    for name in ("told", "bank_only", "added", "unseen_relations"):
        some, more, all_of_it = (set(getattr(split, name)) for split in (small, large, whole))
        assert some < more < all_of_it
        assert abs(len(more) / len(all_of_it) - 150 / len(whole.told)) < 0.02
    assert split_facts(facts, RELATIONS, 10_000) == whole


def made_split() -> FactSplit:
    places = [made_fact(f"Place {n}", label_of("P17"), f"Land {n % 5}", id=f"P17-{n}") for n in range(120)]
    continents = [made_fact(f"Spot {n}", label_of("P30"), f"Continent {n % 5}", id=f"P30-{n}") for n in range(60)]
    others = [*people(120, "P20", 200), *people(120, "P27", 400), *people(60, "P1303", 40), *people(30, "P407", 900)]
    return split_facts([*people(200), *places, *continents, *others], RELATIONS)


def test_companions_suit_their_subject_and_contradict_nothing() -> None:
    split = made_split()
    found = companions(split, RELATIONS, 1.0, 2, seed=0)
    known = [*split.bank, *split.added]
    of = defaultdict(set)
    for fact in known:
        of[fact.subject].add(fact.relation)
    told, new = {fact.subject for fact in split.told}, defaultdict(list)
    for fact in found:
        new[fact.subject].append(fact.relation)
        assert fact.subject in told and fact.relation not in of[fact.subject]
        assert fact.object in {other.object for other in known if other.relation == fact.relation}
        assert fact.source == "made" and part_of(fact.id) in TOLD
    assert all(len(set(labels)) == len(labels) <= 2 for labels in new.values())
    places = {label for fact in found if not fact.subject.startswith("Person") for label in (fact.relation,)}
    assert places == {"country", "continent"}
    assert "country" not in {fact.relation for fact in found if fact.subject.startswith("Person")}
    assert len({fact.id for fact in [*found, *known]}) == len(found) + len(known)


def test_companions_are_a_share_and_leave_out_whom_they_are_told_to() -> None:
    split = made_split()
    whole = companions(split, RELATIONS, 1.0, 3, seed=0)
    subjects = {fact.subject for fact in whole}
    half = {fact.subject for fact in companions(split, RELATIONS, 0.5, 3, seed=0)}
    assert half < subjects and 0.4 < len(half) / len(subjects) < 0.6
    avoided = companions(split, RELATIONS, 1.0, 3, seed=0, avoided=list(half))
    assert {fact.subject for fact in avoided} == subjects - half
    assert companions(split, RELATIONS, 1.0, 3, seed=0) == whole != companions(split, RELATIONS, 1.0, 3, seed=1)


def test_relations_of_no_known_kind_suit_each_other_where_subjects_have_both() -> None:
    relations = {label: Relation("", label, TWO) for label in ("朝代", "别号", "面积")}
    facts = [made_fact(f"诗人{n}", "朝代", "唐" if n % 2 else "宋", id=f"a{n}") for n in range(60)]
    facts += [made_fact(f"诗人{n}", "别号", f"号{n}", id=f"b{n}") for n in range(30)]
    facts += [made_fact(f"湖{n}", "面积", f"{n}", id=f"c{n}") for n in range(60)]
    found = companions(split_facts(facts, relations), relations, 1.0, 3, seed=0)
    assert found and all(fact.subject.startswith("诗人") and fact.relation in ("朝代", "别号") for fact in found)


def test_the_last_pattern_is_never_told() -> None:
    assert told_patterns(Relation("", "a", TWO)) == TWO[:2]
    assert told_patterns(Relation("", "a", TWO[:1])) == told_patterns(Relation("", "a")) == ()
