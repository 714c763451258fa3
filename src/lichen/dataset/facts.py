"""A fact: one entry of the readable memory, as a person writes it and as it stands in running text.

Every fact has a text. One made by rule ends in its object, spelt as running text spells it: an English word with the space
before it, Chinese without, so that the object has the same tokens in the entry as in any document. ``id`` is the data's own
or a hash of the content, so that the same fact read again is the same fact.

>>> made_fact("Ada Lovelace", "place of birth", "London").text, made_fact("杜甫", "出生地", "巩县").text
('Ada Lovelace — place of birth: London', '杜甫，出生地：巩县')
>>> rewritten(Fact("1", "Ada was born in London.", "Ada", "place of birth", "London"), object="Paris").text
'Ada was born in Paris.'
>>> problem_of(Fact("1", "red \\x1b[31m"))
('control_character', 'text holds a control character (U+001B)')
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lichen.config.errors import UsageError, nearest

# Han, kana, bopomofo, their punctuation and full-width forms; Hangul puts spaces between words
CJK = "\u2e80-\u303f\u3040-\u312f\u31a0-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\U00020000-\U0003ffff"
_STARTS_CJK = re.compile(f"[{CJK}]")
_SPACE = re.compile(r"[^\S\x1c-\x1f]+")
_UNTIDY = re.compile(r"[^\S \x1c-\x1f]|  |\A | \Z")
# C0, C1, delete, line separators, and what turns the direction of writing: a line must read as what it is
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry. Only ``id`` and ``text`` are never empty; a plain sentence has nothing else."""

    id: str
    text: str
    subject: str = ""
    relation: str = ""
    """The relation's label in words ("place of birth"), never an identifier of the data it comes from."""
    object: str = ""
    source: str = ""
    """Where it was read, such as trex/P19.jsonl."""

    @property
    def is_triple(self) -> bool:
        """Whether subject, relation and object are all there."""
        return bool(self.subject and self.relation and self.object)

    def to_data(self) -> dict[str, str]:
        """Plain data without empty fields; ``Fact(**data)`` reads it back."""
        data = {"id": self.id, "text": self.text}
        if self.subject:
            data["subject"] = self.subject
        if self.relation:
            data["relation"] = self.relation
        if self.object:
            data["object"] = self.object
        if self.source:
            data["source"] = self.source
        return data


FIELDS = tuple(field.name for field in fields(Fact))


def is_cjk(text: str) -> bool:
    """Whether ``text`` starts with a character before which running text has no space.

    >>> is_cjk("北京"), is_cjk("《红楼梦》"), is_cjk("Paris"), is_cjk("서울")
    (True, True, False, False)
    """
    return bool(_STARTS_CJK.match(text))


def in_running_text(text: str) -> str:
    """``text`` as it stands within a sentence: with the space before it, or without for Chinese and Japanese."""
    return text if is_cjk(text) else " " + text


def made_text(subject: str, relation: str, object: str) -> str:
    """The text of a fact that brings none."""
    return f"{subject}，{relation}：{object}" if is_cjk(object) else f"{subject} — {relation}: {object}"


def made_fact(subject: str, relation: str, object: str, id: str = "", source: str = "") -> Fact:
    """A fact whose text is made by rule."""
    text = made_text(subject, relation, object)
    return Fact(id or fact_id(text, subject, relation, object), text, subject, relation, object, source)


def has_made_text(fact: Fact) -> bool:
    """Whether the text is the one made by rule."""
    return fact.is_triple and fact.text == made_text(fact.subject, fact.relation, fact.object)


def fact_id(text: str, subject: str = "", relation: str = "", object: str = "") -> str:
    """16 hexadecimal digits that depend on the content alone."""
    return hashlib.sha256("\x1f".join((text, subject, relation, object)).encode()).hexdigest()[:16]


def is_untidy(text: str) -> bool:
    """Whether `tidy` would change ``text``."""
    return bool(_UNTIDY.search(text))


def tidy(text: str) -> str:
    """``text`` on one line: every run of white space is one space, none at the edges. Control characters stay, to be refused.

    >>> tidy("  a\\n b ")
    'a b'
    """
    return _SPACE.sub(" ", text).strip(" ") if is_untidy(text) else text


def problem_of(fact: Fact) -> tuple[str, str] | None:
    """Why this can not be a fact, as (cause, words); None where it can."""
    if not fact.id.strip():
        return "empty", "id is empty"
    if not fact.text.strip():
        return "empty", "text is empty"
    whole = "".join((fact.id, fact.text, fact.subject, fact.relation, fact.object, fact.source))
    if whole.isprintable() or not _FORBIDDEN.search(whole):
        return None
    for name in FIELDS:
        if found := _FORBIDDEN.search(getattr(fact, name)):
            return "control_character", f"{name} holds a control character (U+{ord(found.group()):04X})"
    return None


# --- Parts of the text ---


def places_of(part: str, text: str) -> list[int]:
    """Where ``part`` stands in ``text`` as whole words (anywhere where it is Chinese); the first characters.

    >>> places_of("Rome", "Romeo left Rome."), places_of("京", "北京")
    ([11], [1])
    """
    if not part:
        return []
    before = r"(?<!\w)" if re.match(r"\w", part) and not is_cjk(part) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", part) and not is_cjk(part[-1]) else ""
    found = re.finditer(before + re.escape(part) + after, text)
    return [match.start() for match in found]


def object_place(fact: Fact) -> int | None:
    """The first character of the object in the text; None where it does not stand there.

    Of several places that of the rule, else the first outside the subject ("New York is in New York State").
    """
    if not fact.object:
        return None
    rule = len(fact.text) - len(fact.object)
    if (
        rule - len(fact.subject) - len(fact.relation) in (2, 5)
        and fact.text.endswith(fact.object)
        and has_made_text(fact)
    ):
        return rule
    places = places_of(fact.object, fact.text)
    if len(places) > 1 and fact.subject:
        taken = [range(start, start + len(fact.subject)) for start in places_of(fact.subject, fact.text)]
        places = [place for place in places if not any(place in span for span in taken)] or places
    return places[0] if places else None


# --- Changing ---


def rewritten(fact: Fact, **changes: str) -> Fact:
    """``fact`` with other fields, and a text that says so.

    A text made by rule is made anew. In any other, a changed subject or object is replaced where it stands once; else
    the text must be given along. Raises UsageError where text and object would contradict each other.
    """
    if unknown := [name for name in changes if name not in FIELDS or name == "id"]:
        raise UsageError(f"a fact has no field {unknown[0]!r} to change{nearest(unknown[0], FIELDS[1:])}")
    after = replace(fact, **changes)
    if "text" not in changes:
        after = replace(after, text=_text_after(fact, changes, after))
    elif (
        after.object
        and not places_of(after.object, after.text)
        and ("object" in changes or object_place(fact) is not None)
    ):
        hint = "change the text" if "object" in changes else "give the new object as well"
        raise UsageError(f"the text does not hold the object {after.object!r}: {hint}")
    return after


def _text_after(fact: Fact, changes: Mapping[str, str], after: Fact) -> str:
    if has_made_text(fact) and after.is_triple:
        return made_text(after.subject, after.relation, after.object)
    text = fact.text
    for name in ("subject", "object"):
        old, new = getattr(fact, name), changes.get(name, "")
        if not new or new == old or not old:
            continue
        places = places_of(old, text)
        if len(places) != 1:
            count = f"{len(places)} times" if places else "not at all"
            raise UsageError(f"the text holds the {name} {old!r} {count}: give the new text as well")
        text = text[: places[0]] + new + text[places[0] + len(old) :]
    return text


def fact_of_data(data: Mapping[str, Any]) -> Fact:
    """The fact in plain data. Raises ValueError naming the field that is missing, unknown or no text."""
    for name, value in data.items():
        if name not in FIELDS:
            raise ValueError(f"no such field {name!r}{nearest(name, FIELDS)}")
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    for name in ("id", "text"):
        if not data.get(name):
            raise ValueError(f"{name} is missing")
    return Fact(**data)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
