"""Text that tells facts, for experiments: general text with sentences between its own, and the bank that goes with it.

Which facts are told, stand in the bank only or are added later is decided by ``fact_split``.

    texts.jsonl                              {"text", "facts": the ids told}; what lichen prepare reads
    bank/                                    the bank for training, and for lichen prepare --knowledge.bank
    told.jsonl  bank_only.jsonl  added.jsonl  unseen_relations.jsonl          the facts of each kind
    invented.jsonl                           those told beside them that nobody is asked for, if there are any
    counts.json

Three kinds of text can be made of the same: the general text alone (``pretrain``), the facts alone (``trex``), or both
(``combined``): passages of general text, cut between sentences, in which sentences that tell facts stand between others, as
many as leave the general text its share. No fact is told twice in a document. With ``quoted`` entries of the bank stand before
most of these sentences (``quoting``); they count as what tells facts, not as general text.

>>> sentences("One. Two!\\n\\nThree")
['One. ', 'Two!\\n\\n', 'Three']
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lichen.config.errors import LichenError, UsageError
from lichen.config.prepare import FactTextsConfig
from lichen.core.folders import whole_folder, write_file
from lichen.core.streams import Stream
from lichen.dataset.bank import line_of, write_bank
from lichen.dataset.fact_split import FactSplit, companions, split_facts, told_patterns
from lichen.dataset.facts import Fact, in_running_text, is_cjk
from lichen.dataset.invented_relations import Words, frequent_words, invented_relations, with_label_sentences
from lichen.dataset.loose_wordings import before_object, loosened
from lichen.dataset.quoting import Quoter, quoted
from lichen.dataset.relations import Relation, render

_BORDER = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])[”’」』）]*\s*|\n[^\S\n]*\n\s*")
_STOPS = (".", "!", "?", "。", "！", "？")


# --- Sentences ---


def tell(fact: Fact, relation: Relation, choice: float, change: Callable[[str], str] = str) -> str:
    """A sentence that says ``fact``, by one of the patterns that text may use, as ``change`` makes it; ``choice`` in [0, 1).

    >>> from lichen.dataset.facts import made_fact
    >>> tell(made_fact("Ada", "job", "actor"), Relation("", "job", ("[X] is a [Y]", "[X] is an [Y]", "last [X] [Y]")), 0.1)
    'Ada is an actor.'
    """
    sentence = render(change(_pattern(fact, relation, choice)), fact.subject, fact.object)
    if sentence.endswith(_STOPS):
        return sentence
    return sentence.rstrip(" ,;:，；：") + ("。" if is_cjk(sentence[-1]) else ".")


def _pattern(fact: Fact, relation: Relation, choice: float) -> str:
    """The pattern that ``choice`` falls on, among those with the article that the object wants."""
    patterns = told_patterns(relation)
    vowel = fact.object[:1].lower() in "aeiou"
    wrong = r"\ba(?=[ ]\[Y\])" if vowel else r"\ban(?=[ ]\[Y\])"
    patterns = [pattern for pattern in patterns if not re.search(wrong, pattern)] or list(patterns)
    return patterns[int(choice * len(patterns))]


def sentences(text: str) -> list[str]:
    """``text`` cut behind its sentences and blank lines; joined they are the text."""
    ends = [match.end() for match in _BORDER.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def passages(text: str, characters: int) -> Iterator[list[str]]:
    """The sentences of ``text`` in groups of about ``characters``; what is no sentence for so long is cut between lines."""
    group: list[str] = []
    size = 0
    for sentence in sentences(text.strip()):
        for piece in [sentence] if len(sentence) <= characters else sentence.splitlines(keepends=True):
            group.append(piece)
            size += len(piece)
            if size >= characters:
                yield group
                group, size = [], 0
    if group:
        yield group


def interspersed(passage: Sequence[str], told: Sequence[str], places: Sequence[int]) -> str:
    """``passage`` with each sentence of ``told`` before the sentence at its place (their number: at the end).

    >>> interspersed(["One. ", "Two."], ["A.", "B."], [1, 2]), interspersed(["一。", "二。"], ["三。"], [1])
    ('One. A. Two. B.', '一。三。二。')
    """
    before: dict[int, list[str]] = defaultdict(list)
    for sentence, place in zip(told, places, strict=True):
        before[place].append(sentence)
    text = ""
    for number, sentence in enumerate([*passage, ""]):
        for piece in (*before[number], sentence):
            text += _space_between(text, piece) + piece
    return text.rstrip()


def _space_between(before: str, after: str) -> str:
    if not before or not after or before[-1].isspace() or is_cjk(before[-1]) or is_cjk(after):
        return ""
    return " "


# --- Documents ---


@dataclass(frozen=True)
class Document:
    """A text and the facts it tells."""

    text: str
    facts: tuple[str, ...] = ()

    def to_line(self) -> str:
        """As it stands in ``texts.jsonl``."""
        return json.dumps({"text": self.text, "facts": list(self.facts)}, ensure_ascii=False) + "\n"


def write_fact_texts(
    folder: str | Path,
    facts: Iterable[Fact],
    relations: Mapping[str, Relation],
    general: Iterable[str] = (),
    config: FactTextsConfig | None = None,
    *,
    reserved: Iterable[Fact] = (),
    measure: Callable[[str], int] = len,
) -> dict[str, Any]:
    """Write the folder described above, whole or not at all; returns its counts.

    Args:
        folder: where; it must not exist.
        facts: all there are, triples with ids.
        relations: by label, with their patterns (see `lichen.dataset.relations.merged`).
        general: documents of general text; not needed for kind ``trex``.
        config: kind, shares, repeats; see its class.
        reserved: facts of a set that is added later. Nothing is invented about their subjects, and facts with the subject and
            relation of one of them are set aside, since they would contradict it.
        measure: the size of a text, by which general text gets its share: characters, or tokens of a tokenizer.

    Raises:
        UsageError: the place is taken, or no fact can be told.
        LichenError: the general text is too short for its share.
    """
    folder, config = Path(folder), config or FactTextsConfig()
    if folder.exists():
        raise UsageError(f"{folder}: exists already; choose another folder, or remove it")
    reserved, facts = list(reserved), list(facts)
    pairs, subjects = {(fact.subject, fact.relation) for fact in reserved}, {fact.subject for fact in reserved}
    kept = [fact for fact in facts if (fact.subject, fact.relation) not in pairs]
    split = split_facts(kept, relations, config.limit, config.seed)
    general = list(general)
    share, most = config.companions, config.companion_relations
    real = [pattern for relation in _tellable(relations, split) for pattern in told_patterns(relation)]
    words = frequent_words(general)
    made = invented_relations(words, config.invented_relations, config.seed, real)
    made = {label: relation for label, relation in made.items() if label not in relations}
    invented = companions(split, relations, share, most, config.seed, subjects, made) if share else []
    split = replace(split, told=(*split.told, *invented))
    spoken = with_label_sentences(relations, words, config.label_sentences, config.seed, real)
    teller = _Teller(split, {**spoken, **made}, config, measure, words)
    relations = {**relations, **made}
    documents = list(
        teller.documents([group for text in general for group in passages(text, config.passage_characters)])
    )
    if not documents:
        raise UsageError(
            f"kind {config.kind}: there is nothing to write; give general text, or facts with two patterns"
        )
    counts = _counts(config, split, teller, documents, len(invented), len(facts) - len(kept))
    files = {"told": split.told[: len(split.told) - len(invented)]} | ({"invented": invented} if invented else {})
    files |= {name: getattr(split, name) for name in ("bank_only", "added", "unseen_relations")}
    with whole_folder(folder, config.to_data()) as place:
        write_file(place / "texts.jsonl", "".join(document.to_line() for document in documents))
        for name, kind in files.items():
            write_file(place / f"{name}.jsonl", "".join(map(line_of, kind)))
        write_bank(place / "bank", split.bank, relations)
        write_file(place / "counts.json", json.dumps(counts, indent=1) + "\n")
    return counts


def _counts(
    config: FactTextsConfig,
    split: FactSplit,
    teller: _Teller,
    documents: Sequence[Document],
    invented: int,
    set_aside: int,
) -> dict[str, Any]:
    """What ``counts.json`` says."""
    size = sum(teller.measure(document.text) for document in documents)
    kinds = ("told", "bank_only", "added", "unseen_relations", "untold", "bank")
    return {
        "kind": config.kind,
        "documents": len(documents),
        "size": size,
        "sentences_that_tell": sum(len(document.facts) for document in documents),
        "size_of_these": teller.told_size,
        "size_of_quotations": teller.quoted_size,
        "invented": invented,
        "set_aside": set_aside,
        **{name: len(getattr(split, name)) for name in kinds},
        "general_share": round(1 - teller.told_size / max(1, size), 4),
    }


def _tellable(relations: Mapping[str, Relation], split: FactSplit) -> list[Relation]:
    """The relations that text may tell facts of."""
    return [relations[label] for label in sorted({fact.relation for fact in split.told}) if label in relations]


Mention = tuple[str, str]
"""A fact's id and the sentence that tells it."""


class _Teller:
    """Makes documents of passages and facts."""

    def __init__(
        self,
        split: FactSplit,
        relations: Mapping[str, Relation],
        config: FactTextsConfig,
        measure: Callable[[str], int],
        words: Words,
    ):
        self.config = config
        self.words = words
        self.relations = relations
        self.measure = measure
        self.told_size = 0
        """Of all sentences that tell facts, quotations before them included."""
        self.quoted_size = 0
        """Of these quotations."""
        self.quoter = Quoter(split.bank, config.quoted) if config.quoted else None
        told = split.told if config.told == "seen" else (*split.told, *split.bank_only)
        self.facts = [fact for fact in told if told_patterns(relations.get(fact.relation, Relation("", "")))]

    def documents(self, general: list[list[str]]) -> Iterator[Document]:
        """The documents of the kind asked for; ``general`` are passages."""
        if self.config.kind == "pretrain":
            yield from (Document("".join(passage).strip()) for passage in general)
            return
        alone, mentions = self._apart(self._mentions())
        yield from (Document(text, (id,)) for id, text in alone)
        if self.config.kind == "trex":
            most = self.config.facts_per_document
            sizes = [float(min(most, len(mentions) - first)) for first in range(0, len(mentions), most)]
            groups: list[list[str]] = [[] for _ in sizes]
        else:
            groups = self._enough(general)
            sizes = [float(self.measure("".join(group))) for group in groups]
        places = Stream(self.config.seed, "places")
        for number, (group, told) in enumerate(zip(groups, _shared_out(mentions, sizes), strict=True)):
            draw = places.numpy(number).integers(0, len(group) + 1, len(told))
            yield Document(interspersed(group, [text for _, text in told], draw.tolist()), tuple(id for id, _ in told))

    def _apart(self, mentions: Sequence[Mention]) -> tuple[list[Mention], list[Mention]]:
        """Those that are a document of their own, and the others."""
        draw = Stream(self.config.seed, "alone").numpy().random(len(mentions)) < self.config.alone
        parts = [
            [mention for mention, apart in zip(mentions, draw, strict=True) if apart == wanted] for wanted in (1, 0)
        ]
        return parts[0], parts[1]

    def _mentions(self) -> list[Mention]:
        """(id, sentence) of every time that a fact is told: all facts in an order of their own, as often as asked for."""
        found: list[Mention] = []
        for turn in range(self.config.repeats):
            draw = Stream(self.config.seed, "sentences").numpy(turn)
            choices = draw.random(len(self.facts))
            for number in draw.permutation(len(self.facts)).tolist():
                fact = self.facts[number]
                change = partial(self._changed, turn, number)
                sentence = tell(fact, self.relations[fact.relation], float(choices[number]), change)
                entries = self._entries(fact, float(choices[number]), turn, number)
                text = quoted(entries, sentence)
                size = self.measure(in_running_text(text))
                self.told_size += size
                self.quoted_size += size - self.measure(in_running_text(sentence)) if entries else 0
                found.append((fact.id, text))
        return found

    def _changed(self, turn: int, number: int, pattern: str) -> str:
        """The pattern of a mention, now and then a little changed, but never into what shall be new to a model."""
        draw = Stream(self.config.seed, "loose sentences").numpy(turn, number)
        if draw.random() >= self.config.loose:
            return pattern
        changed = loosened(pattern, self.words, draw)
        kept = self.relations[self.facts[number].relation].patterns[-1]
        return pattern if before_object(changed) == before_object(kept) else changed

    def _entries(self, fact: Fact, choice: float, *mention: int) -> list[Fact]:
        """What is quoted before a sentence. Its object is no part of the search: it would find whoever shares it."""
        if self.quoter is None:
            return []
        query = render(_pattern(fact, self.relations[fact.relation], choice), fact.subject, "")
        return self.quoter.now_and_then(fact, query, Stream(self.config.seed, "quotations").numpy(*mention))

    def _enough(self, general: list[list[str]]) -> list[list[str]]:
        """As many passages, drawn at random, as give the general text its share."""
        share = self.config.general_share
        needed = 1.01 * self.told_size * share / (1 - share)  # more, for the white space that is lost between the two
        order = Stream(self.config.seed, "passages").permutation(len(general)).take(np.arange(len(general)))
        chosen: list[list[str]] = []
        size = 0
        for number in order.tolist():
            if size >= needed:
                break
            chosen.append(general[number])
            size += self.measure("".join(general[number]))
        if size < needed:
            raise LichenError(
                f"the general text is {size:,} long and {needed:,.0f} are needed beside {len(self.facts):,} facts told "
                f"{self.config.repeats} times; give more of it, or lower repeats, limit, quoted or general_share"
            )
        return chosen


def _shared_out(mentions: list[Mention], sizes: Sequence[float]) -> Iterator[list[Mention]]:
    """All mentions in order, in groups proportional to ``sizes``; a fact that a group has already waits for the next."""
    ends = np.floor(np.cumsum(sizes) / max(sum(sizes), 1e-9) * len(mentions) + 1e-6).astype(int).tolist()
    waiting: list[Mention] = []
    given = taken = 0
    for number, end in enumerate(ends):
        group: list[Mention] = []
        queue, waiting = waiting, []
        while len(group) < end - given and (queue or taken < len(mentions)):
            if queue:
                mention = queue.pop(0)
            else:
                mention, taken = mentions[taken], taken + 1
            if any(mention[0] == id for id, _ in group) and number < len(ends) - 1:
                waiting.append(mention)
            else:
                group.append(mention)
        waiting += queue
        given += len(group)
        yield group


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
