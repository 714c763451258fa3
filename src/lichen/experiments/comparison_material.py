"""What a comparison is made from: facts, general text to train on, and general text to examine language on.

Facts are those of a folder, or made; general text is any, or what Python's library says of itself. Contents are known by a hash,
so that changed files change what is made of them.

>>> found = made_people(60, Path("somewhere"))
>>> found.number, len(found.split(12).told), found.folder.parent.name
(60, 12, 'somewhere')
>>> sizes, notes = settle_sizes([SizeConfig(told=100), SizeConfig(told=300), SizeConfig(told=900)], 250)
>>> [size.told for size in sizes], notes
([100, 250], ['300 facts told: made 250, as there are no more', '900 facts told: left out, as there are 250'])
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config.comparison import ComparisonConfig, SizeConfig
from lichen.config.errors import UsageError, nearest
from lichen.config.knowledge import BankConfig
from lichen.core.disk import rename
from lichen.core.folders import partial_of, remove_folder, sha256_file
from lichen.dataset import standard_library
from lichen.dataset.fact_collection import Collector
from lichen.dataset.fact_split import FactSplit, split_facts
from lichen.dataset.made_facts import RELATIONS, made_facts, write_world
from lichen.dataset.relations import merged, read_relations
from lichen.experiments.processes import identity

MADE, STANDARD_LIBRARY = "made", "standard-library"
COLLISIONS = "collisions.jsonl"
HELD_OUT = 0.03
"""The share of Python's library that is held out: that which `lichen knowledge texts` leaves out."""
TOLD_SHARE = 0.48
"""Of made facts, so many are told at least: six tenths of those of five relations out of six (one is always left out)."""


@dataclass(frozen=True)
class Facts:
    """The facts of a comparison."""

    folder: Path
    """Where they are, or will be."""
    id: str
    """Tells their contents from any other."""
    split: Callable[[int | None], FactSplit]
    """Who is told what, with so many told at most; without what texts invent beside them."""
    number: int | None = None
    """How many are to be made; None for facts that are there."""


@dataclass(frozen=True)
class Material:
    """Everything by its path; an ``_id`` tells contents from any other."""

    facts: Path
    """The folder that the bank is built from."""
    facts_id: str
    general: tuple[Path, ...]
    """Files of general text to train on."""
    general_id: str
    held_out: tuple[Path, ...]
    """Files of general text to examine language on."""
    held_out_id: str
    collisions: Path | None = None
    """A file of invented facts about real subjects, which training text must not contradict."""


# --- Facts ---


def find_facts(word: str, settings: ComparisonConfig, output: Path) -> Facts:
    """The facts that ``word`` names: a folder, or made. Raises UsageError where there are none."""
    if word == MADE:
        return made_people(settings.made or round(max(size.told for size in settings.sizes) / TOLD_SHARE), output)
    folder = Path(word)
    if not folder.is_dir():
        names = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
        raise UsageError(f"{folder}: no such folder of facts{nearest(folder.name, [MADE, *names])}")
    collector = Collector(BankConfig())
    collector.add(folder)
    relations = merged([*read_relations(folder).values(), *collector.relations.values()])
    return Facts(folder, contents([folder]), lambda limit: split_facts(collector.facts, relations, limit))


def made_people(number: int, output: Path) -> Facts:
    """Facts about ``number / 3`` people who do not exist, to be written below ``output``."""
    facts, id = made_facts(number), identity({MADE: number})
    return Facts(output / f"facts-{id}", id, lambda limit: split_facts(facts, RELATIONS, limit), number)


def settle_sizes(sizes: Sequence[SizeConfig], available: int) -> tuple[tuple[SizeConfig, ...], list[str]]:
    """The sizes there are facts for, smallest first, and what has become of the others."""
    if not available:
        raise UsageError("none of the facts can be told: a relation needs two patterns at least ([X] …, [Y] …)")
    settled: dict[int, SizeConfig] = {}
    notes = []
    for size in sorted(sizes, key=lambda size: size.told):
        told = min(size.told, available)
        if told < size.told:
            become = f"left out, as there are {told:,}" if told in settled else f"made {told:,}, as there are no more"
            notes.append(f"{size.told:,} facts told: {become}")
        settled.setdefault(told, size.model_copy(update={"told": told}))
    return tuple(settled.values()), notes


# --- Texts ---


def material_of(facts: Facts, settings: ComparisonConfig, output: Path) -> Material:
    """Facts and texts; Python's own text is to be written below ``output``. Raises UsageError for a text that is not there."""
    own = {"held out": HELD_OUT, "kinds": settings.library, "python": platform.python_version()}
    library = output / f"library-{identity(own)}"
    train, held = ([library / side / f"{kind}.jsonl" for kind in settings.library] for side in ("train", "validation"))
    others = [Path(name) for name in settings.general if name != STANDARD_LIBRARY]
    general = [path for name in settings.general for path in (train if name == STANDARD_LIBRARY else [Path(name)])]
    collisions = facts.folder / COLLISIONS
    return Material(
        facts=facts.folder,
        facts_id=facts.id,
        general=tuple(general),
        general_id=identity([own if STANDARD_LIBRARY in settings.general else None, contents(others)]),
        held_out=settings.language.text or tuple(held),
        held_out_id=contents(settings.language.text) if settings.language.text else identity(own),
        collisions=collisions if collisions.is_file() else None,
    )


def contents(paths: Sequence[Path]) -> str:
    """A hash of the files at ``paths``: files, folders, globs. Raises UsageError where there is none."""
    found: list[tuple[str, str]] = []
    for path in paths:
        root = path if path.is_dir() else path.parent
        pattern = "**/*" if path.is_dir() else path.name
        files = [path] if path.is_file() else [file for file in sorted(root.glob(pattern)) if file.is_file()]
        if not files:
            raise UsageError(f"{path}: no such file, folder or glob")
        found += [(file.relative_to(root).as_posix(), sha256_file(file)) for file in files]
    return identity(found)


def make(facts: Facts, material: Material, output: Path) -> None:
    """Write made facts and Python's own text, unless they are there."""
    if facts.number is not None:
        number = facts.number
        _whole(facts.folder, lambda path: write_world(path, number))
    inside = [path for path in (*material.general, *material.held_out) if output in path.parents]
    for library in dict.fromkeys(path.parents[1] for path in inside if path.parents[1].name.startswith("library-")):
        _whole(library, lambda path: standard_library.collect(path, HELD_OUT))


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    if not path.exists():
        remove_folder(partial_of(path))
        write(partial_of(path))
        rename(partial_of(path), path)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
