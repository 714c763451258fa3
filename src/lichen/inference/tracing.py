"""What a model read for every token it generated, and what would have come without.

The text is generated as ever; then it is read once more with all it looked up noted down, and once with an empty bank. As a cache
changes nothing, both see exactly what the generation saw.

>>> from lichen.config.model import ModelConfig
>>> from lichen.dataset.facts import made_fact
>>> from lichen.inference.memory import give_facts
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["Ada was born in London"] * 4, vocab_size=340)
>>> part = {"kind": "knowledge", "knowledge_dim": 8, "router": "language-loss"}
>>> size = {"vocab_size": 340, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
>>> settings = {**size, "feed_forward_by_layer": {"1": part}}
>>> model = initialise(LanguageModel(ModelConfig.from_data(settings)), seed=0).eval()
>>> facts = [made_fact("Ada", "place of birth", "London", id="a")]
>>> give_facts(model, facts, tokenizer)
>>> traced = trace(model, tokenizer, facts, "Ada was born in", max_new_tokens=2)
>>> [(read.fact.id, read.layer) for read in traced[0].reads], len(traced)
([('a', 1)], 2)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.core.batch import Batch
from lichen.dataset.facts import Fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import encode_prompt
from lichen.inference.engine import Engine
from lichen.inference.memory import facts_instead, memory_of
from lichen.model.knowledge import Found, Knowledge
from lichen.model.language_model import LanguageModel


@dataclass(frozen=True)
class Read:
    """One entry that one layer looked at."""

    fact: Fact
    layer: int
    weight: float
    """Its share of the attention, the null slot's counted."""


@dataclass(frozen=True)
class Traced:
    """One generated token."""

    text: str
    probability: float
    """With the bank as it is."""
    reads: tuple[Read, ...]
    """The heaviest first."""
    without: str
    """The most probable token had nothing been in the bank."""
    probability_without: float
    """That the generated token had then."""

    @property
    def changed(self) -> bool:
        """Whether another token would have come."""
        return self.text != self.without


@torch.no_grad()
def trace(
    model: LanguageModel,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    prompt: str,
    max_new_tokens: int = 24,
    least: float = 0.01,
) -> list[Traced]:
    """Continue ``prompt`` greedily; ``facts`` are the bank in the model, in its order; reads below ``least`` are left out.

    Raises UsageError for a model that reads no facts.
    """
    if memory_of(model) is None:
        raise UsageError("this model has no layer of kind knowledge: there is nothing to trace")
    ids = encode_prompt(tokenizer, prompt)
    config = SamplingConfig(temperature=0.0, max_new_tokens=max_new_tokens)
    [answer] = Engine(model, tokenizer.stop_ids).generate([ids], config)
    batch = Batch.of_tokens(torch.tensor([[*ids, *answer]], device=model.head_weight.device))
    places = range(len(ids) - 1, len(ids) + len(answer) - 1)  # each predicts one token of the answer
    with noted(model) as found:
        with_bank = _probabilities(model, batch)
    with facts_instead(model, [], tokenizer):
        without = _probabilities(model, batch)
    return [
        Traced(
            text=tokenizer.decode([token]),
            probability=float(with_bank[place, token]),
            reads=_reads(found, place, facts, least),
            without=tokenizer.decode([int(without[place].argmax())]),
            probability_without=float(without[place, token]),
        )
        for place, token in zip(places, answer, strict=True)
    ]


@contextmanager
def noted(model: LanguageModel) -> Iterator[dict[int, Found]]:
    """What the next forward pass finds in every layer that reads, by layer; the last pass counts."""
    found: dict[int, Found] = {}

    def note(layer: int, output: Found) -> None:
        found[layer] = output

    with ExitStack() as stack:
        for number, block in enumerate(model.model.layers):
            if isinstance(block.mlp, Knowledge):
                hook = lambda module, given, output, number=number: note(number, output)  # noqa: E731
                stack.enter_context(block.mlp.retrieval.register_forward_hook(hook))
        yield found


def _probabilities(model: LanguageModel, batch: Batch) -> Tensor:
    """``[T, V]`` of the only row."""
    logits = model(batch, want="logits").logits
    assert logits is not None
    return logits[0].float().softmax(dim=-1)


def _reads(found: dict[int, Found], place: int, facts: Sequence[Fact], least: float) -> tuple[Read, ...]:
    reads = []
    for layer, each in found.items():
        rows = (each.where == place).nonzero()[:, 0].tolist()
        for row in rows:
            weights = each.weights()[row, :-1].tolist()
            numbers = each.numbers[row].tolist()
            reads += [Read(facts[n], layer, w) for n, w in zip(numbers, weights, strict=True) if w >= least]
    return tuple(sorted(reads, key=lambda read: -read.weight))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
