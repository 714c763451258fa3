"""Relations that do not exist share words with their sentences, and differ from each other."""

import re

from lichen.dataset.fact_split import companions, split_facts
from lichen.dataset.facts import made_fact
from lichen.dataset.invented_relations import UNLIKE, Words, frequent_words, invented_relations, skeletons
from lichen.dataset.relations import Relation, render

WORDS = Words(
    frozenset(["the", "was", "with"]), tuple(f"{a}{b}ing" for a in "bcdfghklmn" for b in ("ar", "el", "in", "or"))
)


def test_most_sentences_share_a_word_with_their_label():
    unlike = 0
    for label, relation in invented_relations(WORDS, 400, seed=0).items():
        told = [set(re.findall(r"\w+", render(pattern, "X", "Y"))) for pattern in relation.patterns]
        unlike += not any(set(label.split()) & words for words in told)
    assert 0.5 * UNLIKE < unlike / 400 < 1.5 * UNLIKE


def test_sentences_go_on_as_those_of_real_relations_do():
    real = ["[X] maintains close relations with [Y].", "[Y] was the first of [X].", "[X] is a [Y]."]
    assert skeletons(real, WORDS.common) == ("[X] {} with [Y].",)
    forms = [pattern for found in invented_relations(WORDS, 200, 0, real).values() for pattern in found.patterns]
    assert any(re.fullmatch(r"\[X\] [a-z ]+ with \[Y\]\.", pattern) for pattern in forms)


def test_a_gap_without_a_word_of_the_label_gets_another():
    relations = invented_relations(WORDS, 200, 0, ["[X] was praised by some of [Y]", "[X] painted 3 [Y] houses."])
    assert not any("{}" in pattern for relation in relations.values() for pattern in relation.patterns)


def test_they_are_a_function_of_words_number_and_seed():
    assert invented_relations(WORDS, 20, seed=1) == invented_relations(WORDS, 20, seed=1)
    assert invented_relations(WORDS, 20, seed=1) != invented_relations(WORDS, 20, seed=2)
    assert len(invented_relations(WORDS, 100, seed=0)) == 100
    assert len(invented_relations(Words(frozenset(), ("one",)), 5, seed=0)) == 1


def test_the_commonest_words_are_left_out():
    text = " ".join(f"word{chr(97 + n // 26)}{chr(97 + n % 26)} " * (300 - n) for n in range(200))
    words = frequent_words([text])
    assert "wordaa" not in words.others
    assert "wordaa" in words.common
    assert len(words.others) == 100


def test_invented_facts_have_real_subjects_and_objects():
    relation = Relation("", "birth", ("[X] was born in [Y].", "[X] is from [Y]."))
    facts = [made_fact(f"Person {n}", "birth", f"Town {n % 5}") for n in range(60)]
    split = split_facts(facts, {"birth": relation})
    made = invented_relations(WORDS, 30, seed=0)
    found = companions(split, {"birth": relation}, 1.0, 2, 0, invented=made)
    told = {fact.subject for fact in split.told}
    assert found
    assert all(fact.relation in made and fact.subject in told and fact.object != fact.subject for fact in found)
    assert {fact.object.split()[0] for fact in found} == {"Town", "Person"}
