"""Do the answers follow the bank? The same questions, asked with other banks.

Per intervention two shares are counted: answers that are ``true``, and answers that the bank ``shown`` gives for this subject and
relation. Someone who reads follows what is shown and loses the truth with it; a decorative memory keeps both apart from the bank.

The verdict, on what is written (on the options where nothing was):

- the answers *follow the bank* if the 95 % interval of normal − permuted lies above 0, and the permuted bank leaves no more
  than 2 points above coincidence: the share of questions whose exchanged entry happens to give a right answer as well;
- they follow it *in part* if only the first holds: something else knows answers too (weights that have seen the facts);
- otherwise the memory is *decorative*.

Where the memory shows what it reads: a *hit* is an entry of the subject and relation asked for, read more strongly than the
null slot where the answer begins. A *false read* is an answer copied although the fact is absent: it begins with the object of
the entry read most strongly, above the null slot. Where it does not show it, an answer counts that begins with the object of
one of the ``nearest`` entries by untrained TF-IDF and that is not written with an emptied bank.

>>> followed = verdict(np.ones(50, bool), np.zeros(50, bool), np.zeros(50, bool))
>>> followed.word, verdict(np.ones(50, bool), np.ones(50, bool), np.zeros(50, bool)).word
('follows', 'decorative')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lichen.evaluation import intervals
from lichen.evaluation.intervals import NOTHING, Score
from lichen.evaluation.interventions import NAMES, Bank, Name, ShowsReads, banks, shown
from lichen.evaluation.knowledge_tasks import ANSWER_TOKENS, Replies, ask, marks, scored
from lichen.evaluation.wordings import begins_with

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.evaluation.continuation import Continuations
    from lichen.evaluation.interventions import Memory, Read
    from lichen.evaluation.knowledge_questions import Question

Word = Literal["follows", "in part", "decorative"]
TOLERANCE = 0.02
"""How far above coincidence a permuted bank may leave right answers."""
SENTENCES: dict[Word, str] = {
    "follows": "the answers follow the bank",
    "in part": "the answers follow the bank only in part",
    "decorative": "the memory is decorative: the answers do not follow the bank",
}
Nearest = Callable[[Sequence["Fact"], Sequence[str]], Sequence[Sequence["Fact"]]]
"""The entries of a bank nearest to each prompt by their words, without a model."""


@dataclass(frozen=True)
class Verdict:
    """What the interventions say."""

    word: Word
    difference: Score
    """Normal − permuted, in pairs."""
    permuted: Score
    coincidence: Score
    """How often the permuted bank gives a right answer by itself."""

    @property
    def follows(self) -> bool:
        """Whether ``--require-causal`` is satisfied."""
        return self.word == "follows"

    @property
    def sentence(self) -> str:
        """The verdict with the numbers it rests on."""
        numbers = (
            f"normal − permuted {self.difference.short()}; permuted {self.permuted.short()} against a coincidence of "
            f"{100 * self.coincidence.value:.1f} %; n {self.difference.n}"
        )
        return f"{SENTENCES[self.word]} ({numbers})"


@dataclass(frozen=True)
class Row:
    """One intervention. Scores that have no meaning there (what an emptied bank shows) are nothing."""

    name: Name
    chosen: Score
    """True answers among options."""
    written: Score
    """True answers written."""
    chosen_shown: Score
    """Choices of what the bank shows, where that is among the options."""
    written_shown: Score
    """Written answers that the bank shows."""
    coincidence: Score
    """Questions whose entry in this bank gives a right answer as well."""


@dataclass(frozen=True)
class Reading:
    """What was read, with the bank as it is. Nothing where the memory does not show it."""

    hits_of_right: Score = NOTHING
    hits_of_wrong: Score = NOTHING
    false_reads: Score = NOTHING
    """Answers copied from another entry though the fact asked for is absent."""
    above_null: Score = NOTHING
    """Absent facts for which some entry was read more strongly than the null slot."""


@dataclass(frozen=True)
class Battery:
    """All interventions on one group of questions."""

    rows: list[Row]
    reading: Reading
    verdict: Verdict
    marks: Mapping[str, np.ndarray] = field(repr=False)
    """``[n]`` bool true answers per intervention, written if anything was."""
    coincident: np.ndarray = field(repr=False)
    """``[n]`` bool, where the permuted bank gives a right answer by itself."""


def run_battery(
    answerer: Continuations,
    memory: Memory,
    facts: Sequence[Fact],
    questions: Sequence[Question],
    swapped: Mapping[str, str],
    *,
    seed: int,
    generate: bool = True,
    answer_tokens: int = ANSWER_TOKENS,
    nearest: Nearest | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Battery:
    """Ask ``questions`` (task "object") with every bank made of ``facts``; ``swapped`` is ``exchanged(facts)``."""
    rows: list[Row] = []
    found: dict[str, np.ndarray] = {}
    coincident = np.zeros(len(questions), bool)
    texts: dict[Name, Replies] = {}
    reading = Reading()
    for name in NAMES:
        say(name)
        held = banks(name, facts, questions, swapped, seed)
        replies, reads = _ask_all(answerer, memory, held, questions, generate, answer_tokens)
        texts[name] = replies
        truly = marks(questions, replies)
        found[name] = truly.chosen if truly.written is None else truly.written
        rows.append(_row(name, held, questions, replies))
        if name == "permuted":
            coincident = _coincident(held, questions)
        if name == "normal" and reads is not None:
            reading = _with_hits(reading, held[0].facts, questions, reads, found[name])
        if name == "absent" and replies.texts is not None:
            reading = _with_false_reads(reading, held[0].facts, questions, texts, reads, nearest)
    return Battery(rows, reading, verdict(found["normal"], found["permuted"], coincident, seed), found, coincident)


def verdict(normal: np.ndarray, permuted: np.ndarray, coincident: np.ndarray, seed: int = 0) -> Verdict:
    """From ``[n]`` bool: right with the bank, right with the permuted bank, right in the permuted bank by coincidence."""
    difference = intervals.paired_difference(normal, permuted, seed, purpose="normal against permuted")
    after, chance = scored(permuted), scored(coincident)
    moved = bool(difference.low > 0)
    lost = after.value <= chance.value + TOLERANCE
    word: Word = "decorative" if not moved else "follows" if lost else "in part"
    return Verdict(word, difference, after, chance)


def pooled(batteries: Sequence[Battery], seed: int = 0) -> Verdict:
    """One verdict over the questions of several groups."""
    normal, permuted = (
        np.concatenate([battery.marks[name] for battery in batteries]) for name in ("normal", "permuted")
    )
    return verdict(normal, permuted, np.concatenate([battery.coincident for battery in batteries]), seed)


# --- Parts ---


def _ask_all(
    answerer: Continuations,
    memory: Memory,
    held: Sequence[Bank],
    questions: Sequence[Question],
    generate: bool,
    answer_tokens: int,
) -> tuple[Replies, list[list[Read]] | None]:
    """The replies to all questions, each with its bank, and with a single bank what was read."""
    chosen = [0] * len(questions)
    texts: list[tuple[str, ...]] = [()] * len(questions)
    reads: list[list[Read]] | None = None
    for bank in held:
        part = [questions[number] for number in bank.asked]
        with memory.with_facts(bank.facts):
            replies = ask(answerer, part, generate, answer_tokens, whole=True)
            if len(held) == 1 and isinstance(memory, ShowsReads):
                reads = memory.reads([question.prompts[0] for question in part])
        for place, number in enumerate(bank.asked):
            chosen[number] = replies.chosen[place]
            texts[number] = () if replies.texts is None else replies.texts[place]
    return Replies(chosen, texts if generate else None), reads


def _row(name: Name, held: Sequence[Bank], questions: Sequence[Question], replies: Replies) -> Row:
    objects = _shown(held, questions)
    truly, follow = marks(questions, replies), marks(questions, replies, objects)
    same = _coincident(held, questions)
    other = name in ("permuted", "random", "counterfactual")
    # what coincides with the truth can not tell whom the answer follows
    telling = [number for number in range(len(questions)) if objects[number] and not (other and same[number])]
    among = [number for number in telling if set(objects[number]) & set(questions[number].objects)]
    return Row(
        name=name,
        chosen=scored(truly.chosen),
        written=scored(truly.written),
        chosen_shown=scored(_part(follow.chosen, among)),
        written_shown=scored(_part(follow.written, telling)),
        coincidence=scored(same),
    )


def _part(outcomes: np.ndarray | None, places: Sequence[int]) -> np.ndarray | None:
    return None if outcomes is None or not places else outcomes[list(places)]


def _shown(held: Sequence[Bank], questions: Sequence[Question]) -> list[tuple[str, ...]]:
    objects: list[tuple[str, ...]] = [()] * len(questions)
    for bank in held:
        part = shown(bank.facts, [questions[number] for number in bank.asked])
        for number, found in zip(bank.asked, part, strict=True):
            objects[number] = found
    return objects


def _coincident(held: Sequence[Bank], questions: Sequence[Question]) -> np.ndarray:
    objects = _shown(held, questions)
    return np.array([bool(set(o) & set(q.accepted)) for o, q in zip(objects, questions, strict=True)], bool)


def _with_hits(
    reading: Reading,
    facts: Sequence[Fact],
    questions: Sequence[Question],
    reads: Sequence[Sequence[Read]],
    right: np.ndarray,
) -> Reading:
    hits = np.zeros(len(questions), bool)
    for number, (question, found) in enumerate(zip(questions, reads, strict=True)):
        entries = (facts[read.entry] for read in above_null(found) if read.entry is not None)
        hits[number] = any((fact.subject, fact.relation) == question.key for fact in entries)
    return replace(reading, hits_of_right=scored(hits[right]), hits_of_wrong=scored(hits[~right]))


def above_null(reads: Sequence[Read]) -> list[Read]:
    """The entries read more strongly than the null slot, strongest first.

    >>> from lichen.evaluation.interventions import Read
    >>> [read.entry for read in above_null([Read(7, 0.2), Read(None, 0.3), Read(4, 0.5)])]
    [4]
    """
    null = max((read.weight for read in reads if read.entry is None), default=0.0)
    found = [read for read in reads if read.entry is not None and read.weight > null]
    return sorted(found, key=lambda read: -read.weight)


def _with_false_reads(
    reading: Reading,
    facts: Sequence[Fact],
    questions: Sequence[Question],
    replies: Mapping[Name, Replies],
    reads: Sequence[Sequence[Read]] | None,
    nearest: Nearest | None,
) -> Reading:
    written = [texts[0] for texts in replies["absent"].texts or []]
    if reads is not None:
        strongest = [next(iter(above_null(found)), None) for found in reads]
        read = np.array([found is not None for found in strongest], bool)
        copied = [
            found is not None and found.entry is not None and begins_with(text, facts[found.entry].object)
            for text, found in zip(written, strongest, strict=True)
        ]
        return replace(reading, false_reads=scored(np.array(copied, bool)), above_null=scored(read))
    if nearest is None:
        return reading
    alone = [texts[0] for texts in replies["emptied"].texts or []]
    near = nearest(facts, [question.prompts[0] for question in questions])
    copied = [
        text != without and any(begins_with(text, fact.object) for fact in found)
        for text, without, found in zip(written, alone, near, strict=True)
    ]
    return replace(reading, false_reads=scored(np.array(copied, bool)))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
