"""Questions of two hops: the model says the first object itself, and is then asked about what it said.

Two facts meet at the object of one that is the subject of the other (``dataset.bank_graph.two_hop_questions``). The first
sentence is cut before its object; what the model writes there is the *bridge*. The sentence is closed, and a second one about
what was written asks for the *end*: "Ada was born in" → "London", "Ada was born in London. London is the capital of" →
"England". It is running text throughout, without markers, generated greedily. Of one group's facts at least one hop is made,
and its bank is held. Counted are bridges and ends that are right, ends after a right bridge, and, as an oracle for comparison,
ends where the right bridge was put into the text. Where the bank has several right bridges, each counts, and so do their ends.

Yardsticks are chained in the same way: what they find for the first sentence is the subject of the second. They get the second
sentence alone, which suits them.

What was written ends with the longest name of the bank, right or wrong, that it begins with; else with the sentence.

>>> said(" St. Louis. It is", {"st.", "st. louis"}), said(" Lodnon. It", {"london"}), said("北京。那", {"北京"})
('St. Louis', 'Lodnon', '北京')
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.bank_graph import two_hop_questions
from lichen.dataset.facts import Fact, is_cjk
from lichen.evaluation.intervals import Score
from lichen.evaluation.knowledge_questions import OPTIONS, Question, QuestionMaker
from lichen.evaluation.knowledge_tasks import Replies, ask, scored
from lichen.evaluation.known_facts import balanced
from lichen.evaluation.prompting import Prompted
from lichen.evaluation.wordings import Choice, Wording, folded
from lichen.metrics.report import Table

if TYPE_CHECKING:
    from lichen.config.evaluation import KnowledgeEvaluation
    from lichen.dataset.bank_graph import TwoHop
    from lichen.dataset.relations import Relation
    from lichen.evaluation.continuation import Continuations
    from lichen.evaluation.fact_groups import Group
    from lichen.evaluation.interventions import Memory
    from lichen.evaluation.yardsticks import Yardstick

PREFERRED = ("added", "collisions", "bank only", "unseen relations", "seen")
"""Whose facts are asked for: those of the first of these groups that is examined."""
CHANCE = {"chosen": 1 / OPTIONS, "written": 0.0}
_SENTENCE_END = re.compile(r"[.!?。！？\n]")
_CLOSED = (".", "!", "?", "。", "！", "？")
Asking = Callable[[Sequence[Question], bool], Replies]
"""Questions, and whether whole texts are wanted → replies."""


@dataclass(frozen=True)
class Chain:
    """What one examinee reached."""

    bridge: Score
    end: Score
    """Written about its own bridge."""
    end_chosen: Score
    """The likeliest of four ends, after its own bridge."""
    end_after_right_bridge: Score
    """Written, counted where its own bridge was right."""
    oracle_end: Score
    """Written where the right bridge was given."""
    oracle_end_chosen: Score


@dataclass(frozen=True)
class TwoHops:
    """The task on one group."""

    group: str
    bank: int
    paths: int
    """Two-hop paths with at least one fact of the group, each hop the only one of its subject and relation."""
    n: int
    wording: Choice
    chains: dict[str, Chain]
    """The model, then the yardsticks; empty where nothing could be asked."""
    excluded: Counter[str]
    facts: list[tuple[str, str]] = field(repr=False)
    """Ids of the two facts of every question, in order."""
    outcomes: dict[str, np.ndarray] = field(repr=False)
    """``[n]`` bool of the model, by what was counted."""


def group_of(groups: Sequence[Group]) -> Group | None:
    """The group whose facts are asked for."""
    return min(groups, key=lambda group: PREFERRED.index(group.name), default=None)


def run_two_hops(
    answerer: Continuations,
    memory: Memory | None,
    group: Group,
    relations: Mapping[str, Relation],
    settings: KnowledgeEvaluation,
    yardsticks: Sequence[Yardstick] = (),
    contexts: Sequence[str] = (),
) -> TwoHops:
    """Ask at most ``settings.two_hop_questions`` questions with the bank of ``group`` in place."""
    maker = HopMaker(relations, group.bank, settings, contexts, group.any_wording)
    own = {fact.id for fact in group.facts}
    found = [
        hop
        for hop in two_hop_questions(group.bank, settings.seed, _ALL, OPTIONS)
        if own & {hop.first.id, hop.second.id}
    ]
    hops, excluded = maker.choose(found, settings.two_hop_questions)
    chains: dict[str, Chain] = {}
    outcomes: dict[str, np.ndarray] = {}
    if hops:

        def asked(questions: Sequence[Question], whole: bool) -> Replies:
            _tell(answerer, questions)
            return ask(answerer, questions, True, settings.answer_tokens, whole)

        with memory.with_facts(group.bank) if memory else nullcontext():
            outcomes = _chained(hops, asked, maker)
        chains["model"] = _counted(outcomes)
        for yardstick in yardsticks:
            replies = lambda questions, whole, who=yardstick: who.reply(questions)  # noqa: E731
            chains[yardstick.name] = _counted(_chained(hops, replies, maker, alone=True))
    return TwoHops(
        group=group.name,
        bank=len(group.bank),
        paths=len(found),
        n=len(hops),
        wording=maker.choice,
        chains=chains,
        excluded=excluded,
        facts=[(hop.question.first.id, hop.question.second.id) for hop in hops],
        outcomes=outcomes,
    )


_ALL = 1 << 62


@dataclass(frozen=True)
class Hop:
    """A question, worded."""

    question: TwoHop
    first: Wording
    second: Wording
    context: str
    bridges: tuple[str, ...]
    """All that are right."""
    ends: tuple[str, ...]
    with_rest: bool

    def bridge_question(self) -> Question:
        """The first sentence, cut before its object."""
        fact = self.question.first
        text = self.context + self.first.prompt(fact.subject)
        pair = (text, self.first.continuation(fact.subject, fact.object, self.with_rest))
        return Question("object", fact, (pair,), (fact.object,), (fact.relation,), 0, self.bridges)

    def end_question(self, bridge: str, fact: Fact, alone: bool) -> Question:
        """The second sentence about ``bridge``, of which ``fact`` tells, after the first unless it stands ``alone``."""
        objects = self.question.candidates
        text = ("" if alone else self._told(bridge)) + self.second.prompt(bridge)
        pairs = tuple((text, self.second.continuation(bridge, object, self.with_rest)) for object in objects)
        relations = (fact.relation,) * len(objects)
        return Question("object", fact, pairs, objects, relations, objects.index(self.question.answer), self.ends)

    def _told(self, bridge: str) -> str:
        """The first sentence with its object, closed, and the space after it."""
        subject = self.question.first.subject
        text = self.context + self.first.prompt(subject) + self.first.continuation(subject, bridge)
        if not text.endswith(_CLOSED):
            text += "。" if is_cjk(text[-1]) else "."
        return text if is_cjk(text[-1]) else text + " "


class HopMaker(QuestionMaker):
    """Words questions of two hops about a bank."""

    def __init__(
        self,
        relations: Mapping[str, Relation],
        bank: Sequence[Fact],
        settings: KnowledgeEvaluation,
        contexts: Sequence[str] = (),
        any_wording: frozenset[str] = frozenset(),
    ):
        with_rest = settings.normalise == "sum"
        super().__init__(
            relations, bank, seed=settings.seed, contexts=contexts, any_wording=any_wording, with_rest=with_rest
        )
        self.choice: Choice = settings.wordings[0]
        triples = [fact for fact in bank if fact.is_triple]
        self.names = {folded(name) for fact in triples for name in (fact.subject, fact.object)}
        """All that a bridge may be called."""
        self.entries: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        """By folded subject and relation."""
        for fact in triples:
            self.entries[folded(fact.subject), folded(fact.relation)].append(fact)

    def choose(self, questions: Sequence[TwoHop], most: int) -> tuple[list[Hop], Counter[str]]:
        """At most so many of them, worded, balanced over the second hop's relations and answers; and why others can not be."""
        askable: dict[str, list[Hop]] = defaultdict(list)
        excluded: Counter[str] = Counter()
        for question in questions:
            found = self._worded(question)
            if isinstance(found, str):
                excluded[found] += 1
            else:
                askable[question.second.id].append(found)
        ends = [hop.question.second for hops in askable.values() for hop in hops]
        return [askable[fact.id].pop(0) for fact in balanced(ends, most, self.seed)], excluded

    def _worded(self, question: TwoHop) -> Hop | str:
        draw = Stream(self.seed, f"two hops/{question.first.id}/{question.second.id}").numpy()
        chosen: list[Wording] = []
        for which, fact in (("first", question.first), ("second", question.second)):
            clear = self._clear(fact.subject, fact.relation, fact.object, self.choice)
            if not clear:
                return f"no clear {self.choice} wording for the {which} hop"
            chosen.append(clear[int(draw.integers(len(clear)))])
        bridges = self._objects([question.first.subject], question.first.relation) or [question.first.object]
        ends = self._objects(bridges, question.second.relation) or [question.answer]
        context = self._context(draw)
        return Hop(question, chosen[0], chosen[1], context, tuple(bridges), tuple(ends), self.with_rest)

    def fact_about(self, bridge: str, relation: str) -> Fact:
        """What the bank says; a fact of no bank where it says nothing."""
        found = self.entries.get((folded(bridge), folded(relation)))
        return found[0] if found else Fact("", f"{bridge}, {relation}", bridge, relation)

    def _objects(self, subjects: Sequence[str], relation: str) -> list[str]:
        found = (self.entries.get((folded(subject), folded(relation)), ()) for subject in subjects)
        return list(dict.fromkeys(fact.object for facts in found for fact in facts))


# --- Asking and counting ---


def _chained(hops: Sequence[Hop], asked: Asking, maker: HopMaker, alone: bool = False) -> dict[str, np.ndarray]:
    """``[n]`` bool by what was counted."""
    first = [hop.bridge_question() for hop in hops]
    texts = asked(first, True).texts or []
    bridge = [question.is_answered_by(text) for question, text in zip(first, texts, strict=True)]
    own = _ends(hops, [said(text[0], maker.names) for text in texts], asked, maker, alone)
    given = _ends(hops, [hop.question.first.object for hop in hops], asked, maker, alone)
    return {
        "bridge": np.array(bridge, bool),
        "end": own[1],
        "end_chosen": own[0],
        "oracle_end": given[1],
        "oracle_end_chosen": given[0],
    }


def _ends(
    hops: Sequence[Hop], bridges: Sequence[str], asked: Asking, maker: HopMaker, alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """``[n]`` bool each: the right end chosen, and written. Where there is no bridge there is nothing to ask, and it is wrong."""
    places = [place for place, bridge in enumerate(bridges) if bridge]
    facts = [maker.fact_about(bridges[place], hops[place].question.second.relation) for place in places]
    questions = [
        hops[place].end_question(bridges[place], fact, alone) for place, fact in zip(places, facts, strict=True)
    ]
    replies = asked(questions, False)
    chosen, written = np.zeros(len(hops), bool), np.zeros(len(hops), bool)
    for place, question, option, texts in zip(places, questions, replies.chosen, replies.texts or [], strict=True):
        chosen[place] = folded(question.objects[option]) in map(folded, question.accepted)
        written[place] = question.is_answered_by(texts)
    return chosen, written


def _counted(outcomes: Mapping[str, np.ndarray]) -> Chain:
    after = outcomes["end"][outcomes["bridge"]]
    return Chain(end_after_right_bridge=scored(after), **{name: scored(found) for name, found in outcomes.items()})


def _tell(answerer: Continuations, questions: Sequence[Question]) -> None:
    """Let an oracle that hands out entries know which one is asked for: of a bridge, right or wrong, the one about it."""
    if isinstance(answerer, Prompted):
        for question in questions:
            for prompt in question.prompts:
                answerer.note(prompt, question.fact)


def said(text: str, names: Collection[str]) -> str:
    """The name that ``text`` begins with: the longest of ``names`` (folded), or all up to the end of the sentence."""
    text = text.lstrip(" ").split("\n")[0]
    for end in range(len(text), 0, -1):
        if _is_border(text, end) and folded(text[:end]) in names:
            return text[:end].rstrip()
    return _SENTENCE_END.split(text)[0].strip()


def _is_border(text: str, place: int) -> bool:
    """Whether a word may end before ``place``."""
    if place == len(text):
        return True
    before, after = text[place - 1], text[place]
    return not (before.isalnum() and after.isalnum()) or is_cjk(before) or is_cjk(after)


# --- What is said of it ---


def table(found: TwoHops) -> Table:
    """A row per examinee; one that says so where there was nothing to ask."""
    title = f"two hops in the bank of {found.group}: {found.bank:,} facts"
    if not found.chains:
        return Table(title, [{"who": "nobody was asked", "n": "0"}], _nothing(found))
    rows = []
    for who, chain in found.chains.items():
        rows.append(
            {
                "who": who,
                "bridge": chain.bridge.short(),
                "end": chain.end.short(),
                "end, options": chain.end_chosen.short(),
                "after a right bridge": _with_n(chain.end_after_right_bridge),
                "bridge given": chain.oracle_end.short(),
                "given, options": chain.oracle_end_chosen.short(),
                "n": f"{found.n:,}",
            }
        )
    note = (
        f"By chance: written 0 %, options {100 * CHANCE['chosen']:.0f} %. {found.paths:,} paths have a fact of {found.group!r} "
        "as a hop. The bridge is what was written, and what the second sentence is about; where a bridge is given, the right one "
        f"stands in the text (oracle). Wording: {found.wording}."
    )
    return Table(title, rows, f"{note} {_left_out(found)}".strip())


def as_data(found: TwoHops) -> dict[str, Any]:
    """For a JSON file."""
    chains = {
        who: {f.name: getattr(chain, f.name).as_dict() for f in fields(chain)} for who, chain in found.chains.items()
    }
    return {
        "group": found.group,
        "bank": found.bank,
        "paths": found.paths,
        "n": found.n,
        "wording": found.wording,
        "chance": CHANCE,
        "model": chains.pop("model", None),
        "yardsticks": chains,
        "excluded": dict(found.excluded),
        "facts": [list(pair) for pair in found.facts],
        "outcomes": {name: "".join("1" if hit else "0" for hit in marks) for name, marks in found.outcomes.items()},
    }


def _nothing(found: TwoHops) -> str:
    if not found.paths:
        return (
            f"The bank has no path of two hops with a fact of {found.group!r}: no object that is the subject of another fact, "
            f"where both are the only ones of their subject and relation, with {OPTIONS} ends to choose among."
        )
    return f"{found.paths:,} paths, and none can be asked. {_left_out(found)}"


def _left_out(found: TwoHops) -> str:
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in found.excluded.items())
    return f"Not asked: {reasons}." if reasons else ""


def _with_n(score: Score) -> str:
    return str(score) if score.n else score.short()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
