"""The whole examination: groups apart, wordings apart, one verdict where it matters."""

from typing import Any

import numpy as np
import pytest

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.dataset.fact_split import split_facts
from lichen.evaluation.fact_groups import fact_groups
from lichen.evaluation.health import Reading
from lichen.evaluation.intervals import NOTHING
from lichen.evaluation.knowledge import examine

SETTINGS = KnowledgeEvaluation(questions=60, battery_questions=40, edits=15)


@pytest.fixture(scope="module")
def groups(small):
    facts = small.world(subjects=80)
    return fact_groups(split_facts(facts, small.RELATIONS), small.world(subjects=30, seed=9))


@pytest.fixture
def run(small, groups):
    def run(kind, settings=SETTINGS, memory=True):
        model = kind([*groups[-1].bank, *groups[0].bank])
        return examine(model, model if memory else None, groups, small.RELATIONS, settings)

    return run


def test_a_reader_knows_every_group_and_follows(small, groups, run):
    found = run(small.Reader)
    assert [group.name for group in found.groups] == ["seen", "bank only", "added", "collisions"]
    for group in found.groups:
        assert {(scored.task, scored.wording) for scored in group.scores} == {
            (task, wording) for task in SETTINGS.tasks for wording in ("trained", "unseen")
        }
        for scored in group.scores:
            assert scored.model.chosen.value == 1 and scored.model.written.value == 1
            assert scored.n == len(scored.facts) == len(scored.marks.chosen) <= 60
        assert group.battery is not None and group.battery.verdict.follows
        assert group.editing is not None and group.editing.efficacy.value == 1
    assert found.verdict is not None and found.verdict.follows


def test_yardsticks_are_asked_the_same_questions(small, run):
    for group in run(small.Reader).groups:
        for scored in group.scores:
            assert list(scored.yardsticks) == ["tf-idf + copy", "majority", "subject only"]
            assert all(shares.chosen.n == scored.n for shares in scored.yardsticks.values())
            if scored.task == "object":  # five facts for a subject: the subject alone is not enough
                assert scored.yardsticks["subject only"].written.value < 0.5


def test_a_decorative_memory_is_called_so(small, run):
    found = run(small.Decorative)
    assert found.verdict is not None and found.verdict.word == "decorative"


def test_facts_that_weights_may_know_do_not_enter_the_verdict(small, groups, run):
    class Trained(small.Reader):
        """Knows by heart what stood in text, whatever the bank says."""

        def answer(self, prompt):
            keys = self.asked.get(prompt, [])
            known = [fact.object for fact in groups[0].facts if (fact.subject, fact.relation) in keys]
            return known[0] if known else super().answer(prompt)

    settings = SETTINGS.model_copy(update={"groups": ("seen", "bank only", "added")})
    found = run(Trained, settings)
    assert found.groups[0].battery.verdict.word == "decorative"
    assert found.verdict is not None and found.verdict.word == "follows"


def test_the_memory_is_watched_on_each_groups_own_prompts(small, groups):
    seen: dict[str, Any] = {}

    class Watching:
        training = None

        def reading(self, prompts):
            seen[str(len(seen))] = {fact.subject for fact in model.held}, list(prompts)
            return Reading(len(prompts), NOTHING, 0.0, len(model.held), 0, 0.0, NOTHING)

    model = small.Reader([*groups[-1].bank, *groups[0].bank])
    settings = SETTINGS.model_copy(update={"battery_questions": 0, "edits": 0})
    found = examine(model, model, groups, small.RELATIONS, settings, watcher=Watching())
    assert found.health is not None and list(found.health.reading) == [group.name for group in groups]
    for group, (held, prompts) in zip(groups, seen.values(), strict=True):
        assert found.health.reading[group.name].entries == len(group.bank)
        assert held == {fact.subject for fact in group.bank}
        assert prompts and all(any(fact.subject in prompt for fact in group.facts) for prompt in prompts)


@pytest.mark.parametrize(
    ("groups_asked", "whose"), [(("seen", "added"), "added"), (("seen", "bank only"), "bank only")]
)
def test_two_hops_are_asked_in_the_bank_of_one_group(small, run, groups_asked, whose):
    settings = SETTINGS.model_copy(
        update={"groups": groups_asked, "tasks": ("object",), "battery_questions": 0, "edits": 0}
    )
    found = run(small.Reader, settings)
    assert found.two_hop is not None and found.two_hop.group == whose
    assert run(small.Reader, settings.model_copy(update={"two_hop_questions": 0})).two_hop is None


def test_a_model_without_a_bank_is_asked_and_not_judged(small, run):
    settings = SETTINGS.model_copy(update={"groups": ("added",)})
    found = run(small.Reader, settings, memory=False)
    assert found.verdict is None and all(group.battery is None and group.editing is None for group in found.groups)
    assert found.groups[0].scores[0].model.written.value > 0.5


def test_only_what_is_wanted_is_done(small, run):
    settings = KnowledgeEvaluation(
        groups=("added",), tasks=("object",), wordings=("unseen",), generate=False, battery_questions=0, edits=5
    )
    [group] = run(small.Reader, settings).groups
    assert group.name == "added" and [(s.task, s.wording) for s in group.scores] == [("object", "unseen")]
    assert group.scores[0].model.written.n == 0 and group.battery is None and group.editing is None


def test_the_same_seed_gives_the_same_marks(small, run):
    first, second = run(small.SubjectReader), run(small.SubjectReader)
    for one, other in zip(first.groups, second.groups, strict=True):
        for a, b in zip(one.scores, other.scores, strict=True):
            assert a.facts == b.facts and np.array_equal(a.marks.chosen, b.marks.chosen)
