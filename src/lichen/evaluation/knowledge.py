"""The whole examination of a model's knowledge: tasks by group and wording, yardsticks, other banks, edits, two hops, health.

A model without a bank is examined as well, by the same questions: then there is no verdict, unless entries are put into its
prompts (``settings.prompting``), which makes the bank they are taken from its memory. What every question came to is kept
(``Scored.marks``), so that models and seeds can be compared in pairs on the same facts.

>>> import numpy as np
>>> from lichen.dataset.fact_split import split_facts
>>> from lichen.dataset.facts import made_fact
>>> from lichen.dataset.relations import Relation
>>> from lichen.evaluation.fact_groups import fact_groups
>>> relations = {"place of death": Relation("", "place of death", ("[X] died in [Y].", "[X] passed away in [Y]."))}
>>> facts = [made_fact(f"Person {n}", "place of death", f"City {n % 5}") for n in range(40)]
>>> class Mute:
...     def log_likelihoods(self, pairs): return np.zeros(len(pairs))
...     def generate(self, prompts, max_new_tokens, settled=None): return [""] * len(prompts)
...     def count_tokens(self, text): return 2
>>> found = examine(Mute(), None, fact_groups(split_facts(facts, relations)), relations, KnowledgeEvaluation())
>>> first = found.groups[0].scores[0]
>>> found.verdict, first.task, first.wording, str(first.model.written)
(None, 'object', 'trained', '0.0 % [0.0, 12.9], n 26')
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.evaluation import causality, editing
from lichen.evaluation.causality import Battery, Verdict
from lichen.evaluation.editing import Editing
from lichen.evaluation.health import Health
from lichen.evaluation.intervals import Score
from lichen.evaluation.interventions import exchanged
from lichen.evaluation.knowledge_questions import CHANCE, QuestionMaker, Questions, Task
from lichen.evaluation.knowledge_tasks import Marks, Replies, ask, marks, scored
from lichen.evaluation.prompting import PromptTokens, maker_for, mean_tokens, prompted
from lichen.evaluation.two_hop import TwoHops, group_of, run_two_hops
from lichen.evaluation.wordings import Choice
from lichen.evaluation.yardsticks import TfIdfCopy, Yardstick, yardsticks

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.dataset.relations import Relation
    from lichen.evaluation.continuation import Continuations
    from lichen.evaluation.fact_groups import Group
    from lichen.evaluation.health import Reading, Watcher
    from lichen.evaluation.interventions import Memory
    from lichen.evaluation.yardsticks import Search

Say = Callable[[str], None]


@dataclass(frozen=True)
class Shares:
    """What one examinee reached: among options, and written."""

    chosen: Score
    written: Score


@dataclass(frozen=True)
class Scored:
    """One task in one wording on one group."""

    task: Task
    wording: Choice
    n: int
    chance: tuple[float, float]
    """Of options, and of what is written."""
    model: Shares
    yardsticks: dict[str, Shares]
    excluded: Counter[str]
    """Facts that could not be asked for, by reason."""
    facts: list[str] = field(repr=False)
    """Ids of the facts asked for, in order."""
    marks: Marks = field(repr=False)


@dataclass(frozen=True)
class GroupResult:
    """One group of facts."""

    name: str
    facts: int
    bank: int
    set_aside: int
    in_text: bool
    prompt_tokens: PromptTokens
    scores: list[Scored]
    battery: Battery | None
    editing: Editing | None


@dataclass(frozen=True)
class Examination:
    """Everything that was found."""

    groups: list[GroupResult]
    verdict: Verdict | None
    """Over all facts that weights can not know, or over all where there are no such; None without a bank."""
    settings: KnowledgeEvaluation
    two_hop: TwoHops | None = None
    """None where it was not asked for, or nothing was to be written."""
    health: Health | None = None
    """None where nobody watches a memory."""


def examine(
    answerer: Continuations,
    memory: Memory | None,
    groups: Sequence[Group],
    relations: Mapping[str, Relation],
    settings: KnowledgeEvaluation,
    *,
    contexts: Sequence[str] = (),
    search: Search | None = None,
    watcher: Watcher | None = None,
    say: Say = lambda text: None,
) -> Examination:
    """Examine ``answerer``, whose bank is ``memory`` (None: it has none).

    Args:
        groups: of ``fact_groups``; those not in ``settings.groups`` are passed over.
        relations: by label.
        contexts: running text to put before prompts.
        search: instead of TF-IDF over each group's bank (for tests).
        watcher: looks at how the memory reads the prompts.
        say: told what is being done.
    """
    wanted = [group for group in groups if group.name in settings.groups]
    answerer, memory = prompted(answerer, memory, settings, contexts)
    results, two_hop, reading = [], None, {}
    for group in wanted:
        one = _GroupExamination(answerer, memory, group, relations, settings, contexts, search, watcher, say)
        results.append(one.run())
        reading |= {} if one.reading is None else {group.name: one.reading}
        if group is group_of(wanted):
            two_hop = one.two_hops()
    health = None if watcher is None else Health(watcher.training, reading)
    return Examination(results, _verdict(results, settings.seed), settings, two_hop, health)


class _GroupExamination:
    """The examination of one group."""

    def __init__(
        self,
        answerer: Continuations,
        memory: Memory | None,
        group: Group,
        relations: Mapping[str, Relation],
        settings: KnowledgeEvaluation,
        contexts: Sequence[str],
        search: Search | None,
        watcher: Watcher | None,
        say: Say,
    ):
        self.answerer, self.memory, self.group, self.settings = answerer, memory, group, settings
        self.say = lambda text: say(f"{group.name}: {text}")
        self.relations, self.contexts = relations, contexts
        self.watcher = watcher
        self.reading: Reading | None = None
        self.maker = self._maker()
        self.yardsticks = yardsticks(group.bank, settings.seed, search)

    def run(self) -> GroupResult:
        group = self.group
        scores, prompt_tokens = self._scores()
        return GroupResult(
            name=group.name,
            facts=len(group.facts),
            bank=len(group.bank),
            set_aside=group.set_aside,
            in_text=group.in_text,
            prompt_tokens=prompt_tokens,
            scores=scores,
            battery=self._battery(),
            editing=self._editing(),
        )

    def _maker(self, swapped: Mapping[str, str] | None = None) -> QuestionMaker:
        return maker_for(self.answerer)(
            self.relations,
            self.group.bank,
            seed=self.settings.seed,
            swapped=swapped,
            contexts=self.contexts,
            any_wording=self.group.any_wording,
            with_rest=self.settings.normalise == "sum",
        )

    def _exchange(self, facts: Sequence[Fact]) -> tuple[dict[str, str], QuestionMaker]:
        """Other objects for all entries of the bank, ``facts`` among themselves, and questions that know of them."""
        swapped = exchanged(self.group.bank, self.settings.seed, [fact.id for fact in facts])
        return swapped, self._maker(swapped)

    @property
    def _choices(self) -> tuple[Choice, ...]:
        """The wordings to ask in; relations left out of training have no trained one."""
        return ("unseen",) if self.group.name == "unseen relations" else self.settings.wordings

    def _scores(self) -> tuple[list[Scored], PromptTokens]:
        asked: list[tuple[Task, Choice, Questions]] = []
        for choice in self._choices:
            for task in self.settings.tasks:
                facts, excluded = self.maker.choose(self.group.facts, choice, self.settings.questions, task)
                made = self.maker.make(task, facts, choice)
                asked.append((task, choice, Questions(made.questions, excluded + made.excluded)))
        everything = [question for _, _, found in asked for question in found.questions]
        self.say(f"{len(everything)} questions")
        with self.memory.with_facts(self.group.bank) if self.memory else nullcontext():
            replies = ask(self.answerer, everything, self.settings.generate, self.settings.answer_tokens)
            prompts = [prompt for question in everything for prompt in question.prompts]
            tokens = mean_tokens(self.answerer, prompts)
            self.reading = self.watcher.reading(prompts) if self.watcher and prompts else None
        scores, start = [], 0
        for task, choice, found in asked:
            scores.append(self._scored(task, choice, found, _part(replies, start, len(found.questions))))
            start += len(found.questions)
        return scores, tokens

    def _scored(self, task: Task, choice: Choice, found: Questions, replies: Replies) -> Scored:
        questions = found.questions
        own = marks(questions, replies)
        others = {yardstick.name: marks(questions, yardstick.reply(questions)) for yardstick in self.yardsticks}
        return Scored(
            task=task,
            wording=choice,
            n=len(questions),
            chance=CHANCE[task],
            model=_shares(own),
            yardsticks={name: _shares(found) for name, found in others.items()},
            excluded=found.excluded,
            facts=[question.fact.id for question in questions],
            marks=own,
        )

    def _battery(self) -> Battery | None:
        if self.memory is None or not self.settings.battery_questions:
            return None
        choice = self._choices[0]
        facts, _ = self.maker.choose(self.group.facts, choice, self.settings.battery_questions)
        swapped, maker = self._exchange(facts)
        questions = maker.make("object", facts, choice).questions
        if not questions:
            return None
        return causality.run_battery(
            self.answerer,
            self.memory,
            self.group.bank,
            questions,
            swapped,
            seed=self.settings.seed,
            generate=self.settings.generate,
            answer_tokens=self.settings.answer_tokens,
            nearest=_nearest(self.settings.seed, self.yardsticks),
            say=self.say,
        )

    def _editing(self) -> Editing | None:
        if self.memory is None or not self.settings.edits or not self.settings.generate:
            return None
        self.say("edits")
        facts, _ = self.maker.choose(self.group.facts, "trained")
        _, maker = self._exchange(facts)
        edits = editing.plan_edits(maker, facts, self.group.bank, self.settings.edits)
        return editing.run_editing(self.answerer, self.memory, self.group.bank, edits, self.settings.answer_tokens)

    def two_hops(self) -> TwoHops | None:
        """Questions that join two facts of the bank, one of them at least of this group."""
        settings = self.settings
        if not settings.two_hop_questions or not settings.generate:
            return None
        self.say("two hops")
        return run_two_hops(
            self.answerer, self.memory, self.group, self.relations, settings, self.yardsticks, self.contexts
        )


def _verdict(results: Sequence[GroupResult], seed: int) -> Verdict | None:
    batteries = [(result.in_text, result.battery) for result in results if result.battery is not None]
    if not batteries:
        return None
    telling = [battery for in_text, battery in batteries if not in_text]
    return causality.pooled(telling or [battery for _, battery in batteries], seed)


def _nearest(seed: int, examinees: Sequence[Yardstick]) -> causality.Nearest | None:
    """The four nearest of the entries that are left, by the search that the yardstick uses."""
    found = next((yardstick for yardstick in examinees if isinstance(yardstick, TfIdfCopy)), None)
    if found is None:
        return None

    def nearest(facts: Sequence[Fact], prompts: Sequence[str]) -> list[list[Fact]]:
        there = {id(fact) for fact in facts}
        near = found.nearest(prompts, 16)
        return [[fact for fact in row if id(fact) in there][:4] for row in near]

    return nearest


def _part(replies: Replies, start: int, count: int) -> Replies:
    texts = None if replies.texts is None else replies.texts[start : start + count]
    return Replies(replies.chosen[start : start + count], texts)


def _shares(found: Marks) -> Shares:
    return Shares(scored(found.chosen), scored(found.written))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
