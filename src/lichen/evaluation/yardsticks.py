"""What anybody reaches without training, on the very same questions.

- ``tf-idf + copy``: the entry whose words are nearest to the prompt by TF-IDF, and its object copied (what a search engine does);
  of options, the one that the nearest entry states;
- ``majority``: the commonest object of the relation, whoever is asked about;
- ``subject only``: the entry with the longest subject in the prompt, whatever the relation; of several, one at random.

Each gives the same ``Replies`` as a model. Facts of the real world can nearly all be told by subject alone: a score beside these
says what was learnt, a score without them says little. Where a yardstick knows nothing about any option, it guesses one.

>>> from lichen.dataset.facts import made_fact
>>> from lichen.dataset.relations import Relation
>>> from lichen.evaluation.knowledge_questions import QuestionMaker
>>> born = Relation("P19", "place of birth", ("[X] was born in [Y].", "[X] comes from [Y]."))
>>> bank = [made_fact(f"Person {n}", "place of birth", f"City {n % 5}") for n in range(10)]
>>> asked = QuestionMaker({"place of birth": born}, bank, seed=0).make("object", bank[6:7], "trained").questions
>>> SubjectOnly(bank, seed=0).reply(asked).texts, Majority(bank, seed=0).reply(asked).texts
([('City 1',)], [('City 0',)])
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from lichen.core.streams import Stream
from lichen.dataset.facts import is_cjk
from lichen.evaluation.knowledge_tasks import Replies
from lichen.evaluation.wordings import folded

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.evaluation.knowledge_questions import Question

Search = Callable[[Sequence[str], int], Sequence[Sequence[tuple[int, float]]]]
"""Queries and k → per query the places of the k nearest entries and their similarity, nearest first."""
YARDSTICKS = ("tf-idf + copy", "majority", "subject only")
"""Their names, in the order of reports."""
DEPTH = 64
"""Among so many of the nearest entries an option's object is looked for."""


class Yardstick(Protocol):
    """Somebody who answers without a model."""

    name: str

    def reply(self, questions: Sequence[Question]) -> Replies:
        """The answers."""
        ...


def yardsticks(facts: Sequence[Fact], seed: int, search: Search | None = None) -> list[Yardstick]:
    """All of them, over the bank ``facts``; ``search`` looks through its texts (unset, by TF-IDF)."""
    return [TfIdfCopy(facts, seed, search), Majority(facts, seed), SubjectOnly(facts, seed)]


class TfIdfCopy:
    """Copies from the nearest entry. Options are weighed by the nearest entry that states them."""

    name = YARDSTICKS[0]

    def __init__(self, facts: Sequence[Fact], seed: int, search: Search | None = None):
        self.facts = facts
        self._search = tf_idf([fact.text for fact in facts]) if search is None else search
        self._found: dict[str, Sequence[tuple[int, float]]] = {}
        self._guess = _Guesses(seed, self.name)

    def reply(self, questions: Sequence[Question]) -> Replies:
        """See Yardstick."""
        self._look_up([prompt for question in questions for prompt in question.prompts])
        self._look_up([text + end for q in questions if q.task == "relation" for text, end in q.pairs])
        chosen = self._guess.best([self._weights(question) for question in questions])
        return Replies(chosen, [tuple(self._copied(prompt) for prompt in question.prompts) for question in questions])

    def nearest(self, prompts: Sequence[str], k: int) -> list[list[Fact]]:
        """The ``k`` nearest entries of every prompt, at most ``DEPTH``."""
        self._look_up(prompts)
        return [[self.facts[place] for place, _ in self._found[prompt][:k]] for prompt in prompts]

    def _look_up(self, queries: Sequence[str]) -> None:
        new = [query for query in dict.fromkeys(queries) if query not in self._found]
        self._found.update(zip(new, self._search(new, DEPTH), strict=True))

    def _weights(self, question: Question) -> list[float]:
        if question.task == "relation":  # the entry nearest to the whole statement, among those of the relation stated
            statements = [text + end for text, end in question.pairs]
            options = zip(statements, question.relations, strict=True)
            return [self._first(statement, "relation", label) for statement, label in options]
        return [self._first(question.pairs[0][0], "object", object) for object in question.objects]

    def _first(self, query: str, field: str, value: str) -> float:
        """The similarity of the nearest entry with this value; 0 where there is none."""
        found = self._found[query]
        return next((weight for place, weight in found if getattr(self.facts[place], field) == value), 0.0)

    def _copied(self, prompt: str) -> str:
        found = self._found[prompt]
        return self.facts[found[0][0]].object if found else ""


class Majority:
    """Always the commonest object of the relation; of relations, the one in which the object is commonest."""

    name = YARDSTICKS[1]

    def __init__(self, facts: Sequence[Fact], seed: int):
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for fact in facts:
            self._counts[fact.relation][fact.object] += 1
        self._totals = {relation: sum(found.values()) for relation, found in self._counts.items()}
        self._guess = _Guesses(seed, self.name)

    def reply(self, questions: Sequence[Question]) -> Replies:
        """See Yardstick."""
        weights = [
            [self._share(label, object) for label, object in zip(question.relations, question.objects, strict=True)]
            for question in questions
        ]
        texts = [tuple(self._commonest(label) for label in _prompt_relations(question)) for question in questions]
        return Replies(self._guess.best(weights), texts)

    def _share(self, relation: str, object: str) -> float:
        return self._counts[relation][object] / self._totals.get(relation, 1) if relation in self._counts else 0.0

    def _commonest(self, relation: str) -> str:
        found = self._counts.get(relation)
        return found.most_common(1)[0][0] if found else ""


class SubjectOnly:
    """Finds the subject, and takes any of its entries."""

    name = YARDSTICKS[2]

    def __init__(self, facts: Sequence[Fact], seed: int):
        self._entries: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.subject:
                self._entries[folded(fact.subject)].append(fact)
        self._longest = max(map(len, self._entries), default=0)
        self._seed = seed
        self._guess = _Guesses(seed, self.name)

    def reply(self, questions: Sequence[Question]) -> Replies:
        """See Yardstick."""
        weights, texts = [], []
        for question in questions:
            fact = self.entry(question.pairs[question.right][0])
            stated = list(zip(question.relations, question.objects, strict=True))
            if question.task == "relation":
                weights.append([float(fact is not None and fact.relation == label) for label, _ in stated])
            else:
                weights.append([float(fact is not None and fact.object == object) for _, object in stated])
            texts.append(tuple(fact.object if fact is not None else "" for _ in question.prompts))
        return Replies(self._guess.best(weights), texts)

    def entry(self, prompt: str) -> Fact | None:
        """The entry this key finds for ``prompt``."""
        text = folded(prompt)
        starts = [place for place in range(len(text)) if _border(text, place)]
        for length in range(min(self._longest, len(text)), 0, -1):
            for start in starts:
                found = self._entries.get(text[start : start + length]) if start + length <= len(text) else None
                if found and _border(text, start + length):
                    draw = Stream(self._seed, f"subject only/{prompt}").uniform()
                    return found[int(draw * len(found))]
        return None


def tf_idf(texts: Sequence[str]) -> Search:
    """A search through ``texts`` by TF-IDF."""
    from lichen.dataset.bank_search import TfIdf

    return TfIdf(texts).top_batch


class _Guesses:
    """The best option, and one at random among equals."""

    def __init__(self, seed: int, name: str):
        self._stream = Stream(seed, f"guesses of {name}")

    def best(self, weights: Sequence[Sequence[float]]) -> list[int]:
        chosen = []
        for number, row in enumerate(weights):
            best = [place for place, weight in enumerate(row) if weight == max(row)]
            chosen.append(best[int(self._stream.uniform(number) * len(best))])
        return chosen


def _prompt_relations(question: Question) -> list[str]:
    """The relation that each of the question's prompts is about."""
    by_prompt = dict(zip((text for text, _ in question.pairs), question.relations, strict=True))
    return [by_prompt[prompt] for prompt in question.prompts]


def _border(text: str, place: int) -> bool:
    """Whether a word may begin or end at ``place``."""
    if place in (0, len(text)):
        return True
    before, after = text[place - 1], text[place]
    return not (before.isalnum() and after.isalnum()) or is_cjk(before) or is_cjk(after)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
