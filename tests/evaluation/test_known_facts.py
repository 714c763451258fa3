"""What is known of facts: several answers, likeness of relations, and a choice that pays nobody for guessing."""

from collections import Counter

from lichen.dataset.facts import Fact, made_fact
from lichen.evaluation.known_facts import KnownFacts, balanced


def test_answers_are_all_that_hold_each_once_and_sentences_are_passed_over():
    facts = [made_fact("Ada", "child", name) for name in ("Kim", "Lou", "Kim")]
    known = KnownFacts([*facts, Fact("x", "Moss is green.")])
    assert known.accepted(facts[0]) == ("Kim", "Lou") and known.objects == {"child": ["Kim", "Lou", "Kim"]}
    assert known.accepted(made_fact("Eve", "child", "Abel")) == ("Abel",)


def test_relations_that_have_the_object_are_nearer_than_those_of_the_subject_and_of_like_ones(small):
    facts = [
        made_fact("Ada", "born in", "Rome"),
        made_fact("Ada", "works as", "poet"),
        made_fact("Bob", "died in", "Rome"),
        made_fact("Bob", "born in", "Oslo"),
        made_fact("Cid", "eats", "moss"),
    ]
    known = KnownFacts(facts)
    order = sorted(("works as", "eats", "died in"), key=lambda label: known.rank(facts[0], label))
    assert order == ["died in", "works as", "eats"]


def test_popular_answers_do_not_pay_when_few_facts_are_chosen():
    facts = [made_fact(f"S{n}", "continent", "Antarctica" if n >= 60 else f"C{n % 20}") for n in range(300)]
    chosen = balanced(facts, 80, seed=1)
    assert Counter(fact.object for fact in chosen).most_common(1)[0][1] <= 20
    assert len({fact.id for fact in chosen}) == 80 and balanced(facts, 80, seed=1) == chosen
