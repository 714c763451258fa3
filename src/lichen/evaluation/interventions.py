"""Other banks for the same questions: whoever reads answers otherwise, and whoever does not gives himself away.

Every intervention is a list of facts for the memory to hold while the questions are asked again:

- ``normal``: the bank as it is;
- ``oracle``: next to nothing but the entry asked for: banks of a few asked entries, no subject twice;
- ``permuted``: the objects of every relation exchanged among its facts, so that as few as possible keep theirs;
- ``random``: every object replaced by one of another relation;
- ``emptied``: no entry at all;
- ``counterfactual``: only the entries asked for get another object of their relation, all else stays;
- ``absent``: the entries asked for are missing, all else stays.

>>> from lichen.dataset.facts import made_fact
>>> bank = [made_fact(f"P{n}", "place of birth", city) for n, city in enumerate(["Rome", "Oslo", "Rome", "Bonn"])]
>>> objects = exchanged(bank, seed=0)
>>> sorted(objects.values()), any(objects[fact.id] == fact.object for fact in bank)
(['Bonn', 'Oslo', 'Rome', 'Rome'], False)
>>> with_object(bank[0], "Paris").text
'P0 — place of birth: Paris'
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from lichen.config.errors import UsageError
from lichen.core.streams import Stream
from lichen.dataset.facts import made_text, rewritten
from lichen.evaluation.wordings import folded

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.evaluation.knowledge_questions import Question

Name = Literal["normal", "oracle", "permuted", "random", "emptied", "counterfactual", "absent"]
NAMES: tuple[Name, ...] = get_args(Name)
ORACLE_ENTRIES = 16
"""A bank this small that holds the right entry, and no other of its subject, leaves a reader nothing to search for."""


class Memory(Protocol):
    """What is asked of a model's memory: to hold other facts for a while."""

    def with_facts(self, facts: Sequence[Fact]) -> AbstractContextManager[object]:
        """Within the context the model reads from ``facts`` and nothing else; afterwards from its own bank again."""
        ...


@dataclass(frozen=True, slots=True)
class Read:
    """How strongly an entry was read: its place in the facts held, None for the null slot, and its weight."""

    entry: int | None
    weight: float


@runtime_checkable
class ShowsReads(Protocol):
    """A memory that can say what it read."""

    def reads(self, prompts: Sequence[str]) -> list[list[Read]]:
        """Per prompt, what was read at its last token, where the answer begins, strongest first; of several layers the
        strongest reading of each entry."""
        ...


@dataclass(frozen=True)
class Bank:
    """Facts to hold, and the places of the questions to ask while they are held."""

    facts: Sequence[Fact]
    asked: Sequence[int]


def banks(
    name: Name, facts: Sequence[Fact], questions: Sequence[Question], swapped: Mapping[str, str], seed: int
) -> list[Bank]:
    """The banks of one intervention; every question is asked with exactly one of them.

    ``swapped`` is what ``exchanged`` gave for ``facts``.
    """
    everything = range(len(questions))
    keys = {question.key for question in questions}
    match name:
        case "normal":
            return [Bank(facts, everything)]
        case "oracle":
            return [Bank([questions[n].fact for n in part], part) for part in subjects_apart(questions, ORACLE_ENTRIES)]
        case "permuted":
            return [Bank([with_object(fact, swapped.get(fact.id, fact.object)) for fact in facts], everything)]
        case "random":
            other = from_anywhere(facts, seed)
            return [Bank([with_object(fact, other.get(fact.id, fact.object)) for fact in facts], everything)]
        case "emptied":
            return [Bank([], everything)]
        case "counterfactual":
            return [Bank([_swapped_if_asked(fact, keys, swapped) for fact in facts], everything)]
        case "absent":
            return [Bank([fact for fact in facts if (fact.subject, fact.relation) not in keys], everything)]


def shown(bank: Sequence[Fact], questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """Per question the objects that ``bank`` has for its subject and relation."""
    objects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for fact in bank:
        objects[fact.subject, fact.relation].append(fact.object)
    return [tuple(objects.get(question.key, ())) for question in questions]


def exchanged(facts: Sequence[Fact], seed: int, asked: Collection[str] = ()) -> dict[str, str]:
    """Fact id → the object of another fact of its relation: a permutation that leaves as few as possible their own.

    The facts with ids in ``asked`` exchange among themselves, so that among their options too every object is as often wrong
    as right. Facts lie in a circle, those of equal object side by side, and everyone takes the object that lies as many places
    further as the most frequent object has facts. Where that one has more than half of them, the surplus can not but keep it.
    """
    chosen = frozenset(asked)
    circles: dict[tuple[str, bool], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        if fact.is_triple:
            circles[fact.relation, fact.id in chosen][fact.object].append(fact.id)
    found: dict[str, str] = {}
    for (relation, is_asked), by_object in circles.items():
        draw = Stream(seed, f"exchanged objects/{relation}/{is_asked}").numpy()
        names = list(by_object)
        circle = [(id, names[k]) for k in draw.permutation(len(names)) for id in draw.permutation(by_object[names[k]])]
        step = max(map(len, by_object.values()))
        for place, (id, _) in enumerate(circle):
            found[str(id)] = circle[(place + step) % len(circle)][1]
    return found


def from_anywhere(facts: Sequence[Fact], seed: int) -> dict[str, str]:
    """Fact id → the object of a fact of another relation, and not its own; where there is only one relation, of it."""
    triples = [fact for fact in facts if fact.is_triple]
    draw = Stream(seed, "objects from anywhere").numpy()
    found = {}
    for fact in triples:
        for _ in range(32):
            other = triples[int(draw.integers(len(triples)))]
            if other.relation != fact.relation and folded(other.object) != folded(fact.object):
                break
        found[fact.id] = other.object
    return found


def with_object(fact: Fact, object: str) -> Fact:
    """``fact`` with another object, in its text as well; a text that holds the old one unclearly is made anew by rule."""
    if object == fact.object:
        return fact
    try:
        return rewritten(fact, object=object)
    except UsageError:
        return rewritten(fact, object=object, text=made_text(fact.subject, fact.relation, object))


def subjects_apart(questions: Sequence[Question], most: int) -> list[list[int]]:
    """Places of ``questions`` in parts of at most ``most``, no subject twice in a part."""
    parts: list[tuple[set[str], list[int]]] = []
    first_open = 0
    for number, question in enumerate(questions):
        subject = folded(question.fact.subject)
        for subjects, part in parts[first_open:]:
            if len(part) < most and subject not in subjects:
                break
        else:
            subjects, part = set(), []
            parts.append((subjects, part))
        subjects.add(subject)
        part.append(number)
        while first_open < len(parts) and len(parts[first_open][1]) >= most:
            first_open += 1
    return [part for _, part in parts]


def _swapped_if_asked(fact: Fact, keys: Collection[tuple[str, str]], swapped: Mapping[str, str]) -> Fact:
    return with_object(fact, swapped.get(fact.id, fact.object)) if (fact.subject, fact.relation) in keys else fact


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
