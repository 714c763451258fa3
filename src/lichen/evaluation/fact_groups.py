"""Which facts are asked for, and which bank is in place then.

``fact_split`` says which facts stand in training text (*seen*), in the *bank only*, which are *added* after training, and which
are of *unseen relations*, added as well. A group is asked with the bank as it would be then. Invented facts about real subjects
(*collisions*) come last; true facts that say something else about the same subject and relation leave the bank for them, so
that every question has one answer, and are counted.

>>> from lichen.dataset.facts import made_fact
>>> born = Relation("P20", "place of death", ("[X] died in [Y].", "[X] passed away in [Y]."))
>>> facts = [made_fact(f"P{n}", "place of death", "Rome", id=str(n)) for n in range(200)]
>>> split = split_facts(facts, {"place of death": born})
>>> groups = fact_groups(split, [made_fact("P3", "place of death", "Oslo")])
>>> [(group.name, len(group.facts), len(group.bank), group.set_aside) for group in groups]
[('seen', 120, 158, 0), ('bank only', 38, 158, 0), ('added', 42, 200, 0), ('collisions', 1, 200, 1)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.config.errors import LichenError, UsageError
from lichen.config.knowledge import BankConfig
from lichen.dataset.bank import Bank, read_facts
from lichen.dataset.fact_collection import Collector
from lichen.dataset.fact_split import FactSplit, split_facts
from lichen.dataset.relations import Relation, merged, read_relations

if TYPE_CHECKING:
    from lichen.config.evaluation import FactGroup
    from lichen.dataset.facts import Fact

COLLISIONS = "collisions.jsonl"
_KINDS = ("told", "bank_only", "added", "unseen_relations")
_INVENTED = "invented"


@dataclass(frozen=True)
class Group:
    """Facts that are reported together."""

    name: FactGroup
    facts: tuple[Fact, ...]
    bank: tuple[Fact, ...]
    """What the memory holds while they are asked for."""
    set_aside: int = 0
    """Facts that left the bank because they say something else about what is asked."""
    any_wording: frozenset[str] = frozenset()
    """Relations no sentence of which was trained on: there are unseen wordings only."""

    @property
    def in_text(self) -> bool:
        """Whether weights can know these facts."""
        return self.name == "seen"


@dataclass(frozen=True)
class Material:
    """What an examination is made of."""

    split: FactSplit
    collisions: tuple[Fact, ...]
    relations: dict[str, Relation]
    """By label."""


def fact_groups(split: FactSplit, collisions: Sequence[Fact] = ()) -> list[Group]:
    """The groups that are not empty."""
    outside = frozenset(fact.relation for fact in split.unseen_relations)
    before = split.bank
    later = (*before, *split.added)
    asked = {(fact.subject, fact.relation) for fact in collisions}
    beside = tuple(fact for fact in later if (fact.subject, fact.relation) not in asked)
    groups = [
        Group("seen", split.told, before),
        Group("bank only", (*split.bank_only, *split.untold), before),
        Group("added", split.added, later),
        Group("unseen relations", split.unseen_relations, (*later, *split.unseen_relations), any_wording=outside),
        Group("collisions", tuple(collisions), (*beside, *collisions), len(later) - len(beside), outside),
    ]
    return [group for group in groups if group.facts]


def read_material(folder: Path, collisions: Path | None = None, limit: int | None = None) -> Material:
    """The facts to ask for.

    Args:
        folder: facts and patterns by relation (PNNN.jsonl, PNNN.patterns.json), or what `lichen knowledge texts` wrote.
        collisions: a file of invented facts; unset, collisions.jsonl in ``folder`` if there is one.
        limit: told facts at most, as for the training text; for facts by relation only.

    Raises:
        UsageError: there is no such folder, or no facts in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of facts")
    if (folder / "told.jsonl").is_file():
        split, relations = _read_texts_folder(folder)
    else:
        collector = Collector(BankConfig())
        collector.add(folder)
        relations = merged([*read_relations(folder).values(), *collector.relations.values()])
        split = split_facts(collector.facts, relations, limit)
    file = collisions if collisions is not None else folder / COLLISIONS
    return Material(split, _read_collisions(file, needed=collisions is not None), relations)


def _read_texts_folder(folder: Path) -> tuple[FactSplit, dict[str, Relation]]:
    bank = Bank.open(folder / "bank")
    kinds = {}
    for name in (*_KINDS, *([_INVENTED] if (folder / f"{_INVENTED}.jsonl").is_file() else [])):
        path = folder / f"{name}.jsonl"
        try:
            kinds[name] = tuple(read_facts(path.read_bytes(), path))
        except OSError as error:
            raise LichenError(f"{path}: can not be read ({error.strerror}); write the texts anew") from None
    invented = kinds.pop(_INVENTED, ())
    elsewhere = {fact.id for kind in (kinds["told"], kinds["bank_only"], invented) for fact in kind}
    untold = tuple(fact for fact in bank.facts if fact.id not in elsewhere)
    return FactSplit(**kinds, untold=untold), bank.relations


def _read_collisions(file: Path, needed: bool) -> tuple[Fact, ...]:
    if not file.is_file():
        if needed:
            raise UsageError(f"{file}: no such file of facts")
        return ()
    collector = Collector(BankConfig())
    collector.add(file)
    return tuple(collector.facts)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
