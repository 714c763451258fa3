"""Tiny trainings whose text speaks of their bank; as a program, one of two ranks that read from it."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lichen.config.errors import LichenError
from lichen.core.batch import IGNORE_TARGET, Batch, Links
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.inference.memory import KNOWLEDGE, memory_of
from lichen.model.language_model import LanguageModel
from lichen.trainer.loop import Training
from lichen.trainer.runtime import Runtime


def _beside(name: str) -> Any:
    """The module ``name`` in this folder, however this one was found; loaded once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


tiny = _beside("tiny_training")
ENTRIES = 12
READING = {"kind": "knowledge", "knowledge_dim": 8, "heads": 2, "top_k": 2, "refresh_every": 3}
MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


def recipe(**changes: Any) -> Any:
    """Ten steps with statistics at 4, 8 and 10, saved at 6."""
    train = {"steps": 10, "batch_size": 4, "precision": "fp32", **changes.pop("train", {})}
    reading = {**MODEL, "feed_forward_by_layer": {"1": {**READING, **changes.pop("reading", {})}}}
    return tiny.recipe(
        model=reading, train=train, **{"evaluation": {"every": 0}, "checkpoint": {"every": 6}, **changes}
    )


class Linked:
    """Data whose rows are linked by their numbers, whoever reads them."""

    def __init__(self, data: Any):
        self.data = data

    def batches(self, start: int) -> Any:
        """See Batches."""
        for batch in self.data.batches(start):
            batch.links = links_of(batch)
            yield batch

    def epoch(self, rows: int) -> float:
        """See Batches."""
        return self.data.epoch(rows)


def links_of(batch: Batch) -> Links:
    """Two linked places and one null in every row, where there are targets."""
    places, entries, nulls = [], [], []
    for row, number in enumerate(batch.row_numbers):
        for column in (3 + number % 5, 11 + number % 7):
            if batch.targets[row, column] != IGNORE_TARGET:
                places.append([row, column])
                entries.append([(7 * number + column) % ENTRIES, -1])
        nulls += [[row, 1]] if batch.targets[row, 1] != IGNORE_TARGET else []
    none = torch.zeros(0, dtype=torch.long)
    width = 32
    return Links(
        positions=torch.tensor(places, dtype=torch.long).view(-1, 2),
        entries=torch.tensor(entries, dtype=torch.long).view(-1, 2),
        nulls=torch.tensor(nulls, dtype=torch.long).view(-1, 2),
        overridden=none,
        tokens=none.view(0, width),
        removed=none,
    )


def training(folder: Path, resume: bool = False, runtime: Runtime | None = None, **changes: Any) -> Training:
    """Assembled, with linked rows."""
    found = (
        tiny.resumed(folder, recipe(**changes)) if resume else tiny.training(folder, recipe(**changes), None, runtime)
    )
    found.data = Linked(found.data)
    return found


def bank_of(found: Training) -> Any:
    """The bank inside the model."""
    assert isinstance(found.module, LanguageModel)
    return memory_of(found.module)


def stop_after(found: Training, step: int) -> None:
    """As a signal in the middle of the next step would."""
    take_note = found.take_note

    def note(*given: Any) -> None:
        take_note(*given)
        if found.state.step == step:
            found.interruption.note(signal.SIGTERM)

    found.take_note = note  # type: ignore[method-assign]


def on_a_rank(folder: Path) -> None:
    """Three trainings: with one memory, with another bank on rank 1, with another index on rank 1 for a while."""
    runtime = Runtime.start("fp32", timeout=60, device="cpu")
    if runtime.is_master:
        facts = [made_fact(f"stone {n}", "bears", f"lichen {n * n}") for n in range(ENTRIES)]
        for name in ("same", "other bank", "other index"):
            write_bank(folder / name / KNOWLEDGE, facts)
    runtime.barrier()
    same = training(folder / "same", runtime=runtime)
    same.run()
    usage = bank_of(same).usage
    result: dict[str, Any] = {
        "usage": usage.counts.tolist(),
        "usage_weight": usage.weight,
        "waiting": len(usage.waiting()),
        "other bank": with_another_bank(training(folder / "other bank", runtime=runtime)),
        "other index": with_another_index(training(folder / "other index", runtime=runtime)),
    }
    (folder / f"rank{runtime.rank}.json").write_text(json.dumps(result))
    runtime.barrier()
    runtime.close()


def with_another_bank(found: Training) -> str:
    """One token of one entry."""
    bank = bank_of(found)
    if not found.runtime.is_master:
        tokens = bank.entries.tokens.clone()
        tokens[5, 2] += 1
        bank.set_entries(replace(bank.entries, tokens=tokens))
    try:
        return found.run()
    except LichenError as error:
        return str(error)


def with_another_index(found: Training) -> str:
    """One number of one key, until the index is computed anew."""
    step = found.step

    def disturbed(*given: Any) -> Any:
        result = step(*given)
        if found.state.step == 3 and not found.runtime.is_master:
            bank_of(found)._trained[4, 1] += 1e-3
        return result

    found.step = disturbed  # type: ignore[method-assign]
    return found.run()


if __name__ == "__main__":
    on_a_rank(Path(sys.argv[1]))
