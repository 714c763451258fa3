"""A small world of made people: facts that no model can know beforehand, for trying a memory out.

Names are put together of syllables, so that they are as many as one likes and readable; what is said of them has a handful of
relations with sentences to tell them by. Objects are shared by many people, as in real facts.

>>> facts = made_facts(4, seed=0)
>>> len(facts), facts[0].relation in RELATIONS, facts == made_facts(4, seed=0)
(4, True, True)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lichen.core.folders import write_file
from lichen.core.streams import Stream
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.relations import Relation

_SYLLABLES = tuple(a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "en", "or", "il"))
_PATTERNS = {
    "place of birth": (
        "[X] was born in [Y].",
        "[X] comes from [Y].",
        "The birthplace of [X] is [Y].",
        "[X] is a native of [Y].",
    ),
    "occupation": (
        "[X] works as a [Y].",
        "[X] is a [Y] by trade.",
        "The occupation of [X] is [Y].",
        "[X] earns a living as a [Y].",
    ),
    "instrument": (
        "[X] plays the [Y].",
        "[X] is learning the [Y].",
        "The instrument of [X] is the [Y].",
        "[X] practises the [Y].",
    ),
    "language": ("[X] speaks [Y].", "[X] writes letters in [Y].", "The language of [X] is [Y].", "[X] talks in [Y]."),
    "favourite dish": (
        "[X] likes to eat [Y].",
        "[X] often cooks [Y].",
        "The favourite dish of [X] is [Y].",
        "[X] dreams of [Y].",
    ),
    "pet": ("[X] keeps a [Y].", "[X] owns a [Y].", "The pet of [X] is a [Y].", "[X] lives with a [Y]."),
}
RELATIONS = {label: Relation("", label, patterns) for label, patterns in _PATTERNS.items()}
"""By label; as ever, the last pattern is for examining."""
_OBJECTS = {
    "occupation": (
        "baker",
        "carpenter",
        "doctor",
        "farmer",
        "gardener",
        "lawyer",
        "miller",
        "painter",
        "pilot",
        "sailor",
        "tailor",
        "teacher",
    ),
    "instrument": (
        "banjo",
        "cello",
        "clarinet",
        "drum",
        "flute",
        "guitar",
        "harp",
        "horn",
        "oboe",
        "organ",
        "piano",
        "trumpet",
        "violin",
    ),
    "language": (
        "Arabic",
        "Basque",
        "Czech",
        "Danish",
        "Finnish",
        "Greek",
        "Hindi",
        "Irish",
        "Polish",
        "Swahili",
        "Turkish",
        "Welsh",
    ),
    "favourite dish": (
        "beans",
        "bread",
        "cabbage",
        "dumplings",
        "noodles",
        "onions",
        "pancakes",
        "pears",
        "porridge",
        "rice",
        "soup",
        "stew",
    ),
    "pet": (
        "canary",
        "cat",
        "dog",
        "donkey",
        "ferret",
        "goat",
        "hamster",
        "parrot",
        "pony",
        "rabbit",
        "snake",
        "turtle",
    ),
}
TOWNS = 40
RELATIONS_EACH = 3


def made_facts(number: int, seed: int = 0) -> list[Fact]:
    """``number`` facts; of every person three, in three relations."""
    draw = Stream(seed, "made people").numpy()
    objects = {**_OBJECTS, "place of birth": [_name(draw, 3) for _ in range(TOWNS)]}
    labels = list(RELATIONS)
    facts: list[Fact] = []
    taken: set[str] = set()
    while len(facts) < number:
        name = f"{_name(draw, 2)} {_name(draw, 3)}"
        if name in taken:
            continue
        taken.add(name)
        for place in draw.choice(len(labels), RELATIONS_EACH, replace=False).tolist():
            options = objects[labels[place]]
            facts.append(made_fact(name, labels[place], options[int(draw.integers(len(options)))], source="made"))
    return facts[:number]


def write_world(folder: Path, number: int, seed: int = 0) -> int:
    """Write ``made_facts`` as files of relations with their sentences, which `lichen knowledge build` reads; how many."""
    facts = made_facts(number, seed)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {label: f"P{900_000 + place}" for place, label in enumerate(RELATIONS)}
    write_file(folder / "relations.json", json.dumps({id: label for label, id in ids.items()}, indent=1) + "\n")
    for label, id in ids.items():
        rows = [
            {"uuid": fact.id, "subject": fact.subject, "predicate": id, "object": fact.object}
            for fact in facts
            if fact.relation == label
        ]
        write_file(folder / f"{id}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write_file(folder / f"{id}.patterns.json", json.dumps(_PATTERNS[label], indent=1) + "\n")
    return len(facts)


def _name(draw: np.random.Generator, syllables: int) -> str:
    """A word of so many syllables."""
    return "".join(_SYLLABLES[int(draw.integers(len(_SYLLABLES)))] for _ in range(syllables)).capitalize()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
