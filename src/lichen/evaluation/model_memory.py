"""The bank inside a language model, as the interventions want it: other facts for a while, and what is read of them.

What is read is seen by hooks on the layers' retrieval, at the last token of a prompt, where the answer begins. Of several layers
that read, the one counts in which an entry leads the null slot by most.

>>> from lichen.config.model import ModelConfig
>>> from lichen.dataset.facts import made_fact
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["Ada was born in London"] * 4, vocab_size=340)
>>> settings = {"vocab_size": 340, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
>>> settings["feed_forward"] = {"kind": "knowledge", "knowledge_dim": 4, "router": "language-loss"}
>>> memory = ModelMemory.of(initialise(LanguageModel(ModelConfig.from_data(settings)), seed=0), tokenizer)
>>> with memory.with_facts([made_fact("Ada", "place of birth", "London")]):
...     [found] = memory.reads(["Ada was born in"])
>>> [read.entry for read in found], round(sum(read.weight for read in found), 3)
([None, 0], 1.0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.interventions import Read
from lichen.inference.completion import encode_prompt
from lichen.inference.memory import facts_instead, memory_of
from lichen.model.cache import Cache
from lichen.model.knowledge import Found, Knowledge
from lichen.model.language_model import LanguageModel

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact

NOTHING_READ = [Read(None, 1.0)]


class ModelMemory:
    """See interventions.Memory and ShowsReads."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, rows: int = 256):
        self.model = model
        self.tokenizer = tokenizer
        self.rows = rows

    @classmethod
    def of(cls, model: LanguageModel, tokenizer: Tokenizer) -> ModelMemory | None:
        """The memory of ``model``; None where it has none."""
        return cls(model, tokenizer) if memory_of(model) is not None else None

    def with_facts(self, facts: Sequence[Fact]) -> AbstractContextManager[None]:
        """See Memory."""
        return facts_instead(self.model, facts, self.tokenizer)

    def reads(self, prompts: Sequence[str]) -> list[list[Read]]:
        """See ShowsReads."""
        ids = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        result: list[list[Read]] = [NOTHING_READ] * len(ids)
        training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), self.rows):
                part = order[start : start + self.rows]
                for number, found in zip(part, self._reads_of([ids[number] for number in part]), strict=True):
                    result[number] = found
        finally:
            self.model.train(training)
        return result

    def _reads_of(self, rows: Sequence[Sequence[int]]) -> list[list[Read]]:
        width = max(map(len, rows))
        tokens = torch.tensor([[*row, *[self.tokenizer.pad_id] * (width - len(row))] for row in rows])
        tokens = tokens.to(self.model.head_weight.device)
        weight = self.model.head_weight
        cache = Cache(self.model.config, len(rows), width, weight.device, weight.dtype)
        with torch.inference_mode(), _listening(self.model) as heard:
            self.model(cache.batch(tokens, [len(row) for row in rows]), want="last", cache=cache)
        ends = [number * width + len(row) - 1 for number, row in enumerate(rows)]
        layers = [_at(found, ends) for found in heard]
        return [
            max((layer[number] for layer in layers), key=_lead, default=NOTHING_READ) for number in range(len(rows))
        ]


@contextmanager
def _listening(model: LanguageModel) -> Iterator[list[Found]]:
    """What the retrievals of all layers give out meanwhile."""
    heard: list[Found] = []

    def hear(module: Any, given: Any, found: Found) -> None:
        heard.append(found)

    with ExitStack() as hooks:
        for block in model.model.layers:
            if isinstance(block.mlp, Knowledge):
                hooks.callback(block.mlp.retrieval.register_forward_hook(hear).remove)
        yield heard


def _at(found: Found, positions: Sequence[int]) -> list[list[Read]]:
    """What one layer read at the flat ``positions``; nothing where it did not look."""
    places = {position: place for place, position in enumerate(found.where.tolist())}
    wanted = [places[position] for position in positions if position in places]
    weights = dict(zip(wanted, found.weights()[wanted].tolist(), strict=True))
    numbers = dict(zip(wanted, found.numbers[wanted].tolist(), strict=True))
    result = []
    for position in positions:
        place = places.get(position)
        if place is None:
            result.append(NOTHING_READ)
            continue
        reads = [Read(number, weight) for number, weight in zip([*numbers[place], None], weights[place], strict=True)]
        result.append(sorted(reads, key=lambda read: -read.weight))
    return result


def _lead(reads: Sequence[Read]) -> float:
    """By how much the strongest entry leads the null slot."""
    null = next(read.weight for read in reads if read.entry is None)
    return max((read.weight for read in reads if read.entry is not None), default=0.0) - null


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
