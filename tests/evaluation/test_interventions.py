"""Other banks: what was to change has changed, nothing else, and every question is asked once."""

from collections import Counter

import pytest

from lichen.dataset.facts import Fact, made_fact
from lichen.evaluation.interventions import NAMES, banks, exchanged, from_anywhere, shown, subjects_apart, with_object
from lichen.evaluation.knowledge_questions import QuestionMaker


@pytest.fixture(scope="module")
def asked(small):
    facts = small.world()
    swapped = exchanged(facts, 0)
    return (
        facts,
        swapped,
        QuestionMaker(small.RELATIONS, facts, seed=0).make("object", facts[:100], "trained").questions,
    )


def changed(before, after):
    return {a.id for a, b in zip(before, after, strict=True) if a != b}


def test_exchanging_is_a_permutation_within_each_relation_that_leaves_nobody_his_own(small):
    facts = small.world()
    swapped = exchanged(facts, 5)
    for label in small.LABELS:
        own = [fact for fact in facts if fact.relation == label]
        assert Counter(swapped[fact.id] for fact in own) == Counter(fact.object for fact in own)
        assert all(swapped[fact.id] != fact.object for fact in own)
    assert swapped == exchanged(facts, 5) != exchanged(facts, 6)


@pytest.mark.parametrize(("popular", "others", "kept"), [(5, 5, 0), (7, 3, 4), (9, 1, 8), (3, 0, 3), (1, 0, 1)])
def test_a_majority_keeps_no_more_than_it_must(popular, others, kept):
    objects = ["Antarctica"] * popular + [f"C{n % 2}" for n in range(others)]
    facts = [made_fact(f"S{n}", "continent", object) for n, object in enumerate(objects)]
    swapped = exchanged(facts, 0)
    assert sum(swapped[fact.id] == fact.object for fact in facts) == kept


def test_each_intervention_changes_what_it_says(asked):
    facts, swapped, questions = asked
    of = {name: banks(name, facts, questions, swapped, seed=0) for name in NAMES}
    for held in of.values():
        assert sorted(number for bank in held for number in bank.asked) == list(range(len(questions)))
    assert of["normal"][0].facts == facts and of["emptied"][0].facts == []
    assert changed(facts, of["permuted"][0].facts) == {fact.id for fact in facts}
    assert changed(facts, of["counterfactual"][0].facts) == {question.fact.id for question in questions}
    assert {f.id for f in facts} - {f.id for f in of["absent"][0].facts} == {q.fact.id for q in questions}
    for before, after in zip(facts, of["random"][0].facts, strict=True):
        assert after.object != before.object and after.relation == before.relation


def test_oracle_banks_are_small_and_hold_a_subject_once(asked):
    facts, swapped, questions = asked
    for bank in banks("oracle", facts, questions, swapped, seed=0):
        subjects = [fact.subject for fact in bank.facts]
        assert len(subjects) == len(set(subjects)) <= 16
        assert [questions[number].fact for number in bank.asked] == list(bank.facts)
    parts = subjects_apart(questions, 16)
    assert len(parts) <= 12  # as full as subjects allow


def test_texts_are_changed_with_the_object_or_made_anew():
    plain = Fact("1", "Ada was born in London.", "Ada", "home town", "London")
    unclear = Fact("2", "London, London!", "Ada", "home town", "London")
    silent = Fact("3", "Ada is from there.", "Ada", "home town", "London")
    assert with_object(plain, "Paris").text == "Ada was born in Paris."
    for fact in (unclear, silent):
        after = with_object(fact, "Paris")
        assert (after.object, after.id) == ("Paris", fact.id) and "Paris" in after.text and "London" not in after.text
    assert with_object(plain, "London") is plain


def test_all_objects_of_a_subject_and_relation_are_shown(asked):
    facts, _, questions = asked
    more = made_fact(questions[0].fact.subject, questions[0].fact.relation, "Atlantis")
    assert set(shown([*facts, more], questions)[0]) == {questions[0].fact.object, "Atlantis"}
    assert shown([], questions) == [()] * len(questions)


def test_objects_from_anywhere_are_of_other_relations():
    facts = [made_fact(f"S{n}", f"relation {n % 3}", f"object {n % 3}-{n}") for n in range(30)]
    other = from_anywhere(facts, 0)
    assert all(other[fact.id][7] != fact.relation[-1] for fact in facts)


def test_objects_from_anywhere_end_where_there_is_one_relation_only():
    facts = [made_fact(f"S{n}", "continent", "Asia") for n in range(3)]
    assert set(from_anywhere(facts, 0)) == {fact.id for fact in facts}
