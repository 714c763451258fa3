"""Entries in the prompt: someone who knows nothing but his prompt is right where the right entry stands in it, and only there."""

import re

import numpy as np
import pytest

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.dataset.bank_search import TfIdf
from lichen.dataset.fact_split import split_facts
from lichen.dataset.quoting import quoted
from lichen.evaluation import knowledge_report
from lichen.evaluation.fact_groups import fact_groups
from lichen.evaluation.interventions import ShowsReads
from lichen.evaluation.knowledge import examine
from lichen.evaluation.knowledge_questions import QuestionMaker
from lichen.evaluation.prompting import Prompted, PromptTokens, maker_for, mean_tokens, prompted

FEW = {"questions": 40, "battery_questions": 20, "edits": 8}
_PROMPT = re.compile(r"(.*?)\(Facts: ([^)]*)\) (.*)", re.DOTALL)


@pytest.fixture(scope="module")
def groups(small):
    return fact_groups(split_facts(small.world(subjects=60), small.RELATIONS), small.world(subjects=15, seed=9))


@pytest.fixture(scope="module")
def copier(small):
    class Copier(small.Reader):
        """Has no memory; copies the object of the entry in the prompt that the sentence behind it asks for."""

        with_facts = None

        def answer(self, prompt):
            self.prompts[prompt] = None
            match = _PROMPT.fullmatch(prompt)
            if match is None:
                return self.fallback
            entries = [re.split(" — |: ", text) for text in match.group(2).split("; ")]
            keys = self.asked.get(match.group(3), ())
            return next((object for subject, label, object in entries if (subject, label) in keys), self.fallback)

    def made(facts):
        found = Copier(facts)
        found.prompts = {}
        return found

    return made


def examined(small, copier, groups, **settings):
    model = copier([fact for group in groups for fact in group.bank])
    return model, examine(model, None, groups, small.RELATIONS, KnowledgeEvaluation(**{**FEW, **settings}))


def test_with_an_oracle_all_tasks_can_be_answered_out_of_the_prompt_and_follow_the_bank(small, copier, groups):
    _, found = examined(small, copier, groups, prompting="oracle")
    for group in found.groups:
        for scored in group.scores:
            assert scored.n >= 20 and scored.model.chosen.value == scored.model.written.value == 1, scored.task
        assert group.battery is not None and group.editing is not None
        rows = {row.name: row for row in group.battery.rows}
        assert rows["normal"].written.value == 1 and rows["emptied"].written.value == 0
        for name in ("permuted", "counterfactual"):  # the entries come from the bank as it is then
            assert rows[name].written_shown.value == 1 and rows[name].written.value < 0.3
        editing = group.editing
        assert (
            editing.efficacy.value == editing.paraphrase.value == editing.rollback.value == editing.locality.value == 1
        )
    assert found.verdict is not None and found.verdict.follows


def test_by_tf_idf_he_is_right_where_the_search_finds_the_entry(small, copier, groups):
    [group] = [group for group in groups if group.name == "added"]
    index = TfIdf(fact.text for fact in group.bank)
    settings = {"prompting": "tfidf", "prompted_entries": 2, "tasks": ("object",), "wordings": ("trained",)}
    _, found = examined(small, copier, [group], **settings)
    maker = QuestionMaker(small.RELATIONS, group.bank, seed=0)
    questions = maker.make("object", maker.choose(group.facts, "trained", 40)[0], "trained").questions
    near = [[group.bank[number] for number, _ in index.top(question.prompts[0], 2)] for question in questions]
    expected = [question.fact in facts for question, facts in zip(questions, near, strict=True)]
    marks = found.groups[0].scores[0].marks
    assert marks.written is not None and marks.written.tolist() == expected
    assert 0.1 < np.mean(expected) < 0.9  # five facts of each subject: two are not enough


def test_without_prompting_nothing_is_wrapped_and_nobody_is_told(small, copier, groups):
    model, found = examined(small, copier, groups[:1])
    settings = KnowledgeEvaluation()
    assert prompted(model, None, settings) == (model, None) and maker_for(model) is QuestionMaker
    assert found.groups[0].scores[0].model.written.value == 0 and found.groups[0].battery is None
    assert not any("Facts" in prompt for prompt in model.prompts)
    [title, *_] = [table.title for table in knowledge_report.tables(found)]
    assert title.endswith(f"asked with a bank of {len(groups[0].bank):,}")


def test_every_sentence_of_a_question_has_the_entry_before_it(small, copier, groups):
    group = groups[-1]
    model = copier(group.bank)
    answerer = Prompted(model, None, KnowledgeEvaluation(prompting="oracle"))
    maker = maker_for(answerer)(small.RELATIONS, group.bank, seed=0)
    for task in ("object", "relation", "verification"):
        questions = maker.make(task, group.facts, "trained").questions
        with answerer.with_facts(group.bank):
            for question in questions:
                assert all(question.fact.text in answerer.prompt(prompt) for prompt in question.prompts)
    maker_for(answerer)
    with answerer.with_facts(group.bank):  # other questions: what the others asked for is no oracle's business any more
        nearest = [answerer.prompt(question.prompts[0]) for question in questions]
    assert not all(question.fact.text in prompt for question, prompt in zip(questions, nearest, strict=True))


def test_entries_stand_behind_running_text_directly_before_the_sentence(small, groups):
    bank, context = groups[0].bank, "Smith and Smith talked about Acme."
    for how in ("tfidf", "oracle"):
        settings = KnowledgeEvaluation(prompting=how, prompted_entries=2)
        answerer = Prompted(small.Reader(bank), None, settings, [context, "Smith"])
        maker = maker_for(answerer)(small.RELATIONS, bank, seed=0, contexts=[context])
        question = maker.make("object", bank[:1], "trained").questions[0]
        with answerer.with_facts(bank):
            before, after = answerer.prompt(question.prompts[0]).split("(Facts: ")
            assert before == context + " " and after.endswith(") " + question.prompts[0].removeprefix(before))
            alone = QuestionMaker(small.RELATIONS, bank, seed=0).make("object", bank[:1], "trained").questions[0]
            if how == "tfidf":  # the running text is not looked for
                assert answerer.prompt(alone.prompts[0]) in answerer.prompt(question.prompts[0])


def test_a_memory_inside_holds_the_same_facts_and_shows_what_it_reads(small, groups):
    bank = groups[0].bank
    for kind, shows in ((small.ShowingReader, True), (small.Reader, False)):
        inner = kind(bank[:1])
        answerer = Prompted(inner, inner, KnowledgeEvaluation(prompting="tfidf"))
        assert isinstance(answerer, ShowsReads) == shows
        asked = []
        inner.reads = lambda prompts, asked=asked: asked.extend(prompts)
        with answerer.with_facts(bank):
            assert inner.held == list(bank)
            plain = f"{bank[0].subject} works as"
            if shows:
                answerer.reads([plain])
                assert asked == [answerer.prompt(plain)] != [plain]
        assert inner.held == [bank[0]] and answerer.prompt("x") == "x"


def test_writing_may_end_early_by_the_prompt_that_was_asked(small, groups):
    class Settling(small.Reader):
        def generate(self, prompts, max_new_tokens, settled=None):
            assert settled is not None
            return ["settled" if settled(prompt, "") else "" for prompt in prompts]

    bank = groups[0].bank
    answerer = Prompted(Settling(bank), None, KnowledgeEvaluation(prompting="tfidf"))
    prompts = [f"{subject} works as" for subject in dict.fromkeys(fact.subject for fact in bank)]
    with answerer.with_facts(bank):
        assert answerer.prompt(prompts[1]) != prompts[1]
        found = answerer.generate(prompts, 3, lambda prompt, text: prompt == prompts[1])
    assert found == ["", "settled", *[""] * (len(prompts) - 2)]


def test_what_entries_cost_is_said_in_the_table_and_in_the_data(small, copier, groups):
    _, found = examined(small, copier, groups[:2], prompting="tfidf", battery_questions=0, edits=0)
    [title, *_] = [table.title for table in knowledge_report.tables(found)]
    tokens = found.groups[0].prompt_tokens
    assert f"up to 4 entries in the prompt (nearest): {tokens.asked:.1f} tokens instead of {tokens.alone:.1f}" in title
    data = knowledge_report.as_data(found)
    everything = PromptTokens.over([group.prompt_tokens for group in found.groups])
    assert data["prompting"] == "tfidf" and data["prompt_tokens"] == round(everything.asked, 2)
    assert data["prompt_tokens"] > 3 * data["prompt_tokens_without_entries"] > 0


def test_means_are_over_prompts_each_counted_once(small, groups):
    bank = groups[0].bank
    answerer = Prompted(small.Reader(bank), None, KnowledgeEvaluation(prompting="tfidf", prompted_entries=1))
    prompts = [f"{bank[0].subject} works as", "xyz", "xyz"]
    with answerer.with_facts(bank):
        found = mean_tokens(answerer, prompts)
        whole = len(answerer.prompt(prompts[0]).split())
    plain = len(prompts[0].split())
    assert found == PromptTokens(2, (whole + 1) / 2, (plain + 1) / 2)
    assert PromptTokens.over([found, PromptTokens(2, 0, 0)]) == PromptTokens(4, found.asked / 2, found.alone / 2)
    assert PromptTokens.over([]) == PromptTokens() and quoted([], "xyz") == "xyz"
