"""How the memory of an examined model fares: what its training counted, and how it reads the examination's own prompts.

From the checkpoint come the counters of `lichen.model.knowledge_health` (dead entries, usage), the drift of what entries learnt
beside their text, and when the index was computed; from the run's metrics, up to that step, the gradient norm of its router and
whether its ranks agreed. Reading is looked at anew, with the bank of each group in place, at every position of its prompts and in
all layers that read: how often an entry is ahead of the null slot, what share of attention the null slot has, over how many
entries reading is spread, and how many of the entries that brute force finds best the search of the index finds as well.

>>> from lichen.config.model import ModelConfig
>>> from lichen.dataset.facts import made_fact
>>> from lichen.inference.memory import give_facts
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["Ada was born in London"] * 4, vocab_size=340)
>>> settings = {"vocab_size": 340, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
>>> settings["feed_forward"] = {"kind": "knowledge", "knowledge_dim": 4, "router": "language-loss"}
>>> model = initialise(LanguageModel(ModelConfig.from_data(settings)), seed=0)
>>> give_facts(model, [made_fact(name, "place of birth", "London") for name in ("Ada", "Bo")], tokenizer)
>>> health = MemoryHealth.of(model, tokenizer)
>>> found = health.reading(["Ada was born in"])
>>> found.positions, found.entries, found.distinct, str(found.recall), health.training is None
(4, 2, 2, '100.0 % [67.6, 100.0], n 8', True)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lichen.config.errors import LichenError
from lichen.core.runs import Run, step_of
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.intervals import NOTHING, Score, proportion
from lichen.inference.completion import encode_prompt
from lichen.inference.memory import memory_of
from lichen.metrics import records
from lichen.metrics.report import Table
from lichen.model.cache import Cache
from lichen.model.knowledge import SHARED, Found, Knowledge, Retrieval
from lichen.model.knowledge_bank import KnowledgeBank
from lichen.model.knowledge_health import Usage, UsageReport, normalised_entropy
from lichen.model.knowledge_search import search_exactly
from lichen.model.language_model import LanguageModel
from lichen.model.layout import Layout

TRAINING_STATE = "training/module.safetensors"
"""Where in a checkpoint the counters lie."""
PROMPTS = 512
"""Of a group's prompts so many are read, evenly chosen."""
COMPARED = 256
"""Queries per layer and batch that are compared with every key."""
ROUNDING = 1e-3
"""Scores this near count as equal: entries of one key are told apart by rounding alone."""


@dataclass(frozen=True)
class TrainingHealth:
    """What a checkpoint and its run say. None: they do not."""

    updates: int
    refreshed: int | None
    """After how many updates the index that was searched last was computed."""
    usage: UsageReport | None
    drift: float
    gradient_norm: float | None
    ranks_agree: bool | None


@dataclass(frozen=True)
class Reading:
    """How prompts are read, over all layers that read."""

    positions: int
    reads: Score
    """Positions at which an entry is ahead of the null slot."""
    null: float
    """Mean share of attention that the null slot has before tokens are looked at; 1 where nothing was looked up."""
    entries: int
    """In the bank."""
    distinct: int
    """Entries that are ahead of all others and the null slot somewhere."""
    entropy: float
    """Of the attention that entries get, over ln N."""
    recall: Score
    """Of the best ``top_k`` entries by brute force, those the search finds."""


class Watcher(Protocol):
    """Who looks at a memory while it is examined."""

    @property
    def training(self) -> TrainingHealth | None:
        """What the training left, if anything."""
        ...

    def reading(self, prompts: Sequence[str]) -> Reading:
        """How ``prompts`` are read with the bank that is in place."""
        ...


@dataclass(frozen=True)
class Health:
    """Everything that was found."""

    training: TrainingHealth | None
    reading: Mapping[str, Reading]
    """By group."""


class MemoryHealth:
    """A Watcher of a language model."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, training: TrainingHealth | None, rows: int = 64):
        self.model, self.tokenizer, self.training, self.rows = model, tokenizer, training, rows

    @classmethod
    def of(cls, model: LanguageModel, tokenizer: Tokenizer, checkpoint: Path | None = None) -> MemoryHealth | None:
        """Of ``model``, trained as ``checkpoint`` says; None where it has no memory. Raises LichenError for a damaged file."""
        bank = memory_of(model)
        if bank is None:
            return None
        return cls(model, tokenizer, None if checkpoint is None else training_health(checkpoint, bank))

    def reading(self, prompts: Sequence[str]) -> Reading:
        """See Watcher."""
        bank = memory_of(self.model)
        assert bank is not None
        chosen = list(dict.fromkeys(prompts))
        chosen = chosen[:: math.ceil(len(chosen) / PROMPTS) or 1]
        ids = sorted((encode_prompt(self.tokenizer, prompt) for prompt in chosen), key=len)
        tally = _Tally(bank, self.model.head_weight.device)
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), _listening(self.model, tally):
                for start in range(0, len(ids), self.rows):
                    self._read(ids[start : start + self.rows])
        finally:
            self.model.train(training)
        return tally.result()

    def _read(self, rows: Sequence[Sequence[int]]) -> None:
        weight, width = self.model.head_weight, max(map(len, rows))
        tokens = torch.tensor([[*row, *[self.tokenizer.pad_id] * (width - len(row))] for row in rows])
        cache = Cache(self.model.config, len(rows), width, weight.device, weight.dtype)
        self.model(cache.batch(tokens.to(weight.device), [len(row) for row in rows]), want="last", cache=cache)


class _Tally:
    """Sums over positions and layers."""

    def __init__(self, bank: KnowledgeBank, device: torch.device):
        self.bank = bank
        self.weights = torch.zeros(len(bank), dtype=torch.float64, device=device)
        self.leaders = torch.zeros(len(bank), dtype=torch.bool, device=device)
        self.positions = self.reads = self.best = self.found = 0
        self.null = 0.0

    def hear(self, retrieval: Retrieval, states: Tensor, layout: Layout, found: Found) -> None:
        """One layer's look at one batch."""
        real = int(layout.real.sum())
        shares = found.weights().double()
        self.positions += real
        self.null += real - len(found.where) + float(shares[:, -1].sum())
        if not len(found.where):
            return
        self.weights.index_add_(0, found.numbers.flatten(), shares[:, :-1].flatten())
        best, place = found.scores.max(dim=1)
        ahead = best > found.null
        self.reads += int(ahead.sum())
        self.leaders[found.numbers.gather(1, place[:, None])[ahead, 0]] = True
        self._compare(retrieval.queries(states[found.where[:COMPARED]])[0], layout, found.numbers.shape[1])

    def _compare(self, queries: Tensor, layout: Layout, number: int) -> None:
        """Search once more, and by brute force in full precision."""
        assert layout.embedding is not None
        index = self.bank.index(layout.embedding, layout.dtype)
        numbers = self.bank.search(queries, index, number)[1]
        scores, _ = search_exactly(queries, index.float(), number, None)
        own = torch.einsum("nd,nkd->nk", queries, index[numbers].float())
        self.best += scores.numel()
        self.found += int((own >= scores[:, -1:] - ROUNDING).sum())

    def result(self) -> Reading:
        """What it comes to."""
        return Reading(
            positions=self.positions,
            reads=proportion(self.reads, self.positions),
            null=self.null / self.positions if self.positions else math.nan,
            entries=len(self.weights),
            distinct=int(self.leaders.sum()),
            entropy=normalised_entropy(self.weights),
            recall=proportion(self.found, self.best),
        )


@contextmanager
def _listening(model: LanguageModel, tally: _Tally) -> Iterator[None]:
    def hear(module: Any, given: Any, found: Found) -> None:
        states, _, layout, _ = given
        tally.hear(module, states, layout, found)

    with ExitStack() as hooks:
        for block in model.model.layers:
            if isinstance(block.mlp, Knowledge):
                hooks.callback(block.mlp.retrieval.register_forward_hook(hear).remove)
        yield


# --- What the training left ---


def training_health(checkpoint: Path, bank: KnowledgeBank) -> TrainingHealth | None:
    """What ``checkpoint`` holds of the training of ``bank``; None for weights alone. Raises LichenError for a damaged file."""
    file = checkpoint / TRAINING_STATE
    if not file.is_file():
        return None
    state = _counters(file)
    if "updates" not in state:
        return None
    updates, _, *refreshed = state["updates"].tolist()
    usage = Usage()
    usage.load(state)
    last = _last_row(checkpoint)
    agree = last.get("knowledge_ranks_agree")
    return TrainingHealth(
        updates=updates,
        refreshed=refreshed[0] if refreshed else None,
        usage=usage.report() if "usage" in state else None,
        drift=float(bank.drift()),
        gradient_norm=last.get("knowledge_router_gradient_norm"),
        ranks_agree=None if agree is None else bool(agree),
    )


def _counters(file: Path) -> dict[str, Tensor]:
    """The small tensors of a memory's training state: the index, which may be large, is left where it is."""
    from safetensors import SafetensorError, safe_open

    wanted = {name: f"{SHARED}/{name}" for name in ("updates", "usage", "usage_weight")}
    try:
        with safe_open(file, framework="pt") as tensors:
            there = set(tensors.keys())
            return {name: tensors.get_tensor(key) for name, key in wanted.items() if key in there}
    except (SafetensorError, OSError) as error:
        raise LichenError(f"{file}: not a safetensors file ({error}); use another checkpoint") from None


def _last_row(checkpoint: Path) -> dict[str, Any]:
    """The last row of the run's metrics that speaks of its memory, up to the checkpoint; empty where there is none."""
    run = Run(checkpoint.absolute().parent.parent)
    found: dict[str, Any] = {}
    with contextlib.suppress(LichenError, OSError, ValueError):  # metrics are a help here, not what is examined
        step = step_of(checkpoint)
        for row in records.read(run.metrics, ["train"]):
            if row["step"] <= step and "knowledge_router_gradient_norm" in row:
                found = row
    return found


# --- What is said of it ---


def tables(found: Health) -> list[Table]:
    """What the training left, if anything, and a row per group."""
    return [*_training_tables(found.training), *_reading_tables(found.reading)]


def as_data(found: Health) -> dict[str, Any]:
    """For a JSON file; what is not a number is None."""
    training = found.training
    return {
        "training": None if training is None else _plain(asdict(training)) | {"dead": _dead(training.usage).as_dict()},
        "reading": {name: _plain(asdict(reading)) | _scores(reading) for name, reading in found.reading.items()},
    }


def _scores(reading: Reading) -> dict[str, Any]:
    return {"reads": reading.reads.as_dict(), "recall": reading.recall.as_dict()}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _plain(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and math.isnan(value)
        else value
        for name, value in data.items()
    }


def _dead(usage: UsageReport | None) -> Score:
    return NOTHING if usage is None else proportion(usage.dead, usage.linked)


def _training_tables(training: TrainingHealth | None) -> list[Table]:
    if training is None:
        return []
    usage = training.usage
    agree = {None: "–", True: "yes", False: "NO"}[training.ranks_agree]
    rows: list[dict[str, str]] = []
    if usage is not None:
        rows = [
            _row("dead entries, of those linked of late", _dead(usage).short(), f"{usage.linked:,}"),
            _row("usage entropy / ln N", _number(usage.entropy), f"{usage.entries:,}"),
        ]
    rows += [
        _row("router gradient norm", _number(training.gradient_norm)),
        _row("drift of learning entries", _number(training.drift)),
        _row("index computed after update", "–" if training.refreshed is None else f"{training.refreshed:,}"),
        _row("ranks agree", agree),
    ]
    note = f"After {training.updates:,} updates. Dead: linked in the training text of late, and not found there."
    return [Table("health of the memory in training", rows, note)]


def _reading_tables(reading: Mapping[str, Reading]) -> list[Table]:
    rows = [
        {
            "group": name,
            "positions that read": found.reads.short(),
            "null share": _number(found.null),
            "entries read": f"{found.distinct:,} of {found.entries:,}",
            "usage entropy / ln N": _number(found.entropy),
            "recall of the search": found.recall.short(),
            "n": f"{found.positions:,}",
        }
        for name, found in reading.items()
    ]
    note = "At all positions of the prompts; read: an entry is ahead of the null slot. Recall: against brute force."
    return [Table("health of the memory in reading", rows, note)] if rows else []


def _row(measure: str, value: str, n: str = "–") -> dict[str, str]:
    return {"measure": measure, "value": value, "n": n}


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
