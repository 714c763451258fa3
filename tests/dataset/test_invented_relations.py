"""Relations that do not exist share words with their sentences, and differ from each other."""

from lichen.dataset.fact_split import companions, split_facts
from lichen.dataset.facts import made_fact
from lichen.dataset.invented_relations import frequent_words, invented_relations
from lichen.dataset.relations import Relation, render

WORDS = [f"{a}{b}ing" for a in "bcdfghklmn" for b in ("ar", "el", "in", "or")]


def test_every_sentence_shares_a_word_with_its_label():
    for label, relation in invented_relations(WORDS, 200, seed=0).items():
        for pattern in relation.patterns:
            assert set(label.split()) & set(render(pattern, "X", "Y").replace(",", "").split())


def test_they_are_a_function_of_words_number_and_seed():
    assert invented_relations(WORDS, 20, seed=1) == invented_relations(WORDS, 20, seed=1)
    assert invented_relations(WORDS, 20, seed=1) != invented_relations(WORDS, 20, seed=2)
    assert len(invented_relations(WORDS, 100, seed=0)) == 100
    assert len(invented_relations(["one"], 5, seed=0)) == 1


def test_the_commonest_words_are_left_out():
    text = " ".join(f"word{chr(97 + n // 26)}{chr(97 + n % 26)} " * (300 - n) for n in range(200))
    words = frequent_words([text])
    assert "wordaa" not in words
    assert len(words) == 100


def test_invented_facts_have_real_subjects_and_objects():
    relation = Relation("", "birth", ("[X] was born in [Y].", "[X] is from [Y]."))
    facts = [made_fact(f"Person {n}", "birth", f"Town {n % 5}") for n in range(60)]
    split = split_facts(facts, {"birth": relation})
    made = invented_relations(WORDS, 30, seed=0)
    found = companions(split, {"birth": relation}, 1.0, 2, 0, invented=made)
    told = {fact.subject for fact in split.told}
    assert found
    assert all(fact.relation in made and fact.subject in told and fact.object.startswith("Town") for fact in found)
