"""How a fact is asked for in running text: sentences of its relation, cut before the object.

A wording is a pattern in which the subject comes before the object; what stands before the object is the prompt, and the model
goes on by itself. The relation's last pattern is the ``unseen`` one, which no training text uses; all others are ``trained``.
"a" or "an" before the object would tell how it begins: such a wording is used only where there is no other, and fits.
Some prompts have two right ends: "Ada is a" may be continued by her occupation or by her instrument. For a subject about which
the bank knows both, such a wording is ambiguous and not used.

>>> wording = Wording.of("[X] was born in [Y] .")
>>> wording.prompt("Ada"), wording.continuation("Ada", "London"), Wording.of("[Y] is the birthplace of [X].")
('Ada was born in', ' London.', None)
>>> begins_with(" new york. It", "New York"), begins_with(" Parisian", "Paris"), begins_with("北京人", "北京")
(True, False, True)
>>> begins_with(" the Danube", "Danube")
True
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from lichen.dataset.facts import is_cjk
from lichen.dataset.relations import render

if TYPE_CHECKING:
    from lichen.dataset.relations import Relation

Choice = Literal["trained", "unseen"]
_ARTICLE = re.compile(r"(?<!\w)(an?)\Z", re.IGNORECASE)
_LEADING = re.compile(r"\A(?:an?|the)(?: |\Z)")
_CUT = "\ue000"  # of the private use area: in no text


@dataclass(frozen=True)
class Wording:
    """A pattern in which the object comes after the subject."""

    pattern: str

    @classmethod
    def of(cls, pattern: str) -> Self | None:
        """The wording of ``pattern``; None where the object comes first, or nothing tells what is asked for."""
        subject, object = pattern.find("[X]"), pattern.find("[Y]")
        if not 0 <= subject < object or not pattern[subject + 3 : object].strip(" ,;:\"'"):
            return None
        return cls(pattern)

    def prompt(self, subject: str) -> str:
        """What stands before the object, without the space at its end."""
        return self._parts(subject)[0].rstrip(" ")

    def continuation(self, subject: str, object: str, with_rest: bool = True) -> str:
        """The object with the space before it, and what follows it in the sentence."""
        before, rest = self._parts(subject)
        space = before[len(before.rstrip(" ")) :]
        return space + object + (rest if with_rest else "")

    @cached_property
    def tells(self) -> bool:
        """Whether an article before the object tells how that begins."""
        return _ARTICLE.search(self.opening) is not None

    def fits(self, object: str) -> bool:
        """Whether the article before the object, if there is one, is the right one for it.

        >>> Wording("[X] is an [Y].").fits("actor"), Wording("[X] is a [Y].").fits("actor"), Wording("[X], [Y]").fits("x")
        (True, False, True)
        """
        found = _ARTICLE.search(self.opening)
        return found is None or (found.group(1).casefold() == "an") == object[:1].casefold().startswith(tuple("aeiou"))

    @cached_property
    def opening(self) -> str:
        """The prompt with the subject left open."""
        return self.prompt("[X]")

    def _parts(self, subject: str) -> tuple[str, str]:
        before, _, rest = render(self.pattern, subject, _CUT).partition(_CUT)
        return before, rest


class Wordings:
    """The wordings of all ``relations`` (by label), and which of them could be continued by another relation."""

    def __init__(self, relations: Mapping[str, Relation]):
        self._sentences = {label: frozenset(map(_plain, relation.patterns)) for label, relation in relations.items()}
        self._patterns = {label: relation.patterns for label, relation in relations.items()}
        self._ordered = sorted(
            (without_article(sentence), label) for label, found in self._sentences.items() for sentence in found
        )
        self._found: dict[tuple[str, str], list[Wording]] = {}
        self._rivals: dict[tuple[str, str], frozenset[str]] = {}

    def of(self, relation: str, choice: Choice, any_is_unseen: bool = False) -> list[Wording]:
        """The wordings to choose among; ``any_is_unseen`` for a relation that was left out of training altogether."""
        key = (relation, "any" if any_is_unseen else choice)
        if key not in self._found:
            patterns = self._patterns.get(relation, ())
            chosen = patterns if any_is_unseen else patterns[:-1] if choice == "trained" else patterns[-1:]
            self._found[key] = [wording for pattern in chosen if (wording := Wording.of(pattern)) is not None]
        return self._found[key]

    def rivals(self, relation: str, wording: Wording) -> frozenset[str]:
        """Other relations of which a sentence begins as this prompt does.

        >>> from lichen.dataset.relations import Relation
        >>> wordings = Wordings({
        ...     "occupation": Relation("", "occupation", ("[X] is a [Y] by profession.",)),
        ...     "instrument": Relation("", "instrument", ("[X] is a [Y] player.",)),
        ...     "place of birth": Relation("", "place of birth", ("[X] was born in [Y].",)),
        ... })
        >>> sorted(wordings.rivals("instrument", Wording.of("[X] is a [Y] player.")))
        ['occupation']
        """
        key = (relation, wording.pattern)
        if key not in self._rivals:
            opening = without_article(_plain(wording.opening))
            like = itertools.islice(self._ordered, bisect_left(self._ordered, (opening, "")), None)
            like = itertools.takewhile(lambda found: found[0].startswith(opening), like)
            self._rivals[key] = frozenset(
                label for sentence, label in like if label != relation and _opens(opening, sentence)
            )
        return self._rivals[key]

    def goes_on(self, relation: str, wording: Wording) -> bool:
        """Whether the relation has a longer sentence that begins as this prompt does: the object need not be next.

        >>> from lichen.dataset.relations import Relation
        >>> wordings = Wordings({"instrument": Relation("", "instrument", ("[X] plays [Y].", "[X] plays the [Y]."))})
        >>> [wordings.goes_on("instrument", wording) for wording in wordings.of("instrument", "trained")]
        [True]
        """
        opening = _plain(wording.opening)
        openings = (sentence.partition("[y]")[0].strip() for sentence in self._sentences[relation])
        return any(other.startswith(f"{opening} ") for other in openings)

    def share_a_sentence(self, one: str, other: str) -> bool:
        """Whether both relations are said by an equal sentence ("[X] is located in [Y]"): no text can tell them apart."""
        return bool(self._sentences.get(one, frozenset()) & self._sentences.get(other, frozenset()))


def begins_with(text: str, answer: str) -> bool:
    """Whether ``text`` begins with ``answer`` as whole words, whatever the case; Chinese has no border to look for. An article
    before either does not count (Rajpurkar et al., 2016).
    """
    text, answer = (without_article(folded(part)) for part in (text, answer))
    if not answer or not text.startswith(answer):
        return False
    rest = text[len(answer) :]
    inside = bool(rest) and rest[0].isalnum() and answer[-1].isalnum()
    return not inside or is_cjk(rest) or is_cjk(answer[-1])


def without_article(text: str) -> str:
    """``text``, folded, without the article it may begin with; one that may be cut off ("th") stays."""
    return _LEADING.sub("", text, count=1)


def folded(text: str) -> str:
    """``text`` for comparing: composed characters, no case, single spaces, none at the edges."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _plain(pattern: str) -> str:
    return folded(render(pattern, "[X]", "[Y]")).rstrip(" .,;")


def _opens(opening: str, sentence: str) -> bool:
    """Whether ``sentence`` begins with ``opening`` as whole words, its object not yet said."""
    return begins_with(sentence, opening) and "[y]" not in opening


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
