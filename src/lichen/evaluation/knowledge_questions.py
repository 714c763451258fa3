"""Three kinds of questions about facts, each with options to choose among and prompts to continue.

- ``object``: the sentence up to the object, and four objects to end it with. Written: the answer begins with the object.
- ``relation``: the same subject and object said by four relations, of which one holds. Wrong are by preference relations that
  have this object for other subjects, then those that the bank knows for this subject, with another object. Compared is how
  likely the object is in each sentence. Written: the right sentence is continued with the object, and none of the wrong ones is.
- ``verification``: a true and a false statement. Chosen: which is likelier, no threshold. Written: one of the two, half of them
  true, is judged by whether the model itself says its object.

What also holds for the subject and relation is never a wrong option, and counts as right where the model writes. Nothing but the
answer shall tell it: the right option stands in every place equally often; facts are chosen round robin over relations and over
answers; wrong objects are drawn as often as they are answers to the questions asked; where the bank knows other things about the
subject, one wrong object is of those; and relations are asked for only where another one has the object too. A fact that can not
be asked for is counted under its reason.

>>> from lichen.dataset.facts import made_fact
>>> from lichen.dataset.relations import Relation
>>> born = Relation("P19", "place of birth", ("[X] was born in [Y].", "[X] comes from [Y]."))
>>> facts = [made_fact(f"Person {n}", "place of birth", f"City {n % 5}") for n in range(10)]
>>> maker = QuestionMaker({"place of birth": born}, facts, seed=0)
>>> found = maker.make("object", facts[:2], "trained")
>>> found.questions[0].prompts, found.questions[0].objects[found.questions[0].right], dict(found.excluded)
(('Person 0 was born in',), 'City 0', {})
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.facts import is_cjk
from lichen.evaluation.known_facts import KnownFacts, balanced
from lichen.evaluation.wordings import Choice, Wording, Wordings, begins_with, folded

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.dataset.relations import Relation
    from lichen.evaluation.continuation import Pair

Task = Literal["object", "relation", "verification"]
TASKS: tuple[Task, ...] = get_args(Task)
OPTIONS = 4
CHANCE: dict[Task, tuple[float, float]] = {"object": (0.25, 0.0), "relation": (0.25, 0.0), "verification": (0.5, 0.5)}
"""Per task how often a guess is right: among options, and written (a word drawn at random is practically never the object)."""
_NEAR = 6  # wrong relations are drawn among so many of the nearest


@dataclass(frozen=True)
class Question:
    """One fact asked for."""

    task: Task
    fact: Fact
    pairs: tuple[Pair, ...]
    """Text and continuation of every option."""
    objects: tuple[str, ...]
    """The object that each option states."""
    relations: tuple[str, ...]
    """The relation that each option states."""
    right: int
    """The option that holds."""
    accepted: tuple[str, ...]
    """Objects that count as right where the model writes."""
    decoy: int | None = None
    """The option with the object that the fact has in a bank whose objects are exchanged."""
    claim: int = 0
    """The option that is judged by what the model writes, in verification."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts to continue, each once."""
        return tuple(dict.fromkeys(text for text, _ in self.pairs))

    @property
    def key(self) -> tuple[str, str]:
        """Subject and relation: what the bank is asked for."""
        return self.fact.subject, self.fact.relation

    def is_answered_by(self, texts: Sequence[str], accepted: Sequence[str] | None = None) -> bool:
        """Whether ``texts``, written after ``prompts``, are a right answer; ``accepted`` objects instead of the true ones."""
        written = dict(zip(self.prompts, texts, strict=True))
        right = written.pop(self.pairs[self.right][0])
        if self.task == "verification":
            return begins_with(right, self.objects[self.claim]) == (self.claim == self.right)
        good = self.accepted if accepted is None else accepted
        said = any(begins_with(right, object) for object in good)
        return said and not any(begins_with(text, self.fact.object) for text in written.values())


@dataclass(frozen=True)
class Questions:
    """Questions, and how many facts were left out for which reason."""

    questions: list[Question]
    excluded: Counter[str] = field(default_factory=Counter)


class QuestionMaker:
    """Makes questions about a bank.

    Args:
        relations: by label.
        known: all facts of the bank, and those asked for: what is right, and what there is to be wrong.
        seed: equal seeds give equal questions.
        swapped: fact id → the object it gets where objects are exchanged; it becomes one of the options.
        contexts: neutral passages, one of which is put before every prompt.
        any_wording: labels of relations that were left out of training: any wording of them is unseen.
        with_rest: score the end of the sentence with the object (not meant for means over tokens).
    """

    def __init__(
        self,
        relations: Mapping[str, Relation],
        known: Sequence[Fact],
        *,
        seed: int,
        swapped: Mapping[str, str] | None = None,
        contexts: Sequence[str] = (),
        any_wording: frozenset[str] = frozenset(),
        with_rest: bool = True,
    ):
        self.wordings = Wordings(relations)
        self.seed = seed
        self.swapped = swapped or {}
        self.contexts = contexts
        self.any_wording = any_wording
        self.with_rest = with_rest
        self.known = KnownFacts(known)

    def askable(self, facts: Sequence[Fact], choice: Choice, task: Task = "object") -> tuple[list[Fact], Counter[str]]:
        """The facts that can be asked for with such a wording, one per subject and relation, and why others can not."""
        kept: dict[tuple[str, str], Fact] = {}
        excluded: Counter[str] = Counter()
        for fact in facts:
            reason = self._reason_against(fact, choice, task)
            if reason is None and (fact.subject, fact.relation) in kept:
                reason = "asked already, with another object"
            if reason is None:
                kept[fact.subject, fact.relation] = fact
            else:
                excluded[reason] += 1
        return list(kept.values()), excluded

    def choose(
        self, facts: Sequence[Fact], choice: Choice, most: int | None = None, task: Task = "object"
    ) -> tuple[list[Fact], Counter[str]]:
        """At most so many askable facts, balanced over relations and answers."""
        found, excluded = self.askable(facts, choice, task)
        return balanced(found, len(found) if most is None else most, self.seed), excluded

    def make(self, task: Task, facts: Sequence[Fact], choice: Choice) -> Questions:
        """A question about each of ``facts``, in their order. All tasks ask about a fact in the same words."""
        draw = Stream(self.seed, f"places of {task}/{choice}").numpy()
        facts, excluded = self.askable(facts, choice, task)
        pools: dict[str, list[str]] = defaultdict(list)
        for fact in facts:
            pools[fact.relation].append(fact.object)
        count = 2 if task == "verification" else OPTIONS
        places = draw.permutation(np.arange(len(facts)) % count)
        claims = draw.permutation(np.arange(len(facts)) % 2)
        questions: list[Question] = []
        for fact, place, claim in zip(facts, places, claims, strict=True):
            drawing = _Drawing(fact, choice, Stream(self.seed, f"question/{choice}/{fact.id}").numpy())
            if task == "relation":
                found = self._relation_question(drawing, int(place))
            else:
                found = self._object_question(task, drawing, int(place), bool(claim), pools[fact.relation])
            if isinstance(found, str):
                excluded[found] += 1
            else:
                questions.append(found)
        return Questions(questions, excluded)

    def two_prompts(self, fact: Fact, draw: np.random.Generator) -> tuple[str, str | None]:
        """A prompt worded as in training, and one in another wording, the unseen one where it can be used.

        Raises ValueError for a fact that is not askable with a trained wording.
        """
        first, last = (self._clear(fact.subject, fact.relation, fact.object, choice) for choice in get_args(Choice))
        if not first:
            raise ValueError(f"{fact.relation}: no trained wording to ask about {fact.subject!r} with")
        direct = first[int(draw.integers(len(first)))]
        others = [found for found in first if found.opening != direct.opening]
        unseen = [found for found in last if found.opening != direct.opening]
        other = (unseen or others)[int(draw.integers(len(unseen or others)))] if unseen or others else None
        context = self._context(draw)
        return context + direct.prompt(fact.subject), None if other is None else context + other.prompt(fact.subject)

    # One question

    def _object_question(
        self, task: Task, drawing: _Drawing, right: int, claim: bool, pool: Sequence[str]
    ) -> Question | str:
        """The question, or why there is none."""
        fact = drawing.fact
        wording, context = self._worded(drawing)
        accepted = self.known.accepted(fact)
        wrong = self._wrong_objects(fact, accepted, pool, drawing.draw)
        if wrong is None:
            return "too few other objects"
        wrong = wrong[:1] if task == "verification" else wrong
        objects = (*wrong[:right], fact.object, *wrong[right:])
        text = context + wording.prompt(fact.subject)
        swapped = self.swapped.get(fact.id)
        return Question(
            task=task,
            fact=fact,
            pairs=tuple((text, wording.continuation(fact.subject, object, self.with_rest)) for object in objects),
            objects=objects,
            relations=(fact.relation,) * len(objects),
            right=right,
            accepted=accepted,
            decoy=objects.index(swapped) if swapped in wrong else None,
            claim=right if claim or task == "object" else 1 - right,
        )

    def _relation_question(self, drawing: _Drawing, right: int) -> Question | str:
        fact = drawing.fact
        wording, context = self._worded(drawing)
        wrong = self._wrong_relations(drawing, wording)
        if wrong is None:
            return "too few other relations"
        options = [*wrong[:right], (fact.relation, wording), *wrong[right:]]
        pairs = tuple(
            (context + chosen.prompt(fact.subject), chosen.continuation(fact.subject, fact.object, with_rest=False))
            for _, chosen in options
        )
        return Question(
            task="relation",
            fact=fact,
            pairs=pairs,
            objects=(fact.object,) * len(options),
            relations=tuple(label for label, _ in options),
            right=right,
            accepted=self.known.accepted(fact),
        )

    def _worded(self, drawing: _Drawing) -> tuple[Wording, str]:
        fact = drawing.fact
        wordings = self._clear(fact.subject, fact.relation, fact.object, drawing.choice)
        return wordings[int(drawing.draw.integers(len(wordings)))], self._context(drawing.draw)

    def _context(self, draw: np.random.Generator) -> str:
        if not self.contexts:
            return ""
        context = self.contexts[int(draw.integers(len(self.contexts)))]
        ends = not context or context[-1].isspace() or is_cjk(context[-1])
        return context if ends else context + " "

    def _wrong_objects(
        self, fact: Fact, accepted: Sequence[str], pool: Sequence[str], draw: np.random.Generator
    ) -> list[str] | None:
        """Objects that do not hold, shuffled: the exchanged one, one that the subject has otherwise, the rest out of ``pool``
        (out of all objects of the relation where that has too few). None where there are not enough."""
        taken = {folded(object) for object in (*accepted, fact.object)}
        first = [self.swapped[fact.id]] if fact.id in self.swapped else []
        everything = self.known.objects[fact.relation]
        candidates = itertools.chain(
            first,
            self._own_otherwise(fact, taken, draw),
            (pool[int(place)] for place in draw.permutation(len(pool))),
            (everything[int(place)] for place in draw.permutation(len(everything))),
        )
        found: list[str] = []
        for object in candidates:
            if folded(object) not in taken:
                taken.add(folded(object))
                found.append(object)
            if len(found) == OPTIONS - 1:
                return [found[place] for place in draw.permutation(len(found))]
        return None

    def _own_otherwise(self, fact: Fact, taken: set[str], draw: np.random.Generator) -> list[str]:
        """An object that the subject has in another relation, if possible one that would suit this relation too."""
        labels = sorted(self.known.relations_of.get(fact.subject, set()) - {fact.relation})
        own = [o for label in labels for o in self.known.answers[fact.subject, label] if folded(o) not in taken]
        suiting = [object for object in own if object in self.known.kinds[fact.relation]]
        return [(suiting or own)[int(draw.integers(len(suiting or own)))]] if own else []

    def _wrong_relations(self, drawing: _Drawing, wording: Wording) -> list[tuple[str, Wording]] | None:
        fact, draw = drawing.fact, drawing.draw
        candidates = []
        for label in self.known.objects:
            if label == fact.relation or fact.object in self.known.answers.get((fact.subject, label), ()):
                continue
            if self.wordings.share_a_sentence(label, fact.relation):
                continue
            clear = self._clear(fact.subject, label, fact.object, drawing.choice)
            there = [found for found in clear if found.opening != wording.opening]
            if there:
                candidates.append((self.known.rank(fact, label), label, there))
        if len(candidates) < OPTIONS - 1:
            return None
        candidates.sort(key=lambda candidate: candidate[0])
        sure = min(sum(1 for rank, _, _ in candidates if not rank[0] and not rank[1]), OPTIONS - 1)
        near = candidates[sure : max(_NEAR, OPTIONS - 1)]
        drawn = [near[place] for place in draw.permutation(len(near))[: OPTIONS - 1 - sure]]
        return [
            (label, there[int(draw.integers(len(there)))])
            for _, label, there in _shuffled(candidates[:sure] + drawn, draw)
        ]

    # What can be asked

    def _clear(self, subject: str, relation: str, object: str, choice: Choice) -> list[Wording]:
        """The wordings that only one relation of the subject can continue, that do not tell how the object begins, and after
        which it has to come; where there are no others, those that fit it, and those that may go on otherwise."""
        others = self.known.relations_of.get(subject, set()) - {relation}
        found = self.wordings.of(relation, choice, any_is_unseen=relation in self.any_wording)
        clear = [wording for wording in found if not others & self.wordings.rivals(relation, wording)]
        silent = [wording for wording in clear if not wording.tells]
        fitting = silent or [wording for wording in clear if wording.fits(object)]
        return [wording for wording in fitting if not self.wordings.goes_on(relation, wording)] or fitting

    def _reason_against(self, fact: Fact, choice: Choice, task: Task) -> str | None:
        if not fact.is_triple:
            return "no subject, relation and object"
        if not self.wordings.of(fact.relation, choice, any_is_unseen=fact.relation in self.any_wording):
            return f"no {choice} wording has the subject before the object"
        if not self._clear(fact.subject, fact.relation, fact.object, choice):
            return "every wording could be continued by another fact, or has the wrong article"
        if task == "relation" and not any(
            label != fact.relation and not self.wordings.share_a_sentence(label, fact.relation)
            for label in self.known.having(fact.object)
        ):
            return "no other relation has this object"
        return None


@dataclass(frozen=True)
class _Drawing:
    """A fact, how it is to be worded, and the draws for it: its own, whatever else is asked."""

    fact: Fact
    choice: Choice
    draw: np.random.Generator


def _shuffled(items: list[Any], draw: np.random.Generator) -> list[Any]:
    return [items[place] for place in draw.permutation(len(items))]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
