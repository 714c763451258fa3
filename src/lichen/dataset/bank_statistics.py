"""What is in a bank, in numbers: relations, subjects with several objects, lengths in tokens, what is cut.

A subject with several objects for one relation may be right (a country borders on many) or a contradiction; both are counted as
``several``, and a few are named. The commonest object's share is what guessing by relation alone would get right.

>>> from lichen.dataset.facts import made_fact
>>> facts = [made_fact("Ada", "job", "poet"), made_fact("Ada", "job", "baker"), made_fact("Bo", "job", "poet")]
>>> relations_table(facts)
[Relationship(relation='job', facts=3, subjects=2, objects=2, several=1, commonest='poet', share=0.6666666666666666)]
>>> conflicts(facts)
[('Ada', 'job', ('poet', 'baker'))]
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lichen.dataset.facts import Fact


@dataclass(frozen=True)
class Relationship:
    """All facts of one relation; '' are plain sentences."""

    relation: str
    facts: int
    subjects: int
    objects: int
    several: int
    """Subjects with more than one object."""
    commonest: str
    share: float
    """Of the facts that have the commonest object."""


def relations_table(facts: Iterable[Fact]) -> list[Relationship]:
    """Every relation, the one with most facts first."""
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[fact.relation].append(fact)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_relationship(relation, group) for relation, group in ordered]


def conflicts(facts: Iterable[Fact]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Every subject and relation with more than one object, in the order of the bank."""
    objects: dict[tuple[str, str], dict[str, Fact]] = defaultdict(dict)
    for fact in facts:
        if fact.is_triple:
            found = objects[fact.subject.casefold(), fact.relation.casefold()]
            found.setdefault(fact.object.casefold(), fact)
    groups = (list(found.values()) for found in objects.values() if len(found) > 1)
    return [(group[0].subject, group[0].relation, tuple(fact.object for fact in group)) for group in groups]


def histogram(lengths: np.ndarray, width: int = 4) -> list[tuple[int, int, int]]:
    """(from, to, how many) in bins of ``width``, from the first that is not empty to the last.

    >>> histogram(np.array([1, 2, 9]))
    [(1, 4, 2), (5, 8, 0), (9, 12, 1)]
    """
    if not len(lengths):
        return []
    bins = np.bincount(np.maximum(np.asarray(lengths, np.int64) - 1, 0) // width)
    first = int(np.flatnonzero(bins)[0])
    return [(place * width + 1, place * width + width, int(bins[place])) for place in range(first, len(bins))]


def _relationship(relation: str, facts: Sequence[Fact]) -> Relationship:
    objects: Counter[str] = Counter(fact.object for fact in facts if fact.object)
    commonest, times = objects.most_common(1)[0] if objects else ("", 0)
    subjects = {fact.subject.casefold() for fact in facts if fact.subject}
    return Relationship(
        relation, len(facts), len(subjects), len(objects), len(conflicts(facts)), commonest, times / len(facts)
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
