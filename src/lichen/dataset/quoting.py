"""Entries of a bank quoted before a sentence: how a model without a memory can look facts up, in its own prompt.

    (Facts: Ada — occupation: poet; Ada — place of birth: London) Ada was born in

What it is trained on (``fact_texts``) and asked with (``evaluation.prompting``) is made here and nowhere else, so both have one
form. Entries stand as they are in the bank. Which: the nearest by TF-IDF to the words of the sentence without its object; or the
right entry at a random place among these neighbours, of which none says something else about its subject and relation. They
are fewer than asked for where fewer share a word with the sentence.

>>> from lichen.dataset.facts import made_fact
>>> made = [made_fact("Ada", "job", "poet"), made_fact("Ada", "home", "Rome"), made_fact("Bo", "home", "Oslo")]
>>> quoter = Quoter(made, number=2)
>>> quoted(quoter.nearest("The home of Bo is"), "The home of Bo is")
'(Facts: Bo — home: Oslo; Ada — home: Rome) The home of Bo is'
>>> draw = np.random.default_rng(1)
>>> [quotation(quoter.around(made[:1], "Ada works as", draw)) for _ in range(2)]
['(Facts: Ada — job: poet; Ada — home: Rome)', '(Facts: Ada — home: Rome; Ada — job: poet)']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lichen.dataset.bank_search import TfIdf
from lichen.dataset.facts import Fact, in_running_text

FORM = "(Facts: {})"
BETWEEN = "; "
SHARE = 0.8
"""Of the sentences that tell a fact in training text, so many have a quotation; the others keep the model from needing one."""


def quotation(facts: Sequence[Fact]) -> str:
    """The texts of ``facts`` in the one form; '' for none."""
    return FORM.format(BETWEEN.join(fact.text for fact in facts)) if facts else ""


def quoted(facts: Sequence[Fact], text: str) -> str:
    """``text`` behind the quotation of ``facts``; as it is where there are none.

    >>> from lichen.dataset.facts import made_fact
    >>> quoted([made_fact("杜甫", "出生地", "巩县")], "杜甫生于"), quoted([], "杜甫生于")
    ('(Facts: 杜甫，出生地：巩县)杜甫生于', '杜甫生于')
    """
    return quotation(facts) + in_running_text(text) if facts else text


class Quoter:
    """Chooses among the entries of a bank; ``number`` is how many are quoted at most, the right one counted."""

    def __init__(self, facts: Sequence[Fact], number: int):
        self.facts = facts
        self.number = number
        self._index = TfIdf(fact.text for fact in facts)
        self._alike = Counter((fact.subject, fact.relation) for fact in facts)
        self._found: dict[tuple[str, int], list[int]] = {}

    def nearest(self, query: str) -> list[Fact]:
        """The entries nearest to ``query``, nearest first."""
        return self._top(query, self.number)

    def around(self, right: Sequence[Fact], query: str, draw: np.random.Generator) -> list[Fact]:
        """All of ``right``, each at a random place among the entries nearest to ``query`` that do not compete with it."""
        keys = {(fact.subject, fact.relation) for fact in right}
        near = self._top(query, self.number + sum(self._alike[key] for key in keys))
        near = [fact for fact in near if (fact.subject, fact.relation) not in keys]
        chosen = near[: max(0, self.number - len(right))]
        for fact in right:
            chosen.insert(int(draw.integers(len(chosen) + 1)), fact)
        return chosen

    def now_and_then(self, right: Fact, query: str, draw: np.random.Generator) -> list[Fact]:
        """What to quote in training text: `around`, or nothing before one sentence in five."""
        return self.around([right], query, draw) if draw.random() < SHARE else []

    def _top(self, query: str, k: int) -> list[Fact]:
        if (query, k) not in self._found:
            self._found[query, k] = [number for number, _ in self._index.top(query, k)]
        return [self.facts[number] for number in self._found[query, k]]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
