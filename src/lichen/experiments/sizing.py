"""Models made as large as the reference, so that no arm has a larger budget.

Searching costs operations per entry, so the bank's size must be known; it is counted, and not written into the model, which must
take in facts that are added later.

>>> settings = ComparisonConfig.from_data({
...     "sizes": [{"told": 600}], "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
...     "arms": {"knowledge": {"feed_forward_by_layer": {"1": {"kind": "knowledge", "beside": {"kind": "dense"}}}}, "dense": {}}})
>>> models = sized_models(settings, About(told=600, entries=800, vocabulary=400))
>>> [models[arm].model.intermediate_size for arm in models], models["dense"].measures.bank_bytes
([None, 968], 0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lichen.config.comparison import ArmConfig, ComparisonConfig
from lichen.config.errors import UsageError
from lichen.config.feed_forward import FeedForwardConfig, KnowledgeConfig
from lichen.config.model import ModelConfig
from lichen.model.iso import Measures, Quantity, fit, measure

_QUANTITY: dict[str, Quantity] = {"flops": "flops_per_token", "parameters": "trainable"}


@dataclass(frozen=True)
class About:
    """What the texts of a size came to."""

    told: int
    entries: int
    """Of the bank for training."""
    vocabulary: int


@dataclass(frozen=True)
class Sized:
    """A model, made equal to the reference, and what it costs."""

    model: ModelConfig
    measures: Measures


def sized_models(settings: ComparisonConfig, about: About) -> dict[str, Sized]:
    """The model of every arm that takes part, made equal to the reference's. Raises UsageError naming the arm that can not be."""
    length = settings.sequence_length

    def original(arm: str) -> ModelConfig:
        model = settings.model_of(arm).with_vocabulary(about.vocabulary)
        return _each_reading(
            model, lambda part: part.model_copy(update={"knowledge_num": part.knowledge_num or about.entries})
        )

    target = measure(original(settings.reference), length)
    found = {}
    for name in settings.chosen:
        arm, model = settings.arms[name], original(name)
        if arm.equal is not None and name != settings.reference:
            try:
                model = fit(model, target, _QUANTITY[arm.equal], length)
            except UsageError as error:
                raise UsageError(f"arm {name}: {error}, or set arms.{name}.equal to null") from None
        found[name] = Sized(_with_room_of(model, settings.model_of(name)), measure(model, length))
    return found


def equal_in_words(settings: ComparisonConfig, name: str) -> str:
    """In what an arm was made equal to the reference.

    >>> arms = {"knowledge": {}, "dense": {"equal": "parameters"}}
    >>> settings = ComparisonConfig.from_data({"sizes": [{"told": 1}], "arms": arms})
    >>> equal_in_words(settings, "dense"), equal_in_words(settings, "knowledge")
    ('parameters of knowledge', 'the reference')
    """
    arm: ArmConfig = settings.arms[name]
    if name == settings.reference:
        return "the reference"
    words = {"flops": f"FLOPs of {settings.reference}", "parameters": f"parameters of {settings.reference}"}
    return words[arm.equal] if arm.equal else "as it is"


def _each_reading(model: ModelConfig, change: Callable[[KnowledgeConfig], KnowledgeConfig]) -> ModelConfig:
    def changed(part: FeedForwardConfig) -> FeedForwardConfig:
        return change(part) if isinstance(part, KnowledgeConfig) else part

    by_layer = {layers: changed(part) for layers, part in model.feed_forward_by_layer.items()}
    return model.model_copy(update={"feed_forward": changed(model.feed_forward), "feed_forward_by_layer": by_layer})


def _with_room_of(model: ModelConfig, original: ModelConfig) -> ModelConfig:
    """``model`` with as much room for entries as the ``original`` has: what is counted must not keep facts from being added."""
    parts = [original.feed_forward, *original.feed_forward_by_layer.values()]
    room = next((part.knowledge_num for part in parts if isinstance(part, KnowledgeConfig)), None)
    return _each_reading(model, lambda part: part.model_copy(update={"knowledge_num": room}))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
