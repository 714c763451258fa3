"""The facts of a training whose model reads them: where they come from, where they are kept, how a step varies them, and how
the memory fares.

A `MemoryWatch` counts and measures at statistics steps (`lichen.model.knowledge_health`) and lets ranks compare what they read:
other facts on one rank are an error, since the ranks would teach one model different things; another index over the same facts
is said loudly, as processors that are not alike may differ in the last bit. It is called on all ranks, and nothing that it does
reaches the weights.

>>> reads_facts(ModelConfig()), reads_facts(ModelConfig.from_data({"feed_forward": {"kind": "knowledge"}}))
(False, True)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lichen.config.data import DataConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.config.training import BankConfig, LogConfig, TrainConfig
from lichen.core.runs import Run
from lichen.dataset.bank import Bank
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.opening import Data
from lichen.dataset.rebinding import Rebinder
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import KNOWLEDGE, memory_of
from lichen.model.knowledge import Knowledge
from lichen.model.language_model import LanguageModel
from lichen.trainer.runtime import Runtime


class Recipe(Protocol):
    """The sections that matter here."""

    model: ModelConfig
    data: DataConfig
    knowledge: BankConfig
    train: TrainConfig
    log: LogConfig


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


# --- How it fares ---


class Watch:
    """What a training tells whoever watches its model's memory; this one watches nothing."""

    problem: str | None = None
    """What the latest look found that a person should know."""

    def check(self) -> None:
        """Before the first step. Raises LichenError where the ranks do not read the same facts."""

    def begin(self, step: int) -> None:
        """``step`` begins, or begins again."""

    def look(self) -> None:
        """Its gradients are whole, not clipped yet."""

    def settle(self) -> None:
        """A checkpoint is about to be written."""

    def meters(self, step: int) -> dict[str, float]:
        """What there is to say after ``step``; nothing unless it is a statistics step."""
        return {}


class MemoryWatch(Watch):
    """Watches a memory: meters named ``knowledge_…`` at the statistics steps of ``log`` and at the last of ``total`` steps."""

    def __init__(self, module: LanguageModel, runtime: Runtime, log: LogConfig, total: int):
        bank = memory_of(module)
        assert bank is not None
        self.bank, self.runtime, self.log, self.total = bank, runtime, log, total
        self.router = router_parameters(module)
        self.norm: Tensor | None = None
        self._is_due = False
        self._checksums: tuple[object, str] = (None, "")
        bank.usage.watched, bank.usage.shared = True, runtime.world_size > 1

    def check(self) -> None:
        """See Watch."""
        self._compare(with_index=False)

    def begin(self, step: int) -> None:
        """See Watch."""
        self._is_due = self.is_due(step)
        self.bank.usage.forget()

    def look(self) -> None:
        """See Watch."""
        if self._is_due:
            found = [parameter.grad for parameter in self.router if parameter.grad is not None]
            self.norm = torch.nn.utils.get_total_norm(found)

    def settle(self) -> None:
        """See Watch."""
        if self.runtime.world_size > 1:
            self.bank.usage.settle(self.runtime.gather(self.bank.usage.waiting()))

    def meters(self, step: int) -> dict[str, float]:
        """See Watch. Raises LichenError where the ranks do not read the same facts."""
        self.problem = None
        if not self.is_due(step):
            return {}
        self.settle()
        agree = {"knowledge_ranks_agree": float(self._compare())} if self.runtime.world_size > 1 else {}
        report = self.bank.usage.report()
        dead = {"knowledge_dead": report.dead / report.linked} if report.linked else {}
        return {
            **({} if self.norm is None else {"knowledge_router_gradient_norm": float(self.norm)}),
            "knowledge_linked": report.linked,
            **dead,
            "knowledge_usage_entropy": report.entropy,
            "knowledge_drift": float(self.bank.drift()),
            "knowledge_refreshed": self.bank.refreshed,
            **agree,
        }

    def is_due(self, step: int) -> bool:
        """Whether the row of ``step`` has statistics."""
        return step == self.total or (step % self.log.every == 0 and step % self.log.statistics_every == 0)

    def _compare(self, with_index: bool = True) -> bool:
        """Whether the ranks search the same index; raises LichenError where they do not even read the same facts."""
        if self.runtime.world_size == 1:
            return True
        entries, index = zip(*self.runtime.gather(self._own_checksums(with_index)), strict=True)
        if others := differing(entries):
            raise LichenError(
                f"{_ranks(others)} read{'s' * (len(others) == 1)} other facts than the rest: give every rank the same "
                f"RUN/{KNOWLEDGE} (one shared folder, or copies of one bank)"
            )
        if others := differing(index):
            self.problem = (
                f"{_ranks(others)} compute{'s' * (len(others) == 1)} another index than the rest from the same facts: "
                "weights or arithmetic differ between these processes"
            )
        return not others

    def _own_checksums(self, with_index: bool) -> tuple[str, str]:
        entries = self.bank.entries
        if entries is not None and self._checksums[0] is not entries:
            self._checksums = entries, entries.checksum()
        return self._checksums[1], self.bank.index_checksum() if with_index else ""


def make_watch(recipe: Recipe, module: LanguageModel, runtime: Runtime, total: int) -> Watch:
    """Whoever watches the memory of ``module``, if it has one, for ``total`` steps."""
    return Watch() if memory_of(module) is None else MemoryWatch(module, runtime, recipe.log, total)


def router_parameters(module: LanguageModel) -> list[nn.Parameter]:
    """What decides which entries are found: queries, null slots, and what makes keys; not the notes that entries learn."""
    layers = [block.mlp.retrieval for block in module.model.layers if isinstance(block.mlp, Knowledge)]
    bank = memory_of(module)
    parts = [] if bank is None else [bank.subject_proj, bank.relation_proj, bank.token_gate]
    return [parameter for part in (*layers, *parts) for parameter in part.parameters()]


def differing(values: Sequence[str]) -> list[int]:
    """The ranks whose value is not the commonest, or of several commonest not the first.

    >>> differing(["a", "a"]), differing(["a", "b"]), differing(["a", "b", "b"])
    ([], [1], [0])
    """
    usual = Counter(values).most_common(1)[0][0]
    return [rank for rank, value in enumerate(values) if value != usual]


def _ranks(numbers: Sequence[int]) -> str:
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
