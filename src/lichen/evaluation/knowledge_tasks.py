"""Asking, and counting what was right.

``ask`` puts questions of all tasks to a model at once: every option's likelihood in one go, and every prompt generated once,
however many questions share it. What comes back are ``Replies``, which a yardstick gives as well; ``marks`` turns them into
right and wrong per question, so that two examinees can be compared in pairs, and ``scored`` into shares with intervals.

An answer may need more tokens than the usual limit: it gets as many as the longest right one, and one more for the border of the
word. It ends early once it can neither become nor cease to be one of the objects in question, unless whole texts are wanted.

>>> from lichen.dataset.facts import made_fact
>>> from lichen.dataset.relations import Relation
>>> from lichen.evaluation.knowledge_questions import QuestionMaker
>>> born = Relation("P19", "place of birth", ("[X] was born in [Y].", "[X] comes from [Y]."))
>>> facts = [made_fact(f"Person {n}", "place of birth", f"City {n % 5}") for n in range(10)]
>>> asked = QuestionMaker({"place of birth": born}, facts, seed=0).make("object", facts, "trained").questions
>>> class Always:
...     def log_likelihoods(self, pairs): return np.array([float(pair[1] == " City 3.") for pair in pairs])
...     def generate(self, prompts, max_new_tokens, settled=None): return [" City 3 and"] * len(prompts)
...     def count_tokens(self, text): return 2
>>> print(scored(marks(asked, ask(Always(), asked)).written))
20.0 % [5.7, 51.0], n 10
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lichen.evaluation import intervals
from lichen.evaluation.intervals import Score
from lichen.evaluation.wordings import folded, without_article

if TYPE_CHECKING:
    from lichen.evaluation.continuation import Continuations
    from lichen.evaluation.knowledge_questions import Question

ANSWER_TOKENS = 8


@dataclass(frozen=True)
class Replies:
    """What somebody answered, question by question."""

    chosen: list[int]
    """The option found likeliest."""
    texts: list[tuple[str, ...]] | None = None
    """What was written after each prompt of each question; None where nothing was to be written."""


@dataclass(frozen=True)
class Marks:
    """Right and wrong, question by question."""

    chosen: np.ndarray
    """``[n]`` bool, by the likelihood of options."""
    written: np.ndarray | None = None
    """``[n]`` bool, by generation."""


def ask(
    answerer: Continuations,
    questions: Sequence[Question],
    generate: bool = True,
    answer_tokens: int = ANSWER_TOKENS,
    whole: bool = False,
) -> Replies:
    """The replies of ``answerer``. With ``whole`` it writes at least ``answer_tokens`` unless it stops by itself."""
    pairs = list(dict.fromkeys(pair for question in questions for pair in question.pairs))
    values = dict(zip(pairs, answerer.log_likelihoods(pairs).tolist(), strict=True)) if pairs else {}
    chosen = [int(np.argmax([values[pair] for pair in question.pairs])) for question in questions]
    if not generate:
        return Replies(chosen)
    prompts = list(dict.fromkeys(prompt for question in questions for prompt in question.prompts))
    limit = longest_answer(answerer, [o for question in questions for o in (*question.objects, *question.accepted)])
    settled = None if whole else settled_for(questions)
    written = answerer.generate(prompts, max(answer_tokens, limit), settled) if prompts else []
    texts = dict(zip(prompts, written, strict=True))
    return Replies(chosen, [tuple(texts[prompt] for prompt in question.prompts) for question in questions])


def settled_for(questions: Sequence[Question]) -> Callable[[str, str], bool]:
    """Says of a prompt and a text whether any object asked for after this prompt could still begin with the text."""
    objects: dict[str, set[str]] = {}
    for question in questions:
        for prompt in question.prompts:
            own = (without_article(folded(object)) for object in (*question.objects, *question.accepted))
            objects.setdefault(prompt, set()).update(own)

    def settled(prompt: str, text: str) -> bool:
        begun = without_article(folded(text))
        return not any(object.startswith(begun) for object in objects[prompt])

    return settled


def longest_answer(answerer: Continuations, objects: Sequence[str]) -> int:
    """How many tokens the longest of ``objects`` needs, its border and an article counted."""
    return 2 + max((answerer.count_tokens(" " + object) for object in dict.fromkeys(objects)), default=0)


def marks(questions: Sequence[Question], replies: Replies, shown: Sequence[Sequence[str]] | None = None) -> Marks:
    """What was right; with ``shown``, objects per question, whether the answer is one of those instead."""
    written = None
    if replies.texts is not None:
        wanted = [None] * len(questions) if shown is None else shown
        written = [q.is_answered_by(t, s) for q, t, s in zip(questions, replies.texts, wanted, strict=True)]
    if shown is None:
        chosen = [question.right == option for question, option in zip(questions, replies.chosen, strict=True)]
    else:
        chosen = [q.objects[option] in s for q, option, s in zip(questions, replies.chosen, shown, strict=True)]
    return Marks(np.array(chosen, bool), None if written is None else np.array(written, bool))


def scored(outcomes: np.ndarray | None) -> Score:
    """The share of True with its interval; nothing for None."""
    return intervals.NOTHING if outcomes is None else intervals.share(outcomes.tolist())


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
