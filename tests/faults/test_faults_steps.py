"""Numbers that are no numbers, and too little memory, as a user meets them."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lichen.config.base import leaves
from lichen.core.runs import Run
from lichen.metrics import records
from lichen.model.language_model import LanguageModel
from lichen.scripts.train import TrainRecipe
from lichen.trainer import step


def flags_of(tiny_flags, tmp_path, *more):
    return ["train", *tiny_flags, "--train.steps", 8, "--run.root", tmp_path, "--run.name", "run", *more]


def test_a_loss_that_stays_nan_ends_the_training_after_so_many_steps(tiny_flags, lichen, tmp_path, monkeypatch):
    forward, seen = LanguageModel.forward, []

    def poisoned(self, batch, **options):
        found = forward(self, batch, **options)
        if self.training and len(seen) >= 5:
            found.nll.mul_(float("nan"))
        if self.training:
            seen.append([float(value.detach().double().sum()) for value in self.parameters()])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "forward", poisoned)
        said = lichen(*flags_of(tiny_flags, tmp_path, "--train.max_consecutive_skips", 2))
    error = said.refused(1)
    assert error.startswith("step 7: 2 steps in a row were not finite")
    assert "rows 24-27" in error and "--optim.lr" in error
    run = Run(tmp_path / "run")
    events = [row for row in records.read(run.metrics) if row["type"] == "event"]
    assert [(row["step"], row["event"]) for row in events] == [(6, "skip"), (7, "skip")]
    assert "rows 20-23" in events[0]["text"]
    found = [json.loads((path / "training" / "state.json").read_text()) for path in run.checkpoint_folders()]
    assert [(state["step"], state["skipped"]) for state in found] == [(4, 0), (7, 2)]
    assert found[1]["reason"].startswith("fault: step 7: 2 steps in a row")
    assert seen[5] == seen[6] != seen[4]  # no step was taken
    again = lichen("train", run.folder)  # the fault was in the machine
    assert again.status == 0 and "from step 7" in again.err
    weights = load_file(run.latest() / "model.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())


def run_out(rows: int):
    """A forward pass that fails above so many rows."""
    forward = LanguageModel.forward

    def limited(self, batch, **options):
        if batch.rows > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(self, batch, **options)

    return limited


def advised(text: str) -> list[tuple[str, str]]:
    """Flags and settings with their values, as far as the advice names some."""
    return re.findall(r"--([a-z_]+\.[a-z_]+) ?(\w*)", text) + [
        (name, "") for name in re.findall(r"lower ([a-z_.]+)", text)
    ]


@pytest.mark.parametrize("settings", [(4, 1, 2), (4, 4, 0), (3, 1, 1), (9, 3, 2)])
def test_too_little_memory_ends_with_advice_that_can_be_followed(settings, tiny_flags, lichen, tmp_path, monkeypatch):
    batch, accumulation, limit = settings
    monkeypatch.setattr(LanguageModel, "forward", run_out(limit))
    words = ["--train.batch_size", batch, "--train.accumulation", accumulation, "--evaluation.every", 0]
    error = lichen(*flags_of(tiny_flags, tmp_path, *words)).refused(1)
    assert f"{batch // accumulation} × 64 tokens" in error
    known = {path for path, _ in leaves(TrainRecipe)}
    assert advised(error) and all(name in known for name, _ in advised(error)), error
    parts = dict(advised(error)).get("train.accumulation")
    if batch == accumulation:
        assert parts is None and "data.sequence_length" in error  # one row can not be split
        return
    assert parts is not None and batch % int(parts) == 0 and int(parts) > accumulation
    monkeypatch.setattr(LanguageModel, "forward", run_out(batch // int(parts)))
    assert lichen("train", tmp_path / "run", "--train.accumulation", parts).status == 0


def test_asked_to_it_halves_by_itself_and_says_so(tiny_flags, lichen, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "forward", run_out(2))
    said = lichen(*flags_of(tiny_flags, tmp_path, "--train.halve_on_out_of_memory", "--evaluation.every", 0))
    assert said.status == 0 and "going on with 2 micro-batches" in said.err
    state = json.loads((Run(tmp_path / "run").latest() / "training" / "state.json").read_text())
    assert (state["step"], state["rows"], state["skipped"]) == (8, 32, 0)


@pytest.mark.parametrize("where", ["moments", "validation"])
def test_memory_that_runs_out_elsewhere_is_no_defect_either(where, tiny_flags, lichen, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    if where == "moments":
        monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    else:
        monkeypatch.setattr("lichen.trainer.loop.validate", fails)
    error = lichen(*flags_of(tiny_flags, tmp_path)).refused(1)
    assert "out of memory" in error and len(error) < 600


def test_other_faults_of_the_runtime_keep_their_words():
    assert not step.is_out_of_memory(RuntimeError("shapes differ"))
