"""Is an edit an edit? What changes in the bank must change in the answers, and nothing else may.

Some entries get another object of their relation, all at once, no two of one subject. Before, after, and after taking the
edits back the model continues the same prompts:

- *efficacy*: asked as in training, the answer is the new object (which differs from every right one);
- *paraphrase*: so it is in another wording, the relation's unseen one where there is one;
- *locality*: what is asked about neighbours is answered word for word as before: other relations of the same subject, and other
  subjects of the same relation, of which one had the same object;
- *rollback*: with the old entries back, every answer is word for word as at first.

Terms and design follow Meng et al., 2022 ("Locating and editing factual associations in GPT"), with whole answers compared
instead of probabilities.

>>> from lichen.dataset.facts import made_fact
>>> from lichen.dataset.relations import Relation
>>> from lichen.evaluation.knowledge_questions import QuestionMaker
>>> born = Relation("P19", "place of birth", ("[X] was born in [Y].", "[X] is from [Y]."))
>>> bank = [made_fact(f"P{n}", "place of birth", f"C{n % 4}") for n in range(8)]
>>> maker = QuestionMaker({"place of birth": born}, bank, seed=0, swapped=exchanged(bank, 0))
>>> edits = plan_edits(maker, bank, bank, most=2)
>>> [(edit.fact.object != edit.object, edit.direct.endswith("was born in"), len(edit.neighbours)) for edit in edits]
[(True, True, 2), (True, True, 2)]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.facts import in_running_text
from lichen.evaluation import intervals
from lichen.evaluation.intervals import NOTHING, Score
from lichen.evaluation.interventions import exchanged as exchanged
from lichen.evaluation.interventions import with_object
from lichen.evaluation.knowledge_tasks import ANSWER_TOKENS, longest_answer
from lichen.evaluation.wordings import begins_with

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact
    from lichen.evaluation.continuation import Continuations
    from lichen.evaluation.interventions import Memory
    from lichen.evaluation.knowledge_questions import QuestionMaker

Neighbour = Literal["same subject", "same relation"]


@dataclass(frozen=True)
class Edit:
    """One entry with its new object, and the prompts that tell what it did."""

    fact: Fact
    object: str
    direct: str
    paraphrase: str | None
    neighbours: tuple[tuple[Neighbour, str], ...]

    @property
    def prompts(self) -> list[str]:
        """All of them."""
        return [
            self.direct,
            *([self.paraphrase] if self.paraphrase else []),
            *(prompt for _, prompt in self.neighbours),
        ]


@dataclass(frozen=True)
class Editing:
    """What edits did."""

    edits: int
    before: Score
    """The old object, asked directly, before anything was edited."""
    efficacy: Score
    paraphrase: Score
    likelier: Score
    """The new object is likelier than the old one, asked directly."""
    same_subject: Score
    """Unchanged answers about other relations of edited subjects."""
    same_relation: Score
    """Unchanged answers about other subjects of edited relations."""
    locality: Score
    """Both."""
    rollback: Score


NO_EDITING = Editing(0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def plan_edits(maker: QuestionMaker, facts: Sequence[Fact], bank: Sequence[Fact], most: int) -> list[Edit]:
    """At most ``most`` edits of ``facts``, which stand in ``bank``: one per subject, to the objects ``maker.swapped`` gives."""
    chosen, _ = maker.choose(facts, "trained")
    held = {fact.id for fact in bank}
    edited: dict[str, Fact] = {}
    for fact in chosen:
        new = maker.swapped.get(fact.id)
        alone = len(maker.known.answers[fact.subject, fact.relation]) == 1
        if fact.id in held and alone and new is not None and new != fact.object and fact.subject not in edited:
            edited[fact.subject] = fact
        if len(edited) == most:
            break
    neighbours = _Neighbours(maker, bank, {(fact.subject, fact.relation) for fact in edited.values()})
    draw = Stream(maker.seed, "edits").numpy()
    edits = []
    for fact in edited.values():
        direct, paraphrase = maker.two_prompts(fact, draw)
        edits.append(Edit(fact, maker.swapped[fact.id], direct, paraphrase, tuple(neighbours.of(fact, draw))))
    return edits


def run_editing(
    answerer: Continuations,
    memory: Memory,
    bank: Sequence[Fact],
    edits: Sequence[Edit],
    answer_tokens: int = ANSWER_TOKENS,
) -> Editing:
    """Make the ``edits`` in ``bank``, and take them back."""
    if not edits:
        return NO_EDITING
    new = {edit.fact.id: edit.object for edit in edits}
    changed = [with_object(fact, new[fact.id]) if fact.id in new else fact for fact in bank]
    prompts = list(dict.fromkeys(prompt for edit in edits for prompt in edit.prompts))
    limit = max(answer_tokens, longest_answer(answerer, [o for edit in edits for o in (edit.object, edit.fact.object)]))
    with memory.with_facts(bank):
        before = answerer.generate(prompts, limit)
    with memory.with_facts(changed):
        after, likelier = answerer.generate(prompts, limit), _likelier(answerer, edits)
    with memory.with_facts(bank):
        back = answerer.generate(prompts, limit)
    said = (dict(zip(prompts, texts, strict=True)) for texts in (before, after, back))
    return _counted(edits, *said, likelier=likelier)


def _counted(
    edits: Sequence[Edit], before: dict[str, str], after: dict[str, str], back: dict[str, str], likelier: np.ndarray
) -> Editing:
    def unchanged(*kinds: Neighbour) -> Score:
        prompts = dict.fromkeys(prompt for edit in edits for kind, prompt in edit.neighbours if kind in kinds)
        return intervals.share(before[prompt] == after[prompt] for prompt in prompts)

    return Editing(
        edits=len(edits),
        before=intervals.share(begins_with(before[edit.direct], edit.fact.object) for edit in edits),
        efficacy=intervals.share(begins_with(after[edit.direct], edit.object) for edit in edits),
        paraphrase=intervals.share(begins_with(after[e.paraphrase], e.object) for e in edits if e.paraphrase),
        likelier=intervals.share(likelier.tolist()),
        same_subject=unchanged("same subject"),
        same_relation=unchanged("same relation"),
        locality=unchanged("same subject", "same relation"),
        rollback=intervals.share(before[prompt] == back[prompt] for prompt in before),
    )


def _likelier(answerer: Continuations, edits: Sequence[Edit]) -> np.ndarray:
    objects = [(edit.direct, object) for edit in edits for object in (edit.object, edit.fact.object)]
    pairs = [(prompt, in_running_text(object)) for prompt, object in objects]
    values = np.asarray(answerer.log_likelihoods(pairs)).reshape(-1, 2)
    return values[:, 0] > values[:, 1]


class _Neighbours:
    """Entries near an edited one that are not edited themselves."""

    def __init__(self, maker: QuestionMaker, bank: Sequence[Fact], edited: set[tuple[str, str]]):
        self._maker = maker
        self._by_subject: dict[str, list[Fact]] = defaultdict(list)
        self._by_relation: dict[str, list[Fact]] = defaultdict(list)
        self._by_object: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in maker.askable([fact for fact in bank if (fact.subject, fact.relation) not in edited], "trained")[0]:
            self._by_subject[fact.subject].append(fact)
            self._by_relation[fact.relation].append(fact)
            self._by_object[fact.relation, fact.object].append(fact)

    def of(self, fact: Fact, draw: np.random.Generator) -> list[tuple[Neighbour, str]]:
        """Up to three facts of the subject, one of the relation with the same object and one with any."""
        found: list[tuple[Neighbour, Fact]] = [("same subject", near) for near in self._by_subject[fact.subject][:3]]
        for pool in (self._by_object[fact.relation, fact.object], self._by_relation[fact.relation]):
            others = [near for near in pool if near.subject != fact.subject and ("same relation", near) not in found]
            if others:
                found.append(("same relation", others[int(draw.integers(len(others)))]))
        return [(kind, self._maker.two_prompts(near, draw)[0]) for kind, near in found]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
