"""Whether a fact can stand in a bank that a model reads: its characters, its length in tokens, tokens nobody knows.

>>> from lichen.dataset.tokenizer import Tokenizer
>>> tokenizer = Tokenizer.train(["moss is green"] * 4, vocab_size=330)
>>> Checker(tokenizer, 3).problem(Fact("a", "moss is green and grey"))
('too_long', 'the text has ... tokens, an entry has 3: shorten it')
>>> Checker(tokenizer, 32).problem(Fact("a", "moss"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lichen.dataset.facts import Fact, problem_of
from lichen.dataset.tokenizer import Tokenizer


@dataclass(frozen=True)
class Checker:
    """Looks at one fact after the other."""

    tokenizer: Tokenizer | None = None
    """None: neither length nor vocabulary are looked at."""
    length: int = 32
    """Tokens of an entry."""

    def problem(self, fact: Fact) -> tuple[str, str] | None:
        """What is wrong, as (cause, words); None where nothing is."""
        if problem := problem_of(fact):
            return problem
        if self.tokenizer is None:
            return None
        tokens = self.tokenizer.encode(fact.text)
        if len(tokens) > self.length:
            return "too_long", f"the text has {len(tokens)} tokens, an entry has {self.length}: shorten it"
        if unknown := unknown_words(fact.text, tokens, self.tokenizer):
            return "unknown_tokens", f"the vocabulary does not know {unknown!r}: write it otherwise"
        return None


def unknown_words(text: str, tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The first word of ``text`` in which the tokenizer knows no token; '' where it knows all, as byte-level ones do."""
    model = tokenizer.data["model"]
    if tokenizer.token_bytes is not None:
        return ""
    if (unknown := model.get("unk_id")) is None:  # a Unigram model has the id, others a name
        names = {token: tokenizer.name_of(token) for token in set(tokens)}
        unknown = next((token for token, name in names.items() if name == model.get("unk_token")), None)
    if unknown is None or unknown not in tokens:
        return ""
    return next((word for word in text.split() if unknown in tokenizer.encode(word)), text)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
