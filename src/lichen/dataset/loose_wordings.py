"""Sentences that say a fact in other words than their pattern: what stands between subject and object is changed a little.

A reader that meets "used to communicate in", "used to communicate in" … goes on with "to communicate" wherever it reads "used",
whatever it has found. So a share of the sentences have another little word before the object, or one more, lack a word, or have a
strange one in the place of their own, as sentences have that nobody foresaw. Some are left with next to nothing between the two:
after "Ada is a" any fact about her may come. Subject and object stay where they are.

>>> words = Words(common=frozenset(), others=("stone", "river"))
>>> [loosened("[X] used to communicate in [Y].", words, np.random.default_rng(seed)) for seed in (0, 2, 3)]
['[X] stone to communicate on [Y].', '[X] used to stone for [Y] river.', '[X] is [Y].']
"""

from __future__ import annotations

import numpy as np

from lichen.dataset.invented_relations import Words

LITTLE = ("in", "at", "on", "of", "by", "for", "to", "from", "with", "as", "is", "was", "the", "near", "into")
"""Words that join an object to what is said of it."""
ARTICLES = ("a", "an", "the")
BARE = ("is", "is", "is", "was", "was", "has", "had", "became", "and")
"""What may be all that is said, but for an article."""
LONG = 4
"""Words of so many letters mean something of their own."""


def loosened(pattern: str, words: Words, draw: np.random.Generator) -> str:
    """``pattern`` with some of the changes; unchanged where the object comes first or nothing stands between the two."""
    parts = pattern.split()
    subject, object = (next((n for n, part in enumerate(parts) if name in part), -1) for name in ("[X]", "[Y]"))
    if not words.others or not 0 <= subject < object - 1:
        return pattern
    before, between, after = parts[: subject + 1], parts[subject + 1 : object], parts[object:]
    between = _bare(draw) if draw.random() < 0.2 else _joined(_strange(between, words, draw), draw)
    if len(after) == 1 and draw.random() < 0.2:
        name, _, rest = after[0].partition("[Y]")
        after = [f"{name}[Y]", _any(words.others, draw) + rest]
    return " ".join([*_strange(before, words, draw), *between, *after])


def before_object(pattern: str) -> str:
    """What a sentence of this pattern says before its object, however it is spaced."""
    return " ".join(pattern.partition("[Y]")[0].split())


def _bare(draw: np.random.Generator) -> list[str]:
    """Next to nothing."""
    return [_any(BARE, draw), *([_any(ARTICLES, draw)] if draw.random() < 0.7 else [])]


def _strange(parts: list[str], words: Words, draw: np.random.Generator) -> list[str]:
    """Now and then a word is another one, or missing, or one more is there."""
    long = [place for place, part in enumerate(parts) if part.isalpha() and len(part) >= LONG]
    parts = list(parts)
    if long and draw.random() < 0.3:
        parts[long[int(draw.integers(len(long)))]] = _any(words.others, draw)
    elif len(long) > 1 and draw.random() < 0.3:
        del parts[long[int(draw.integers(len(long)))]]
    elif len(parts) > 1 and draw.random() < 0.2:
        parts.insert(int(draw.integers(1, len(parts))), _any(words.others, draw))
    return parts


def _joined(parts: list[str], draw: np.random.Generator) -> list[str]:
    """Another little word before the object, or one more."""
    last = parts[-1]
    if draw.random() < 0.6:
        if last.isalpha() and len(last) < LONG and len(parts) > 1:
            parts = parts[:-1]
        parts = [*parts, _any(LITTLE, draw)]
    if parts[-1] not in ARTICLES and draw.random() < 0.3:
        parts = [*parts, "the"]
    return parts


def _any(words: tuple[str, ...], draw: np.random.Generator) -> str:
    return words[int(draw.integers(len(words)))]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
