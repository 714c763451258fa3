"""The verdict can go every way, and says what it rests on."""

import numpy as np
import pytest

from lichen.dataset.facts import made_fact
from lichen.evaluation.causality import pooled, run_battery, verdict
from lichen.evaluation.interventions import exchanged
from lichen.evaluation.knowledge_questions import QuestionMaker


@pytest.fixture(scope="module")
def facts(small):
    return small.world()


@pytest.fixture(scope="module")
def questions(small, facts):
    return QuestionMaker(small.RELATIONS, facts, seed=0, swapped=exchanged(facts, 0)).make(
        "object", facts[:120], "trained"
    )


@pytest.fixture
def run(facts, questions):
    def run(model, bank=facts, asked=questions.questions, **more):
        return run_battery(model, model, bank, asked, exchanged(bank, 0), seed=0, **more)

    return run


def shares(battery, name):
    row = next(row for row in battery.rows if row.name == name)
    return {
        field: None if getattr(row, field).n == 0 else round(getattr(row, field).value, 3)
        for field in ("chosen", "written", "chosen_shown", "written_shown")
    }


def test_a_reader_follows_every_bank(small, facts, run):
    battery = run(small.Reader(facts))
    everything = {"chosen": 1, "written": 1, "chosen_shown": 1, "written_shown": 1}
    assert shares(battery, "normal") == shares(battery, "oracle") == everything
    for name in ("permuted", "counterfactual"):
        assert shares(battery, name) == {"chosen": 0, "written": 0, "chosen_shown": 1, "written_shown": 1}
    assert shares(battery, "random")["written"] == 0 and shares(battery, "random")["written_shown"] == 1
    for name in ("emptied", "absent"):
        assert shares(battery, name)["written"] == 0 and shares(battery, name)["written_shown"] is None
    assert battery.verdict.word == "follows" and battery.verdict.follows
    assert battery.verdict.difference.low > 0.9 and "n 120" in battery.verdict.sentence


def test_a_memory_that_changes_nothing_is_decorative_however_good_the_answers(small, facts, run):
    battery = run(small.Decorative(facts))
    assert shares(battery, "permuted")["written"] == 1 and shares(battery, "permuted")["written_shown"] == 0
    assert battery.verdict.word == "decorative" and "decorative" in battery.verdict.sentence


def test_a_model_that_knows_nothing_is_decorative_too(small, facts, run):
    silent = small.Reader([])
    silent.asked = {}
    assert run(silent).verdict.word == "decorative"


def test_weights_that_answer_as_well_are_told(small, facts, run):
    battery = run(small.HalfByHeart(facts))
    assert battery.verdict.word == "in part" and not battery.verdict.follows
    assert battery.verdict.permuted.value == pytest.approx(0.5, abs=0.02)


def test_without_generation_the_options_decide(small, facts, run):
    model = small.Reader(facts)
    battery = run(model, generate=False)
    assert not model.calls and battery.verdict.word == "follows"
    assert shares(battery, "normal")["written"] is None
    assert run(small.Decorative(facts), generate=False).verdict.word == "decorative"


def test_coincidence_is_not_held_against_a_reader(small):
    # seven of ten live on one continent: most of them can not but keep it
    objects = [("Antarctica" if n % 10 < 7 else small.CITIES[n % 4]) for n in range(200)]
    bank = [made_fact(f"Person {n} Smith", "home town", object, id=str(n)) for n, object in enumerate(objects)]
    asked = QuestionMaker(small.RELATIONS, bank, seed=0, swapped=exchanged(bank, 0)).make("object", bank, "trained")
    model = small.Reader(bank)
    battery = run_battery(model, model, bank, asked.questions, exchanged(bank, 0), seed=0)
    assert battery.verdict.coincidence.value == battery.verdict.permuted.value == pytest.approx(0.4)
    assert battery.verdict.word == "follows"
    row = next(row for row in battery.rows if row.name == "counterfactual")
    assert row.written_shown.n == 120 and row.written_shown.value == 1  # who keeps his own tells nothing


@pytest.mark.parametrize(
    ("normal", "permuted", "coincident", "word"),
    [(95, 5, 4, "follows"), (95, 7, 4, "in part"), (95, 94, 4, "decorative"), (5, 95, 0, "decorative")],
)
def test_the_rule_has_two_conditions(normal, permuted, coincident, word):
    def first(count):
        return np.arange(100) < count

    assert verdict(first(normal), first(permuted), first(coincident)).word == word


def test_few_questions_do_not_make_a_verdict_of_luck():
    assert verdict(np.array([1, 0, 1, 0], bool), np.array([0, 1, 0, 0], bool), np.zeros(4, bool)).word == "decorative"


def test_hits_and_false_reads_come_from_what_is_read(small, facts, run):
    battery = run(small.ShowingReader(facts))
    assert battery.reading.hits_of_right.value == 1 and battery.reading.hits_of_wrong.n == 0
    assert battery.reading.false_reads.value == battery.reading.above_null.value == 0
    eager = small.ShowingReader(facts)
    eager.eager = True
    battery = run(eager)
    assert battery.reading.false_reads.value == battery.reading.above_null.value == 1


def test_a_reader_of_the_wrong_entry_is_told_by_its_hits(small, facts, run):
    class Beside(small.ShowingReader):
        def find(self, prompt):
            found = super().find(prompt)
            return None if found is None else (found + 1) % len(self.held)

    battery = run(Beside(facts))
    assert battery.reading.hits_of_wrong.n > 60 and battery.reading.hits_of_wrong.value == 0


def test_without_reads_copying_from_near_entries_counts_where_the_emptied_bank_says_otherwise(
    small, facts, questions, run
):
    def nearest(bank, prompts):
        found = small.word_search(bank)(prompts, 4)
        return [[bank[number] for number, _ in row] for row in found]

    asked = [question for question in questions.questions if question.fact.id.endswith("-0")]
    assert run(small.Reader(facts), nearest=nearest).reading.false_reads.value == 0
    assert run(small.SubjectReader(facts), asked=asked, nearest=nearest).reading.false_reads.value > 0.5
    assert run(small.Decorative(facts), nearest=nearest).reading.false_reads.value == 0  # not the bank's doing
    assert run(small.Reader(facts)).reading.false_reads.n == 0  # nothing known, nothing said


def test_groups_are_judged_together_by_their_questions(small, facts, run):
    reader, decorative = run(small.Reader(facts)), run(small.Decorative(facts))
    assert pooled([reader, reader]).word == "follows" and pooled([reader, reader]).difference.n == 240
    assert pooled([reader, decorative]).word == "in part"


def test_the_bank_is_back_afterwards(small, facts, run):
    model = small.Reader(facts)
    run(model)
    assert model.held == facts
