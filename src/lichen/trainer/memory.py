"""The facts of a training whose model reads them: where they come from, where they are kept, how a step varies them.

>>> reads_facts(ModelConfig()), reads_facts(ModelConfig.from_data({"feed_forward": {"kind": "knowledge"}}))
(False, True)
"""

from __future__ import annotations

from typing import Protocol

from lichen.config.data import DataConfig
from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.config.training import BankConfig, TrainConfig
from lichen.core.runs import Run
from lichen.dataset.bank import Bank
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.opening import Data
from lichen.dataset.rebinding import Rebinder
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import KNOWLEDGE, memory_of
from lichen.model.language_model import LanguageModel


class Recipe(Protocol):
    """The sections that matter here."""

    model: ModelConfig
    data: DataConfig
    knowledge: BankConfig
    train: TrainConfig


def reads_facts(model: ModelConfig) -> bool:
    """Whether any layer reads from a bank."""
    return any(model.feed_forward_of(layer).kind == "knowledge" for layer in range(model.num_hidden_layers))


def check_bank(recipe: Recipe, data: Data) -> None:
    """Facts that are to be read must be there, and be those that the data is linked with. Raises UsageError."""
    if not reads_facts(recipe.model):
        return
    given = recipe.knowledge.database_init_path
    if given is None and data.knowledge is None:
        raise UsageError(
            "knowledge.database_init_path: the model reads facts and the data was prepared without a bank; give one here, or "
            "prepare the data with --knowledge.bank"
        )
    if given is not None and data.knowledge is not None and Bank.open(given).hash != Bank.open(data.knowledge).hash:
        raise UsageError(
            f"knowledge.database_init_path: {given} is not the bank the data is linked with, {data.knowledge}; leave it "
            "unset, or prepare the data with it"
        )


def keep_bank(recipe: Recipe, data: Data, run: Run) -> None:
    """Copy the facts that the model is to read into the run's folder, unless an earlier start did."""
    kept = run.folder / KNOWLEDGE
    if kept.is_dir() or not reads_facts(recipe.model):
        return
    source = recipe.knowledge.database_init_path or data.knowledge
    assert source is not None  # checked before the run had a folder
    Bank.open(source).copy_to(kept)


def bank_hash(recipe: Recipe, run: Run) -> str | None:
    """Which facts the run's model reads; None if it reads none."""
    return Bank.open(run.folder / KNOWLEDGE).hash if reads_facts(recipe.model) else None


def make_rebinder(recipe: Recipe, data: Data, tokenizer: Tokenizer, module: LanguageModel) -> Rebinder | None:
    """What varies the facts in the text and in the bank together; None unless the data is linked and the model reads."""
    memory = memory_of(module)
    if memory is None or data.knowledge is None:
        return None
    bank, cache = Bank.open(data.knowledge), recipe.knowledge.cluster_cache_path
    arrays = BankArrays.of_bank(bank, tokenizer, memory.section.knowledge_length, cache=cache)
    return Rebinder(arrays, recipe.data.links, recipe.train.seed)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
