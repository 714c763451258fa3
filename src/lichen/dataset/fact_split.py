"""Which facts a text tells, which only the bank holds, which come later; and facts that are invented beside them.

A fact's place is a function of its id: of ten parts six are *told* in the text and stand in the bank, two stand in the
*bank only*, two are *added* after training. ``HELD_OUT_RELATIONS`` stay out of everything until they are evaluated, and so
does the last pattern of every relation. Facts of relations with no other pattern can not be told; they stand in the bank.

Real facts are often found by their subject alone. ``companions`` are invented facts (source "made") about subjects that are
told: another relation that suits them, and any of its objects. Relations suit each other that are about one kind of subject
(``KINDS``); of others, those that subjects have together more often than chance would have it.

>>> [part_of(id) for id in ("7d58f005-5166-4af7-a2e0-c960de153441", "a", "b")]
[0, 9, 5]
>>> relation = Relation("P106", "occupation", ("[X] is a [Y].", "[Y] is what [X] does.", "[X] works as [Y]."))
>>> told_patterns(relation)
('[X] is a [Y].', '[Y] is what [X] does.')
>>> split = split_facts([made_fact("Ada", "occupation", "poet", id=id) for id in "abcdefgh"], {"occupation": relation})
>>> [len(facts) for facts in (split.told, split.bank_only, split.added, split.bank)]
[3, 2, 3, 5]
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.facts import Fact, fact_id, made_fact
from lichen.dataset.relations import Relation, label_of

HELD_OUT_RELATIONS = ("P101", "P1376", "P463", "P19", "P279", "P937")
TOLD, BANK_ONLY, ADDED = range(6), range(6, 8), range(8, 10)
MADE = "made"
"""The source of invented facts."""
KINDS = (
    ("P20", "P27", "P39", "P106", "P108", "P1303", "P1412"),  # people
    ("P17", "P30", "P47", "P131", "P190"),  # places
    ("P407", "P449", "P495"),  # works
)
"""Relations that are about one kind of subject."""
TRIES = 20
"""Objects that are drawn for an invented fact until one fits."""
LEAST_COMMON = 2
"""Relations in no table suit each other if so many subjects have both, and more than chance would have it."""


def part_of(id: str) -> int:
    """Which of ten parts a fact belongs to."""
    return int(hashlib.sha256(id.encode()).hexdigest(), 16) % 10


def told_patterns(relation: Relation) -> tuple[str, ...]:
    """The patterns that text may use: all but the last."""
    return relation.patterns[:-1]


@dataclass(frozen=True)
class FactSplit:
    """What becomes of each fact."""

    told: tuple[Fact, ...]
    """In the text and in the bank, invented ones among them."""
    bank_only: tuple[Fact, ...]
    added: tuple[Fact, ...]
    unseen_relations: tuple[Fact, ...]
    untold: tuple[Fact, ...]
    """In the bank, of the parts that are told, but no pattern may be used."""

    @property
    def bank(self) -> tuple[Fact, ...]:
        """The facts of the bank for training."""
        return (*self.told, *self.bank_only, *self.untold)


def split_facts(
    facts: Iterable[Fact], relations: Mapping[str, Relation], limit: int | None = None, seed: int = 0
) -> FactSplit:
    """Sort ``facts``; ``relations`` by label. ``limit``: told facts at most, the others reduced in proportion.

    Facts that are no triples are left out: there is nothing to ask about them.
    """
    held_out = {label_of(id) for id in HELD_OUT_RELATIONS} | {
        label for label, relation in relations.items() if relation.id in HELD_OUT_RELATIONS
    }
    kinds: dict[str, list[Fact]] = {name: [] for name in ("told", "bank_only", "added", "unseen_relations", "untold")}
    for fact in facts:
        if fact.is_triple:
            kinds[_kind(fact, relations, held_out)].append(fact)
    if limit is not None and kinds["told"]:
        share = min(1.0, limit / len(kinds["told"]))
        kinds = {name: _sample(found, share, Stream(seed, f"facts/{name}")) for name, found in kinds.items()}
    return FactSplit(**{name: tuple(found) for name, found in kinds.items()})


def _kind(fact: Fact, relations: Mapping[str, Relation], held_out: set[str]) -> str:
    if fact.relation in held_out:
        return "unseen_relations"
    part = part_of(fact.id)
    if part in ADDED:
        return "added"
    if part in BANK_ONLY:
        return "bank_only"
    return "told" if told_patterns(relations.get(fact.relation, Relation("", ""))) else "untold"


def _sample(facts: Sequence[Fact], share: float, stream: Stream) -> list[Fact]:
    """A share of ``facts`` in their order; a larger share contains a smaller one."""
    chosen = stream.permutation(len(facts)).take(np.arange(round(share * len(facts))))
    return [facts[number] for number in np.sort(chosen).tolist()]


# --- Invented facts ---


def companions(
    split: FactSplit,
    relations: Mapping[str, Relation],
    share: float,
    most: int,
    seed: int,
    avoided: Iterable[str] = (),
    invented: Mapping[str, Relation] | None = None,
) -> list[Fact]:
    """Invented facts about a ``share`` of the subjects told: ``most`` relations each that suit and are not the subject's own.

    With ``invented`` relations one of them takes the place of a real one in half of the cases, or where none suits; its objects
    are any names, those of subjects too, which have more tokens than most objects. Subjects in ``avoided`` get none. What is
    invented contradicts no other fact: neither an added one nor an unseen one.
    """
    objects: dict[str, set[str]] = defaultdict(set)
    own: dict[str, set[str]] = defaultdict(set)
    for fact in (*split.told, *split.bank_only, *split.untold):
        objects[fact.relation].add(fact.object)
        own[fact.subject].add(fact.relation)
    suiting = _suiting(own.values(), relations)
    taken = {name: set(found) for name, found in own.items()}
    for fact in (*split.added, *split.unseen_relations):
        taken.setdefault(fact.subject, set()).add(fact.relation)
    known = {(fact.subject, fact.object) for fact in (*split.bank, *split.added, *split.unseen_relations)}
    avoided = set(avoided)
    sorted_objects = {label: sorted(found) for label, found in objects.items()}
    any_name = sorted({*own, *(name for found in objects.values() for name in found)})
    others = list(invented or {})
    stream = Stream(seed, "companions")
    found: list[Fact] = []
    for number, subject in enumerate(dict.fromkeys(fact.subject for fact in split.told)):
        draw = stream.numpy(number)
        if draw.random() >= share or subject in avoided:
            continue
        possible = sorted({other for label in own[subject] for other in suiting[label]} - taken[subject])
        possible = [label for label in possible if label in relations and told_patterns(relations[label])]
        chosen = draw.permutation(np.array(possible, object))[:most].tolist()
        if others:
            chosen += [""] * (most - len(chosen))
            made = draw.choice(len(others), most, replace=len(others) < most).tolist()
            chosen = [
                others[m] if not label or draw.random() < 0.5 else label for label, m in zip(chosen, made, strict=True)
            ]
        for label in dict.fromkeys(chosen):
            names = sorted_objects.get(label, any_name)
            drawn = [names[place] for place in draw.integers(len(names), size=TRIES).tolist()]
            fitting = [name for name in drawn if name != subject and (subject, name) not in known]
            if fitting:
                found.append(_invented(subject, label, fitting[0]))
    return found


def _suiting(own: Iterable[set[str]], relations: Mapping[str, Relation]) -> dict[str, set[str]]:
    """By relation those that suit its subjects."""
    kinds = {id: number for number, ids in enumerate(KINDS) for id in ids}
    kind = {label: kinds.get(relation.id) for label, relation in relations.items()}
    subjects = list(own)
    each = Counter(label for labels in subjects for label in labels)
    both = Counter((first, second) for labels in subjects for first in labels for second in labels if first != second)
    found: dict[str, set[str]] = defaultdict(set)
    for first in each:
        for second in each:
            count, expected = both[first, second], each[first] * each[second] / len(subjects)
            together = kind.get(first) is None and count >= LEAST_COMMON and count > expected
            if first != second and kind.get(first) == kind.get(second) and (kind.get(first) is not None or together):
                found[first].add(second)
    return found


def _invented(subject: str, label: str, object: str) -> Fact:
    """A made fact whose id belongs to the parts that are told."""
    stem, tries = f"{MADE}-{fact_id('', subject, label, object)}", 0
    while part_of(f"{stem}-{tries}") not in TOLD:
        tries += 1
    return made_fact(subject, label, object, id=f"{stem}-{tries}", source=MADE)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
