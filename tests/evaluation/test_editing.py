"""Edits: what they must change and what they must leave, each shown to be able to fail."""

from contextlib import contextmanager

import pytest

from lichen.evaluation.editing import plan_edits, run_editing
from lichen.evaluation.interventions import exchanged
from lichen.evaluation.knowledge_questions import QuestionMaker


@pytest.fixture(scope="module")
def facts(small):
    return small.world()


@pytest.fixture(scope="module")
def edits(small, facts):
    maker = QuestionMaker(small.RELATIONS, facts, seed=0, swapped=exchanged(facts, 0))
    return plan_edits(maker, facts, facts, most=30)


def edit(model, bank, edits):
    return run_editing(model, model, bank, edits)


def values(found):
    names = ("efficacy", "paraphrase", "likelier", "same_subject", "same_relation", "rollback")
    return {name: getattr(found, name).value for name in names}


def test_a_plan_edits_each_subject_once_and_asks_around_it(facts, edits):
    assert len(edits) == 30 == len({edit.fact.subject for edit in edits})
    edited = {(edit.fact.subject, edit.fact.relation) for edit in edits}
    for edit in edits:
        assert edit.object != edit.fact.object and edit.paraphrase != edit.direct
        kinds = [kind for kind, _ in edit.neighbours]
        assert kinds.count("same subject") == 3 and kinds.count("same relation") == 2
        assert not {prompt for _, prompt in edit.neighbours} & {other.direct for other in edits}
    assert len(edited) == 30


def test_a_reader_changes_what_was_edited_and_nothing_else(small, facts, edits):
    found = edit(small.Reader(facts), facts, edits)
    assert found.edits == 30 and found.before.value == 1
    assert set(values(found).values()) == {1.0} and found.locality.n >= found.same_subject.n == 90


def test_a_decorative_memory_changes_nothing(small, facts, edits):
    found = edit(small.Decorative(facts), facts, edits)
    assert found.efficacy.value == found.paraphrase.value == found.likelier.value == 0
    assert found.locality.value == found.rollback.value == 1


def test_reading_by_subject_alone_changes_answers_about_other_relations(small, facts):
    # the edited entry is the one such a reader finds for everything about its subject
    firsts = [fact for fact in facts if fact.id.endswith("-0")]
    maker = QuestionMaker(small.RELATIONS, facts, seed=0, swapped=exchanged(facts, 0))
    found = edit(small.SubjectReader(facts), facts, plan_edits(maker, firsts, facts, most=30))
    assert found.efficacy.value == 1 and found.same_subject.value < 0.1 and found.same_relation.value > 0.4


def test_wording_that_is_not_understood_shows_in_the_paraphrase_alone(small, facts, edits):
    class Literal(small.Reader):
        def answer(self, prompt):
            return self.fallback if prompt in {edit.paraphrase for edit in edits} else super().answer(prompt)

    found = edit(Literal(facts), facts, edits)
    assert found.efficacy.value == 1 and found.paraphrase.value == 0


def test_a_memory_that_keeps_edits_fails_the_rollback(small, facts, edits):
    class Sticky(small.Reader):
        @contextmanager
        def with_facts(self, held):
            self.held = list(held) if held is not facts or self.held == facts else self.held
            yield

    assert edit(Sticky(facts), facts, edits).rollback.value < 0.9


def test_facts_with_several_objects_or_outside_the_bank_are_not_edited(small, facts):
    from lichen.dataset.facts import made_fact

    twice = made_fact(facts[0].subject, facts[0].relation, "Atlantis")
    outside = made_fact("Person 0 Smith", "shoe size", "43")
    bank = [*facts, twice]
    maker = QuestionMaker(small.RELATIONS, bank, seed=0, swapped=exchanged(bank, 0))
    assert not plan_edits(maker, [facts[0], twice, outside], bank, most=5)
    found = edit(small.Reader(bank), bank, [])
    assert found.edits == 0 and found.efficacy.n == 0
