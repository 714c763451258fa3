"""What is known about the facts of a bank, to ask about them: what is right, what else there is, and what is alike.

>>> from lichen.dataset.facts import made_fact
>>> known = KnownFacts([made_fact("Ada", "place of birth", "London"), made_fact("Bob", "place of death", "London")])
>>> known.answers["Ada", "place of birth"], known.having("London"), sorted(known.relations_of["Ada"])
(['London'], ['place of birth', 'place of death'], ['place of birth'])
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from lichen.core.streams import Stream

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact


class KnownFacts:
    """Facts by subject and relation; those that are no triples are passed over."""

    def __init__(self, facts: Sequence[Fact]):
        self.answers: dict[tuple[str, str], list[str]] = defaultdict(list)
        """Subject and relation → the objects that are right."""
        self.objects: dict[str, list[str]] = defaultdict(list)
        """Relation → the objects of its facts, as often as they occur."""
        self.relations_of: dict[str, set[str]] = defaultdict(set)
        """Subject → its relations."""
        for fact in facts:
            if not fact.is_triple:
                continue
            self.objects[fact.relation].append(fact.object)
            self.relations_of[fact.subject].add(fact.relation)
            if fact.object not in self.answers[fact.subject, fact.relation]:
                self.answers[fact.subject, fact.relation].append(fact.object)
        self.kinds = {label: frozenset(found) for label, found in self.objects.items()}
        """Relation → its objects, each once."""
        self._likeness: dict[tuple[str, str], float] = {}
        self._having: dict[str, list[str]] = defaultdict(list)
        for label, found in self.kinds.items():
            for object in found:
                self._having[object].append(label)
        self._subjects: dict[str, set[str]] = defaultdict(set)
        for subject, labels in self.relations_of.items():
            for label in labels:
                self._subjects[label].add(subject)

    def accepted(self, fact: Fact) -> tuple[str, ...]:
        """The objects that are right for the subject and relation of ``fact``."""
        return tuple(self.answers.get((fact.subject, fact.relation), ())) or (fact.object,)

    def having(self, object: str) -> Sequence[str]:
        """The relations that have this object."""
        return self._having.get(object, ())

    def rank(self, fact: Fact, label: str) -> tuple[bool, bool, float, str]:
        """How near another relation is to that of ``fact``; smaller is nearer: relations that have its object come first, then
        those known of its subject, then by the share of objects and subjects that both relations have."""
        unknown = label not in self.relations_of.get(fact.subject, ())
        return fact.object not in self.kinds[label], unknown, -self._alike(label, fact.relation), label

    def _alike(self, one: str, other: str) -> float:
        if (one, other) not in self._likeness:
            kinds = _overlap(self.kinds[one], self.kinds.get(other, frozenset()))
            self._likeness[one, other] = kinds + _overlap(self._subjects[one], self._subjects[other])
        return self._likeness[one, other]


def _overlap(one: Collection[str], other: Collection[str]) -> float:
    return len(set(one) & set(other)) / max(1, min(len(one), len(other)))


def balanced(facts: Sequence[Fact], most: int, seed: int) -> list[Fact]:
    """``most`` of ``facts``: in turn one of each relation, and within a relation one of each object, then a second of each.

    >>> from lichen.dataset.facts import made_fact
    >>> facts = [made_fact(f"S{n}", "continent", "Antarctica" if n > 3 else f"C{n}") for n in range(20)]
    >>> sorted(fact.object for fact in balanced(facts, 6, seed=0))
    ['Antarctica', 'Antarctica', 'C0', 'C1', 'C2', 'C3']
    """
    order = Stream(seed, "balanced facts").numpy().permutation(len(facts))
    turns: Counter[tuple[str, str]] = Counter()
    ranked: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place in order:
        fact = facts[place]
        ranked[fact.relation].append((turns[fact.relation, fact.object], int(place)))
        turns[fact.relation, fact.object] += 1
    for members in ranked.values():
        members.sort(key=lambda member: member[0])
    rounds = sorted(
        (turn, label, place) for label, members in ranked.items() for turn, (_, place) in enumerate(members)
    )
    return [facts[place] for _, _, place in rounds[:most]]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
