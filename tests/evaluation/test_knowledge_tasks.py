"""Asking: every prompt once, long answers whole, ties no gift."""

from dataclasses import replace

import numpy as np
import pytest

from lichen.evaluation.knowledge_questions import TASKS, QuestionMaker
from lichen.evaluation.knowledge_tasks import ask, marks, scored


@pytest.fixture(scope="module")
def facts(small):
    return small.world()


@pytest.fixture(scope="module")
def questions(small, facts):
    maker = QuestionMaker(small.RELATIONS, facts, seed=0)
    return {task: maker.make(task, facts, "trained").questions for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_who_knows_everything_has_everything_right(small, facts, questions, task):
    found = marks(questions[task], ask(small.Reader(facts), questions[task]))
    assert found.chosen.all() and found.written is not None and found.written.all()


@pytest.mark.parametrize(
    ("task", "options", "written"), [("object", 0.25, 0), ("relation", 0.25, 0), ("verification", 0.5, 0.5)]
)
def test_who_knows_nothing_is_right_by_chance(small, facts, questions, task, options, written):
    nobody = small.Reader(facts)
    nobody.held = []
    found = marks(questions[task], ask(nobody, questions[task]))
    assert found.chosen.mean() == pytest.approx(options, abs=0.02)  # all options tie: places are balanced
    assert found.written is not None and found.written.mean() == pytest.approx(written, abs=0.02)


def test_prompts_are_generated_once_for_all_tasks(small, facts, questions):
    class Counting(small.Reader):
        asked_for = ()

        def generate(self, prompts, max_new_tokens, settled=None):
            self.asked_for = prompts
            return super().generate(prompts, max_new_tokens, settled)

    model = Counting(facts)
    ask(model, [question for task in TASKS for question in questions[task]])
    assert len(model.asked_for) == len(set(model.asked_for)) > len(facts)


def test_an_answer_gets_the_tokens_it_needs(small, facts, questions):
    model = small.Reader(facts)
    ask(model, questions["object"], answer_tokens=1)
    ask(model, [replace(questions["object"][0], accepted=("a b c d e f g h i j",))])
    assert model.calls == [4, 12]  # an article, "New York" and a border; an article, ten words and a border


def test_answers_can_be_held_against_other_objects(small, facts, questions):
    asked = questions["object"][:4]
    replies = ask(small.Reader(facts), asked)
    other = [(question.objects[(question.right + 1) % 4],) for question in asked]
    found = marks(asked, replies, other)
    assert not found.chosen.any() and found.written is not None and not found.written.any()


def test_nothing_asked_is_nothing_found(small, facts):
    found = marks([], ask(small.Reader(facts), []))
    assert len(found.chosen) == 0 and scored(found.written).n == 0 and scored(None).n == 0
    assert scored(np.array([True, False])).n == 2


def test_a_text_is_settled_only_when_no_going_on_can_change_the_mark(questions):
    from lichen.evaluation.knowledge_tasks import settled_for

    [question] = [replace(questions["object"][0], objects=("York", "New York", "Oslo", "Rome"), accepted=("York",))]
    settled = settled_for([question])
    for text, done in {
        "": False,
        " ": False,
        " Yo": False,
        " York": False,
        " the": False,
        " the York": False,
        " Yorkshire": True,
    }.items():
        assert settled(question.prompts[0], text) is done
    for text in (" York.", " York and", " Newer", " the York."):
        assert settled(question.prompts[0], text)
        for more in ("", " York", "shire", ". York"):
            assert question.is_answered_by([text + more]) == question.is_answered_by([text])
