"""Yardsticks: strong where the world is easy, and at chance in a world made so that they must be."""

import pytest

from lichen.dataset.facts import made_fact
from lichen.evaluation.knowledge_questions import TASKS, QuestionMaker
from lichen.evaluation.knowledge_tasks import marks
from lichen.evaluation.yardsticks import Majority, SubjectOnly, TfIdfCopy, yardsticks


def reached(yardstick, questions):
    found = marks(questions, yardstick.reply(questions))
    assert found.written is not None
    return found.chosen.mean(), found.written.mean()


@pytest.fixture(scope="module")
def colliding(small):
    facts = small.world(subjects=120)
    maker = QuestionMaker(small.RELATIONS, facts, seed=0)
    return facts, {task: maker.make(task, facts, "trained").questions for task in TASKS}


@pytest.fixture(scope="module")
def easy(small):
    facts = small.world(subjects=200, per_subject=1)
    return facts, QuestionMaker(small.RELATIONS, facts, seed=0).make("object", facts, "trained").questions


def test_the_subject_alone_is_enough_where_it_has_one_fact(easy):
    facts, questions = easy
    assert reached(SubjectOnly(facts, 0), questions) == (1, 1)


def test_the_subject_alone_is_a_fifth_where_it_has_five_facts(colliding):
    facts, questions = colliding
    chosen, written = reached(SubjectOnly(facts, 0), questions["object"])
    assert written == pytest.approx(0.24, abs=0.05)  # two of the five relations share their objects
    assert chosen == pytest.approx(0.2 + 0.8 * 0.25, abs=0.06)
    assert reached(SubjectOnly(facts, 0), questions["relation"])[1] == 0  # says it of every relation


def test_the_longest_subject_is_found_as_whole_words():
    bank = [made_fact("York", "r", "1"), made_fact("New York", "r", "2"), made_fact("诗人", "r", "3")]
    key = SubjectOnly(bank, 0)
    entries = [
        key.entry(prompt) for prompt in ("in New York there", "York is", "Yorkshire is", "大诗人出生于", "nobody")
    ]
    assert [entry.object if entry else None for entry in entries] == ["2", "1", None, "3", None]


def test_the_majority_is_the_share_of_the_commonest_object(small):
    objects = ["Rome"] * 60 + ["Oslo", "Bonn", "Lyon", "Bern"] * 10
    facts = [made_fact(f"Person {n} Smith", "home town", object) for n, object in enumerate(objects)]
    questions = QuestionMaker(small.RELATIONS, facts, seed=0).make("object", facts, "trained").questions
    chosen, written = reached(Majority(facts, 0), questions)
    assert written == pytest.approx(0.6) and chosen >= 0.6


def test_copying_from_the_nearest_words_needs_words_in_common(small, easy):
    facts, questions = easy
    assert reached(TfIdfCopy(facts, 0, small.word_search(facts)), questions)[1] > 0.95
    other = [made_fact("Somebody Else", fact.relation, fact.object) for fact in facts]
    assert reached(TfIdfCopy(other, 0, small.word_search(other)), questions)[1] < 0.4


def test_who_knows_nothing_guesses_and_writes_nothing(small, colliding):
    _, questions = colliding
    for yardstick in yardsticks([], 0, search=lambda queries, k: [[] for _ in queries]):
        for task, chance in (("object", 0.25), ("relation", 0.25), ("verification", 0.5)):
            chosen, _ = reached(yardstick, questions[task])
            assert chosen == pytest.approx(chance, abs=0.06)


def test_yardsticks_answer_the_same_twice(small, colliding):
    facts, questions = colliding
    for task in TASKS:
        first, second = (
            [yardstick.reply(questions[task][:40]) for yardstick in yardsticks(facts, 1, small.word_search(facts))]
            for _ in range(2)
        )
        assert first == second
