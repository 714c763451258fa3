"""A model that is handed entries of the bank in its prompt: what a memory inside the model is to be compared with.

``Prompted`` stands before a model as its continuations and as its memory at once. Whatever bank the memory is to hold, every
text to continue is preceded by entries of that bank, in the form of ``dataset.quoting``; the model's own memory, if it has one,
holds the bank as well. So all tasks, other banks and edits mean the same for it as for a model that reads. Entries stand
directly before the sentence, as in training text, behind whatever running text comes first.

- ``tfidf``: the entries nearest to the sentence so far;
- ``oracle``: the entry that is asked for, at a seeded place among its nearest neighbours. All sentences of one question have it
  before them, so that it does not tell which of them holds; a sentence that serves several questions has the entries of all.
  Where the bank does not have the entry, and before texts that no question maker made, the neighbours stand alone.

>>> from lichen.dataset.facts import made_fact
>>> class Mute:
...     def log_likelihoods(self, pairs): return np.zeros(len(pairs))
...     def generate(self, prompts, max_new_tokens, settled=None): return [""] * len(prompts)
...     def count_tokens(self, text): return len(text.split())
>>> answerer, memory = prompted(Mute(), None, KnowledgeEvaluation(prompting="tfidf", prompted_entries=1))
>>> with memory.with_facts([made_fact("Ada", "home", "Rome"), made_fact("Bo", "home", "Oslo")]):
...     answerer.prompt("Bo lives in"), mean_tokens(answerer, ["Bo lives in"]).asked
('(Facts: Bo — home: Oslo) Bo lives in', 8.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.core.streams import Stream
from lichen.dataset.quoting import Quoter, quoted
from lichen.evaluation.interventions import ShowsReads
from lichen.evaluation.knowledge_questions import QuestionMaker, Questions, Task

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.evaluation.continuation import Continuations, Pair, Settled
    from lichen.evaluation.interventions import Memory
    from lichen.evaluation.wordings import Choice


def prompted(
    answerer: Continuations, memory: Memory | None, settings: KnowledgeEvaluation, contexts: Sequence[str] = ()
) -> tuple[Continuations, Memory | None]:
    """The model and its memory as ``settings.prompting`` wants them asked; both as they are for "none"."""
    if settings.prompting == "none":
        return answerer, memory
    found = Prompted(answerer, memory, settings, contexts)
    return found, found


class Prompted:
    """Continuations and Memory, see above; ``contexts`` are the running texts that may come before a sentence."""

    def __init__(
        self,
        answerer: Continuations,
        memory: Memory | None,
        settings: KnowledgeEvaluation,
        contexts: Sequence[str] = (),
    ):
        self.answerer, self.memory, self.settings, self.contexts = answerer, memory, settings, contexts
        self._shelf: _Shelf | None = None
        self._asked_for: dict[str, dict[str, None]] = {}
        if isinstance(memory, ShowsReads):  # only then this is a memory that shows what it reads
            self.reads = lambda prompts: memory.reads([self.prompt(prompt) for prompt in prompts])

    @contextmanager
    def with_facts(self, facts: Sequence[Fact]) -> Iterator[None]:
        """See Memory: entries are taken from ``facts``."""
        before, self._shelf = self._shelf, _Shelf(facts, self.settings.prompted_entries)
        try:
            with self.memory.with_facts(facts) if self.memory else nullcontext():
                yield
        finally:
            self._shelf = before

    def note(self, prompt: str, fact: Fact) -> None:
        """Let the oracle know that ``prompt`` asks for ``fact``."""
        self._asked_for.setdefault(prompt, {})[fact.id] = None

    def forget(self) -> None:
        """Let the oracle begin anew: other questions follow."""
        self._asked_for.clear()

    def prompt(self, text: str) -> str:
        """``text`` as the model gets it; as it is while no facts are held."""
        shelf = self._shelf
        if shelf is None:
            return text
        if text not in shelf.prompts:
            place = self._sentence_of(text)
            entries = self._entries(shelf, text, text[place:])
            shelf.prompts[text] = text[:place] + quoted(entries, text[place:])
        return shelf.prompts[text]

    def log_likelihoods(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See Continuations."""
        return self.answerer.log_likelihoods([(self.prompt(text), end) for text, end in pairs])

    def generate(self, prompts: Sequence[str], max_new_tokens: int, settled: Settled | None = None) -> list[str]:
        """See Continuations."""
        asked = [self.prompt(prompt) for prompt in prompts]
        plain = dict(zip(asked, prompts, strict=True))
        says = None if settled is None else lambda prompt, text: settled(plain[prompt], text)
        return self.answerer.generate(asked, max_new_tokens, says)

    def count_tokens(self, text: str) -> int:
        """See Continuations."""
        return self.answerer.count_tokens(text)

    def _sentence_of(self, text: str) -> int:
        """Where the sentence to go on with begins."""
        context = max((len(context) for context in self.contexts if text.startswith(context)), default=0)
        return len(text) - len(text[context:].lstrip())

    def _entries(self, shelf: _Shelf, prompt: str, sentence: str) -> list[Fact]:
        right = [shelf.by_id[id] for id in self._asked_for.get(prompt, ()) if id in shelf.by_id]
        if self.settings.prompting == "tfidf" or not right:
            return shelf.quoter.nearest(sentence)
        return shelf.quoter.around(right, sentence, Stream(self.settings.seed, f"quoted before/{prompt}").numpy())


class _Shelf:
    """The facts held, and what was quoted of them."""

    def __init__(self, facts: Sequence[Fact], number: int):
        self.quoter = Quoter(facts, number)
        self.by_id = {fact.id: fact for fact in facts}
        self.prompts: dict[str, str] = {}


# --- What an oracle knows ---


def maker_for(answerer: Continuations) -> Callable[..., QuestionMaker]:
    """What makes questions for ``answerer``: QuestionMaker; one that notes for an oracle what is asked, from now on and no more
    what was asked before."""
    if not isinstance(answerer, Prompted):
        return QuestionMaker
    answerer.forget()
    return partial(_NotingMaker, answerer.note)


class _NotingMaker(QuestionMaker):
    """Says of every prompt it makes which fact is asked for."""

    def __init__(self, note: Callable[[str, Fact], None], *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._note = note

    def make(self, task: Task, facts: Sequence[Fact], choice: Choice) -> Questions:
        found = super().make(task, facts, choice)
        for question in found.questions:
            for prompt in question.prompts:
                self._note(prompt, question.fact)
        return found

    def two_prompts(self, fact: Fact, draw: np.random.Generator) -> tuple[str, str | None]:
        direct, other = super().two_prompts(fact, draw)
        for prompt in (direct, other):
            if prompt is not None:
                self._note(prompt, fact)
        return direct, other


# --- What it costs ---


@dataclass(frozen=True)
class PromptTokens:
    """Mean tokens of so many prompts: as the model got them, and without entries."""

    prompts: int = 0
    asked: float = 0.0
    alone: float = 0.0

    @classmethod
    def over(cls, parts: Sequence[PromptTokens]) -> PromptTokens:
        """The means over all parts together."""
        prompts = sum(part.prompts for part in parts)
        asked, alone = (sum(getattr(part, name) * part.prompts for part in parts) for name in ("asked", "alone"))
        return cls(prompts, asked / max(1, prompts), alone / max(1, prompts))


def mean_tokens(answerer: Continuations, prompts: Sequence[str]) -> PromptTokens:
    """Over ``prompts``, each counted once, with the facts that are held now."""
    once = list(dict.fromkeys(prompts))
    alone = sum(answerer.count_tokens(prompt) for prompt in once)
    asked = alone
    if isinstance(answerer, Prompted):
        asked = sum(answerer.count_tokens(answerer.prompt(prompt)) for prompt in once)
    return PromptTokens(len(once), asked / max(1, len(once)), alone / max(1, len(once)))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
