"""Relations that do not exist, made of words of the general text.

A reader that only ever meets two dozen relations learns each by heart: which sentence goes with which label. With hundreds of
made ones it pays to learn what they have in common with real ones, namely that sentence and label share words; so sentences of
relations never met find theirs too. Labels have one to three words; a sentence has all of them or all but one, among words of
its own.

>>> made = invented_relations(["stone", "river", "song", "lamp"], number=2, seed=0)
>>> label, relation = next(iter(made.items()))
>>> len(made), relation.label == label, all("[X]" in pattern and "[Y]" in pattern for pattern in relation.patterns)
(2, True, True)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from lichen.core.streams import Stream
from lichen.dataset.relations import Relation

TEMPLATES = (
    "The {} of [X] is [Y].",
    "the {} of [X] was [Y].",
    "[X]'s {} is [Y].",
    "[X] has the {} [Y].",
    "[X], whose {} is [Y].",
    "[X] was {} in [Y].",
    "[X] is the {} of [Y].",
    "[X] is {} by [Y].",
    "[X], {} [Y].",
    "[X] {} [Y].",
)
PATTERNS = 5
"""Of each relation; the last is never told."""
_WORD = re.compile(r"\b[a-z]{3,9}\b")
COMMONEST, WORDS = 100, 3000
"""Words are taken after the commonest ones, which every sentence has."""


def frequent_words(texts: Iterable[str]) -> list[str]:
    """Lower-case words of ``texts``, the frequent ones first, without the commonest."""
    counts = Counter(word for text in texts for word in _WORD.findall(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return ranked[COMMONEST : COMMONEST + WORDS] or ranked


def invented_relations(words: Sequence[str], number: int, seed: int) -> dict[str, Relation]:
    """``number`` relations by label, fewer if there are not enough ``words``."""
    stream = Stream(seed, "invented relations")
    found: dict[str, Relation] = {}
    for attempt in range(4 * number):
        if len(found) == number:
            break
        draw = stream.numpy(attempt)
        size = min(len(words), int(draw.choice((1, 2, 2, 3))))
        places: list[int] = draw.choice(len(words), size, replace=False).tolist()
        label = " ".join(words[place] for place in places)
        patterns = []
        for template in draw.choice(len(TEMPLATES), PATTERNS, replace=False).tolist():
            told = label.split()
            if len(told) > 1 and draw.random() < 0.3:
                told.pop(int(draw.integers(len(told))))
            if draw.random() < 0.3:
                told.insert(int(draw.integers(len(told) + 1)), words[int(draw.integers(len(words)))])
            patterns.append(TEMPLATES[template].format(" ".join(told)))
        found.setdefault(label, Relation("", label, tuple(patterns)))
    return found


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
