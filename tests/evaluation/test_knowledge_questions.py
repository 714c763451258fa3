"""Questions give nothing away, are never unfair, and are the same for the same seed."""

from collections import Counter

import pytest

from lichen.dataset.facts import made_fact
from lichen.dataset.relations import Relation
from lichen.evaluation.interventions import exchanged
from lichen.evaluation.knowledge_questions import TASKS, QuestionMaker

TASKS_IN_ORDER = ("object", "verification", "relation")


@pytest.fixture(scope="module")
def facts(small):
    return small.world()


@pytest.fixture
def make(small, facts):
    def maker(known=facts, **more):
        return QuestionMaker(small.RELATIONS, known, **{"seed": 3, "swapped": exchanged(known, 3), **more})

    return maker


@pytest.mark.parametrize("task", TASKS)
def test_every_place_is_right_equally_often_and_claims_are_half_true(make, facts, task):
    found = make().make(task, facts, "trained")
    questions = found.questions
    assert len(questions) + sum(found.excluded.values()) == len(facts) and len(questions) > 100
    places = Counter(question.right for question in questions)
    assert max(places.values()) - min(places.values()) <= 1 and len(places) == (2 if task == "verification" else 4)
    if task == "verification":
        assert abs(sum(question.claim == question.right for question in questions) - len(questions) / 2) < 1


def test_one_wrong_object_is_the_subjects_own_in_another_relation_the_others_are_of_this_one(make, facts):
    maker = make()
    for question in maker.make("object", facts, "trained").questions:
        assert question.objects[question.right] == question.fact.object and len(set(question.objects)) == 4
        own = {
            o
            for (subject, _), objects in maker.known.answers.items()
            if subject == question.fact.subject
            for o in objects
        }
        foreign = set(question.objects) - set(maker.known.objects[question.fact.relation])
        assert len(foreign) <= 1 and foreign <= own and (own - {question.fact.object}) & set(question.objects)


def test_a_city_of_the_subjects_own_is_the_wrong_city(small, make):
    kim = [made_fact("Kim", label, "Rome" if "home" in label else "Oslo") for label in small.LABELS[:2]]
    kim.append(made_fact("Kim", "occupation", "poet"))
    for question in make([*small.world(), *kim]).make("object", kim[:2], "trained").questions:
        assert {"Rome", "Oslo"} <= set(question.objects)


def test_objects_are_wrong_as_often_as_they_are_right(small):
    facts = [f for f in small.world(subjects=600, per_subject=1, seed=2) if f.relation == "employer"]
    popular = [made_fact(f"Boss {n}", "employer", "Acme") for n in range(400)]
    maker = QuestionMaker(small.RELATIONS, [*facts, *popular], seed=0)
    questions = maker.make("object", maker.choose([*facts, *popular], "trained", 100)[0], "trained").questions
    right = Counter(question.objects[question.right] for question in questions)
    wrong = Counter(o for question in questions for o in question.objects)
    assert max(right.values()) - min(right.values()) <= 1
    assert max(wrong.values()) < 1.2 * min(wrong.values())  # the popular one is not known by being offered always


def test_all_tasks_ask_about_a_fact_in_the_same_words_whatever_else_is_asked(make, facts):
    objects, claims, relations = (make().make(task, facts, "trained").questions for task in TASKS_IN_ORDER)
    words = {one.fact.id: one.prompts[0] for one in objects}
    for one, other in zip(objects, claims, strict=True):
        assert one.prompts == other.prompts and set(other.pairs) <= set(one.pairs)  # nothing to compute anew
    assert all(words[one.fact.id] == one.pairs[one.right][0] for one in relations)
    [alone] = make().make("relation", [relations[7].fact], "trained").questions
    assert set(alone.relations) == set(relations[7].relations)


def test_a_relation_is_not_asked_for_where_the_object_alone_tells_it(small, make, facts):
    found = make().make("relation", facts, "trained")
    assert {question.fact.relation for question in found.questions} == {"home town", "place of death"}
    assert found.excluded["no other relation has this object"] == sum(
        fact.relation not in ("home town", "place of death") for fact in facts
    )


def test_what_holds_as_well_is_no_wrong_option_and_a_right_answer(make, facts):
    first = facts[0]
    others = [object for object in make().known.objects[first.relation] if object != first.object]
    second = made_fact(first.subject, first.relation, others[0].upper())
    known = [*facts, second]
    for seed in range(20):
        for task in ("object", "verification"):
            [question] = make(known, seed=seed).make(task, [first], "trained").questions
            assert others[0] not in question.objects  # whatever its case
            assert set(question.accepted) == {first.object, second.object}
    [question] = make(known).make("object", [first], "trained").questions
    assert question.is_answered_by([f" {second.object} and"])


def test_the_exchanged_object_is_among_the_options_where_it_is_wrong(make, facts):
    swapped = exchanged(facts, 3)
    questions = make().make("object", facts, "trained").questions
    for question in questions:
        assert question.decoy is not None and question.objects[question.decoy] == swapped[question.fact.id]
        assert question.decoy != question.right
    assert len({question.decoy for question in questions}) == 4  # and in no place of its own


def test_wrong_relations_are_first_those_that_have_the_object(small, make, facts):
    for question in make().make("relation", facts, "trained").questions:
        if (
            question.fact.object in small.CITIES
            and question.fact.object
            not in make().known.answers[
                question.fact.subject,
                {"home town": "place of death"}.get(question.fact.relation, "home town"),
            ]
        ):
            assert {"home town", "place of death"} <= set(question.relations)
        assert len(set(question.relations)) == 4 and len(set(question.prompts)) == 4
        assert question.relations[question.right] == question.fact.relation
        assert question.fact.object not in [
            object
            for label in question.relations
            if label != question.fact.relation
            for object in make().known.answers.get((question.fact.subject, label), ())
        ]


def test_a_relation_that_holds_too_is_no_wrong_option(small, make):
    both = [made_fact("Kim", "home town", "Rome"), made_fact("Kim", "place of death", "Rome")]
    questions = make([*small.world(), *both]).make("relation", both, "trained").questions
    assert all("place of death" not in q.relations or "home town" not in q.relations for q in questions)


def test_the_same_seed_asks_the_same_and_another_does_not(make, facts):
    for task in TASKS:
        assert make().make(task, facts, "trained") == make().make(task, facts, "trained")
        assert make().make(task, facts, "trained") != make(seed=4).make(task, facts, "trained")


def test_unseen_wordings_are_the_last_ones_and_what_has_none_is_counted(make, facts):
    found = make().make("object", facts, "unseen")
    asked = {question.fact.relation: question.prompts[0] for question in found.questions}
    assert all(prompt.startswith("the profession of") for label, prompt in asked.items() if label == "occupation")
    assert len(found.questions) + sum(found.excluded.values()) == len(facts)
    trained = {question.prompts[0] for question in make().make("object", facts, "trained").questions}
    assert not trained & {question.prompts[0] for question in found.questions}


def test_a_prompt_that_another_fact_of_the_subject_could_continue_is_not_used(small, make):
    player = made_fact("Kim", "instrument", "lute")
    alone = make([*small.world(), player]).make("object", [player], "unseen")
    assert alone.questions[0].prompts == ("Kim is a",)
    both = make([*small.world(), player, made_fact("Kim", "occupation", "poet")]).make("object", [player], "unseen")
    assert not both.questions and sum(both.excluded.values()) == 1


def test_relations_without_wordings_and_plain_sentences_are_counted(small, make):
    from lichen.dataset.facts import Fact

    odd = [made_fact("Kim", "shoe size", "43"), Fact("x", "Moss is green.")]
    found = make([*small.world(), *odd]).make("object", odd, "trained")
    assert not found.questions and sum(found.excluded.values()) == 2


def test_a_relation_with_too_few_objects_is_counted(make, small):
    pets = [made_fact(f"Owner {n}", "pet", ["cat", "dog", "fox"][n % 3]) for n in range(9)]
    relations = {**small.RELATIONS, "pet": Relation("", "pet", ("[X] has a pet [Y].", "[X] feeds a [Y]."))}
    found = QuestionMaker(relations, [*small.world(), *pets], seed=0).make("object", pets, "trained")
    assert not found.questions and dict(found.excluded) == {"too few other objects": 9}


def test_a_subject_and_relation_are_asked_for_once(make, facts):
    twice = [facts[0], made_fact(facts[0].subject, facts[0].relation, "elsewhere")]
    found = make([*facts, twice[1]]).make("object", twice, "trained")
    assert len(found.questions) == 1 and sum(found.excluded.values()) == 1


def test_contexts_stand_before_every_prompt_as_running_text(make, facts):
    passages = ("It rained all day.", "苔藓生长缓慢。")
    questions = make(contexts=passages).make("object", facts[:40], "trained").questions
    starts = {next(p for p in passages if q.prompts[0].startswith(p)) for q in questions}
    assert starts == set(passages)
    assert all(q.prompts[0][len(passages[0])] == " " for q in questions if q.prompts[0].startswith(passages[0]))
    assert all(q.prompts[0][len(passages[1])] != " " for q in questions if q.prompts[0].startswith(passages[1]))


def test_chinese_facts_are_asked_without_spaces():
    born = Relation("", "出生地", ("[X]出生于[Y]。", "[X]生在[Y]。"))
    facts = [made_fact(f"诗人{n}", "出生地", city) for n, city in enumerate(["巩县", "绵州", "太原", "长安", "洛阳"])]
    [question] = QuestionMaker({"出生地": born}, facts, seed=0).make("object", facts[:1], "trained").questions
    assert question.prompts == ("诗人0出生于",) and question.pairs[question.right][1] == "巩县。"
    assert question.is_answered_by(["巩县。他"]) and not question.is_answered_by(["绵州。他"])


def test_two_prompts_word_the_same_question_differently(make, facts):
    from lichen.core.streams import Stream

    draw = Stream(0, "test").numpy()
    for fact in facts[:20]:
        direct, paraphrase = make().two_prompts(fact, draw)
        assert direct != paraphrase and fact.subject in direct and (paraphrase is None or fact.subject in paraphrase)


def test_written_relations_need_the_right_sentence_and_no_wrong_one(make, facts):
    question = make().make("relation", facts, "trained").questions[0]
    right = [" nothing"] * 4
    right[question.right] = f" {question.fact.object}."
    assert question.is_answered_by(right)
    assert not question.is_answered_by([f" {question.fact.object}."] * 4)
    assert not question.is_answered_by([" nothing"] * 4)


def test_written_verification_judges_the_claim(make, facts):
    for question in make().make("verification", facts[:10], "trained").questions:
        truth = f" {question.objects[question.right]}."
        lie = f" {question.objects[1 - question.right]}."
        assert question.is_answered_by([truth]) and not question.is_answered_by([lie])
