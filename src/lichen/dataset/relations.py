"""Relations: an identifier, a label in words, and the sentences that say it.

Wikidata's identifiers become labels by the table below; ``relations.json`` beside the data (``{"P19": "出生地"}``) overrides it.
Patterns are lists of sentences with ``[X]`` for the subject and ``[Y]`` for the object, as ParaRel has them (Elazar et al., 2021,
"Measuring and improving consistency in pretrained language models"), in files ``P19.patterns.json``.

>>> label_of("P19"), label_of("P99999"), label_of("brother of")
('place of birth', 'P99999', 'brother of')
>>> render("[X] was born in [Y] .", "Ada Lovelace", "London")
'Ada Lovelace was born in London.'
>>> render("[X]出生于[Y]。", "杜甫", "巩县")
'杜甫出生于巩县。'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError

OVERRIDES = "relations.json"
PATTERNS = ".patterns.json"
IDENTIFIER = re.compile(r"P\d+")

LABELS: dict[str, str] = {
    "P17": "country",
    "P19": "place of birth",
    "P20": "place of death",
    "P27": "citizenship",
    "P30": "continent",
    "P31": "instance of",
    "P36": "capital",
    "P37": "official language",
    "P39": "position held",
    "P47": "shares border with",
    "P101": "field of work",
    "P103": "native language",
    "P106": "occupation",
    "P108": "employer",
    "P127": "owned by",
    "P131": "located in",
    "P136": "genre",
    "P138": "named after",
    "P140": "religion",
    "P159": "headquarters",
    "P176": "manufacturer",
    "P178": "developer",
    "P190": "twin city",
    "P264": "record label",
    "P276": "location",
    "P279": "subclass of",
    "P361": "part of",
    "P364": "original language",
    "P407": "language of work",
    "P413": "position played",
    "P449": "original broadcaster",
    "P463": "member of",
    "P495": "country of origin",
    "P527": "has part",
    "P530": "diplomatic relation",
    "P740": "place of formation",
    "P937": "work location",
    "P1001": "applies to jurisdiction",
    "P1303": "instrument",
    "P1376": "capital of",
    "P1412": "language spoken",
}
"""Wikidata identifier → label, for the relations of LAMA (Petroni et al., 2019); short, since a key spells it."""


@dataclass(frozen=True)
class Relation:
    """One relation. ``id`` is '' where the data knows it by its label only."""

    id: str
    label: str
    patterns: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Plain data, without the label, which is its key."""
        return {"id": self.id, "patterns": list(self.patterns)}


def label_of(name: str, overrides: Mapping[str, str] | None = None) -> str:
    """The label of an identifier; what is none, or is unknown, is its own label."""
    return (overrides or {}).get(name) or LABELS.get(name, name)


def read_relations(folder: str | Path) -> dict[str, Relation]:
    """By identifier, every relation that has a ``PNNN.jsonl`` or ``PNNN.patterns.json`` in ``folder`` or stands in its
    ``relations.json``. Raises LichenError at a file that is damaged or holds no patterns."""
    folder = Path(folder)
    overrides = read_overrides(folder)
    names = {path.name.split(".")[0] for path in folder.glob("P*.json*") if path.is_file()}
    ids = {name for name in names if IDENTIFIER.fullmatch(name)} | set(overrides)
    return {id: Relation(id, label_of(id, overrides), read_patterns(folder, id)) for id in sorted(ids, key=_number)}


def read_overrides(folder: Path) -> dict[str, str]:
    """The labels in ``relations.json``; none where there is no such file."""
    path = folder / OVERRIDES
    data = _read_json(path) if path.is_file() else {}
    if not isinstance(data, dict) or not all(isinstance(label, str) and label.strip() for label in data.values()):
        raise LichenError(f'{path}: identifiers and their labels are expected, such as {{"P19": "place of birth"}}')
    return data


def read_patterns(folder: Path, id: str) -> tuple[str, ...]:
    """The patterns in ``ID.patterns.json``; none where there is no such file."""
    path = folder / f"{id}{PATTERNS}"
    data = _read_json(path) if path.is_file() else []
    if not isinstance(data, list):
        raise LichenError(f"{path}: a list of sentences with [X] and [Y] is expected")
    for number, pattern in enumerate(data, start=1):
        if not isinstance(pattern, str) or "[X]" not in pattern or "[Y]" not in pattern:
            raise LichenError(f"{path}: pattern {number} is no sentence with [X] and [Y]: {str(pattern)[:60]!r}")
    return tuple(data)


def merged(relations: Iterable[Relation]) -> dict[str, Relation]:
    """By label; patterns of relations that share one are joined."""
    found: dict[str, Relation] = {}
    for relation in relations:
        before = found.get(relation.label, relation)
        patterns = tuple(dict.fromkeys((*before.patterns, *relation.patterns)))
        found[relation.label] = Relation(before.id or relation.id, relation.label, patterns)
    return found


def render(pattern: str, subject: str, object: str) -> str:
    """The sentence of a pattern, without the stray spaces that some have at their ends and before the last stop."""
    pattern = re.sub(r"\s+", " ", pattern).strip()
    pattern = re.sub(r"\s+(?=[.,;:!?。，；：！？]\Z)", "", pattern)
    parts = {"[X]": subject, "[Y]": object}
    return re.sub(r"\[[XY]\]", lambda found: parts[found.group()], pattern)


def _number(id: str) -> tuple[int, str]:
    return (int(id[1:]), id) if IDENTIFIER.fullmatch(id) else (0, id)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LichenError(f"{path}: no JSON ({error}); restore the file or remove it") from None


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
