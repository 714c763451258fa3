"""Relations that do not exist, made of words of the general text.

A reader that only ever meets two dozen relations learns each by heart: which sentence goes with which label. With hundreds of
made ones it pays to learn what they have in common with real ones: a sentence names its subject, goes on in one of many ways,
and most often shares words with the relation's label. So sentences of relations never met find their fact too.

The ways to go on are the sentences of the real relations without their content words ("[X] maintains diplomatic relations with
[Y]." gives "[X] {} with [Y]."), and some beside them. Labels have one to three words; a sentence has all of them or all but one,
among words of its own, before the object or behind it. One relation in three shares no word with its sentences, as "place of
birth" shares none with "was born in": there the subject has to do, as it has where the object comes first.

>>> words = Words(common=frozenset(["with", "the"]), others=("stone", "river", "song", "lamp"))
>>> skeletons(["[X] maintains diplomatic relations with [Y].", "[X] is a [Y]."], words.common)
('[X] {} with [Y].',)
>>> made = invented_relations(words, number=2, seed=0)
>>> label, relation = next(iter(made.items()))
>>> len(made), relation.label == label, all("[X]" in pattern and "[Y]" in pattern for pattern in relation.patterns)
(2, True, True)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.relations import Relation

NOUN_TEMPLATES = (
    "The {} of [X] is [Y].",
    "the {} of [X] was [Y].",
    "[X]'s {} is [Y].",
    "[X] has the {} [Y].",
    "[X], whose {} is [Y].",
)
TEMPLATES = (
    *NOUN_TEMPLATES,
    "[X] was {} in [Y].",
    "[X] is the {} of [Y].",
    "[X] is {} by [Y].",
    "[X], {} [Y].",
    "[X] {} [Y].",
    "[X] is a [Y] {}.",
    "[X] is the [Y] {}.",
    "[X], a [Y] {}, is there.",
    "[X] is in [Y] {}.",
    "[X] was with [Y] {}.",
)
PATTERNS = 5
"""Of each relation; the last is never told."""
UNLIKE = 0.35
"""Share of the relations whose sentences have none of the label's words."""
SHORT = 2
"""Words of so many letters join others rather than mean something of their own."""
_WORD = re.compile(r"\b[a-z]{3,9}\b")
_CONTENT = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_OF_A_NOUN = re.compile(r"(?i)\bthe \{\}|'s \{\}|whose \{\}")
_PREPOSITION = re.compile(r" (?:of|in|by|for|with|after|at|on|to|from)\Z")
_GAPS = re.compile(r"\{\}(?:\s+\{\})+")
COMMONEST, WORDS = 100, 3000
"""Words are taken after the commonest ones, which every sentence has."""


@dataclass(frozen=True)
class Words:
    """The words of a general text."""

    common: frozenset[str]
    """The commonest."""
    others: tuple[str, ...]
    """Those that follow, frequent ones first."""


def frequent_words(texts: Iterable[str]) -> Words:
    """The lower-case words of ``texts``."""
    counts = Counter(word for text in texts for word in _WORD.findall(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    others = ranked[COMMONEST : COMMONEST + WORDS]
    return Words(frozenset(ranked[:COMMONEST] if others else ()), tuple(others or ranked))


def skeletons(patterns: Iterable[str], common: frozenset[str]) -> tuple[str, ...]:
    """What is left of ``patterns`` without their content words, ``{}`` for each run of these.

    Those without one are left out, and those that name the object first, at which nothing is to be read.
    """
    found = (_GAPS.sub("{}", _CONTENT.sub(lambda word: _kept(word.group(), common), pattern)) for pattern in patterns)
    return tuple(dict.fromkeys(form for form in found if "{}" in form and form.find("[X]") < form.find("[Y]")))


def _kept(word: str, common: frozenset[str]) -> str:
    is_kept = word in ("X", "Y") or len(word) <= SHORT or word.lower() in common
    return word if is_kept else "{}"


def invented_relations(words: Words, number: int, seed: int, patterns: Iterable[str] = ()) -> dict[str, Relation]:
    """``number`` relations by label, fewer if there are not enough ``words``; ``patterns`` of real ones give theirs a form."""
    stream = Stream(seed, "invented relations")
    forms = (*TEMPLATES, *skeletons(patterns, words.common))
    found: dict[str, Relation] = {}
    for attempt in range(4 * number):
        if len(found) == number:
            break
        draw = stream.numpy(attempt)
        label = _drawn(draw, words.others, int(draw.choice((1, 2, 2, 3))))
        told = _drawn(draw, words.others, len(label)) if draw.random() < UNLIKE else label
        chosen = draw.choice(len(forms), PATTERNS, replace=False).tolist()
        sentences = tuple(
            _filled(forms[form], _varied(told, words.others, draw), words.others, draw) for form in chosen
        )
        found.setdefault(" ".join(label), Relation("", " ".join(label), sentences))
    return found


def with_label_sentences(
    relations: Mapping[str, Relation], words: Words, number: int, seed: int, patterns: Iterable[str] = ()
) -> dict[str, Relation]:
    """``relations`` with ``number`` more sentences each, which say the label as a noun ("[X]'s place of birth is [Y]."),
    before the last, so that this one stays the one that is never told. Relations of a single pattern stay as they are.

    >>> born = Relation("P19", "place of birth", ("[X] was born in [Y].", "[X] comes from [Y]."))
    >>> with_label_sentences({"place of birth": born}, Words(frozenset(), ("stone",)), 1, seed=0)["place of birth"].patterns
    ('[X] was born in [Y].', 'the place of birth of [X] was [Y].', '[X] comes from [Y].')
    """
    stream = Stream(seed, "label sentences")
    forms = (*NOUN_TEMPLATES, *skeletons(patterns, words.common))
    forms = tuple(form for form in dict.fromkeys(forms) if _OF_A_NOUN.search(form) and form.count("{}") == 1)
    found: dict[str, Relation] = {}
    for place, (label, relation) in enumerate(relations.items()):
        chosen = stream.numpy(place).choice(len(forms), min(number, len(forms)), replace=False).tolist()
        noun = _without_preposition(label)
        more = [forms[form].format(noun) for form in chosen] if len(relation.patterns) > 1 else []
        told = dict.fromkeys((*relation.patterns[:-1], *more))
        found[label] = replace(relation, patterns=(*told, *relation.patterns[-1:]))
    return found


def _without_preposition(label: str) -> str:
    """A label as it stands before another preposition, or as a noun.

    >>> _without_preposition("part of"), _without_preposition("place of birth"), _without_preposition("in")
    ('part', 'place of birth', 'in')
    """
    return _PREPOSITION.sub("", label) or label


def _drawn(draw: np.random.Generator, words: Sequence[str], number: int) -> list[str]:
    places: list[int] = draw.choice(len(words), min(len(words), number), replace=False).tolist()
    return [words[place] for place in places]


def _varied(told: Sequence[str], words: Sequence[str], draw: np.random.Generator) -> list[str]:
    """Now and then a word less, or another one among them."""
    varied = list(told)
    if len(varied) > 1 and draw.random() < 0.3:
        varied.pop(int(draw.integers(len(varied))))
    if draw.random() < 0.3:
        varied.insert(int(draw.integers(len(varied) + 1)), words[int(draw.integers(len(words)))])
    return varied


def _filled(form: str, told: Sequence[str], words: Sequence[str], draw: np.random.Generator) -> str:
    """``form`` with ``told`` shared out among its gaps; a gap that gets none has another word."""
    gaps = form.count("{}")
    cuts = np.linspace(0, len(told), gaps + 1).round().astype(int).tolist()
    parts = [" ".join(told[start:stop]) for start, stop in pairwise(cuts)]
    return form.format(*(part or words[int(draw.integers(len(words)))] for part in parts))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
