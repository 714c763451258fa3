"""What must survive being killed anywhere: saving, pruning, preparing data, training."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from crash_points import Scenario, hashes

from lichen.core import folders
from lichen.core.locks import FolderLock, pin
from lichen.core.runs import Run, step_of
from lichen.core.streams import Stream
from lichen.trainer import checkpoints, saving
from lichen.trainer.checkpoints import Contents
from lichen.trainer.state import State

SAVING = (
    "core/folders.py",
    "core/disk.py",
    "core/locks.py",
    "core/runs.py",
    "trainer/checkpoints.py",
    "trainer/saving.py",
)
TIMES = ("seconds", "time_", "memory", "tokens_per_second")


# --- What every run promises ---


def acknowledge(run: Run, step: int) -> None:
    """Note that the checkpoint of ``step`` was reported as saved: from now on it may be superseded, never lost."""
    with (run.folder / "acknowledged").open("w") as file:
        file.write(str(step))


def run_promise(folder: Path) -> list[str]:
    """Every checkpoint in sight is whole and finite, nothing reported as saved is lost, and the best is there."""
    run = Run(folder)
    problems = [f"{p.name}: {x}" for p in run.checkpoint_folders() for x in folders.verify(p)[:1]]
    problems += [f"{p}: not finite" for p in run.checkpoints.glob("[!.]*/**/*.safetensors") if not finite(p)]
    problems += surviving(run)
    try:
        best = run.read_best()
        if best is not None and not (run.checkpoints / best.checkpoint).is_dir():
            problems.append(f"best.json names {best.checkpoint}, which is gone")
    except ValueError as error:
        problems.append(str(error))
    return problems


def surviving(run: Run) -> list[str]:
    """The newest whole checkpoint is not older than what was reported as saved."""
    acknowledged = run.folder / "acknowledged"
    step = int(acknowledged.read_text() or 0) if acknowledged.exists() else 0
    whole = [step_of(p) for p in run.checkpoint_folders() if not folders.verify(p)]
    newest = max(whole, default=0)
    return [] if newest >= step else [f"step {step} was reported as saved, the newest whole checkpoint is {newest}"]


def run_outcome(folder: Path) -> dict[str, str]:
    """Every byte of the checkpoints, and the metrics but for times."""
    run = Run(folder)
    found = hashes(folder, sorted(run.checkpoints.rglob("*")))
    found = {name: value for name, value in found.items() if not name.endswith(("MANIFEST.json", "state.json"))}
    for path in run.checkpoint_folders():
        state = json.loads((path / "training" / "state.json").read_text())
        found[f"{path.name}: state"] = json.dumps(without_times(state), sort_keys=True)
    if run.metrics.exists():
        rows = [without_times(json.loads(line)) for line in run.metrics.read_text().splitlines()]
        found["metrics"] = json.dumps(
            [row for row in rows if row.get("event") not in ("resume", "start")], sort_keys=True
        )
    return found


def without_times(value: Any) -> Any:
    """Without clocks and memory, which no two runs share."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.startswith(TIMES)}
    return value


def finite(path: Path) -> bool:
    """Whether a file of float32 tensors holds no NaN; read with NumPy, as the parent must not compute with torch."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    parts = [h["data_offsets"] for n, h in header.items() if n != "__metadata__" and h["dtype"] == "F32"]
    return all(np.isfinite(np.frombuffer(data[start + a : start + b], dtype="<f4")).all() for a, b in parts)


# --- Saving ---

LAST = 5


def noise(step: int) -> torch.Tensor:
    """What the toy training adds at a step."""
    return torch.randn(300, generator=Stream(0, "noise").torch(step))


def save_act(folder: Path) -> None:
    """A toy training that saves after every step: best ones, pruning, the last step saved twice."""
    run = Run(folder)
    with FolderLock(folder, "training"):
        run.make_folders()
        saver = saving.Saver(run, keep_last=2)
        state, weight = State(), torch.zeros(300)
        if run.checkpoint_folders():
            checkpoint = checkpoints.latest_checkpoint(run)
            saver.settle(checkpoint.folder, checkpoint.state)
            state, weight = checkpoint.state, checkpoint.weights()["w"]
        while not state.finished:
            if state.step < LAST:
                state.step += 1
                weight = weight * 0.9 + noise(state.step)
                state.best_step = 2 if state.step < 4 else 4
                state.best_metric, state.best_score = "loss", 1 / state.best_step
            else:
                state.finished = True
            contents = Contents(
                state=state, weights={"w": weight}, optimizer={"m/w": -weight}, files={"config.json": b"{}"}
            )
            saver.save(contents, final=state.finished)
            saver.wait()
            acknowledge(run, state.step)


def save_prepare(folder: Path) -> None:
    """An empty folder."""


SAVE = Scenario("save", save_prepare, save_act, run_promise, run_outcome, SAVING)


# --- Pruning ---


def prune_prepare(folder: Path) -> None:
    run = Run(folder)
    run.make_folders()
    for step in range(1, 7):
        state = State(step=step, best_step=2, best_score=0.5, best_metric="loss")
        checkpoints.write_checkpoint(run.checkpoint_folder(step), Contents(state=state, weights={"w": torch.ones(9)}))
        if step == 2:
            saving.Saver(run, keep_last=9).settle(run.checkpoint_folder(2), state)
    pin(run.checkpoint_folder(4), "evaluation")
    (run.checkpoints / ".lichen_step_0000000.partial").mkdir()
    acknowledge(run, 6)


def prune_act(folder: Path) -> None:
    run = Run(folder)
    checkpoint = checkpoints.latest_checkpoint(run)
    saving.Saver(run, keep_last=1).settle(checkpoint.folder, checkpoint.state)


def prune_promise(folder: Path) -> list[str]:
    pinned = Run(folder).checkpoint_folder(4)
    return run_promise(folder) + ([] if pinned.is_dir() else ["a pinned checkpoint is gone"])


PRUNE = Scenario("prune", prune_prepare, prune_act, prune_promise, run_outcome, SAVING)


# --- Preparing data ---

WORDS = (
    "lichen",
    "moss",
    "stone",
    "bark",
    "rain",
    "slow",
    "grows",
    "on",
    "the",
    "under",
    "grey",
    "green",
    "old",
    "wall",
)


def prepare_prepare(folder: Path) -> None:
    rng = random.Random(0)
    (folder / "raw").mkdir()
    for name in ("a", "b"):
        texts = [" ".join(rng.choices(WORDS, k=rng.randrange(30, 60))) + "." for _ in range(24)]
        lines = [json.dumps({"text": text}) for text in (*texts, texts[0])] + ["{broken"]
        (folder / "raw" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def prepare_act(folder: Path, workers: int = 1) -> None:
    from lichen.config.cleaning import CleanConfig, SourceConfig
    from lichen.config.prepare import ShardConfig, SplitConfig, TokenizerConfig
    from lichen.dataset.preparation import prepare

    prepare(
        [SourceConfig(path=folder / "raw" / f"{name}.jsonl") for name in ("a", "b")],
        folder / "out",
        clean=CleanConfig.from_data({"max_bad_fraction": 0.5}),
        tokenizer=TokenizerConfig(vocab_size=330),
        split=SplitConfig(validation_fraction=0.2),
        shards=ShardConfig(max_documents=10),
        workers=workers,
    )


def prepare_promise(folder: Path) -> list[str]:
    """The output is not there, or whole."""
    return folders.verify(folder / "out") if (folder / "out").exists() else []


def prepare_outcome(folder: Path) -> dict[str, str]:
    """Every byte of the output, and that nothing else is left."""
    found = hashes(folder, sorted((folder / "out").rglob("*")))
    found["beside"] = str(sorted(p.name for p in folder.iterdir()))
    return {name: value for name, value in found.items() if not name.endswith(".lock")}


PREPARING = ("core/folders.py", "core/disk.py", "core/locks.py", "dataset/")
PREPARE = Scenario("prepare", prepare_prepare, prepare_act, prepare_promise, prepare_outcome, PREPARING)


def prepare_with_workers(folder: Path) -> None:
    prepare_act(folder, workers=2)


WORKERS = Scenario(
    "prepare with workers", prepare_prepare, prepare_with_workers, prepare_promise, prepare_outcome, PREPARING
)


# --- Training ---


def tiny() -> ModuleType:
    """The trainer's own tiny training."""
    if "tiny_training" not in sys.modules:
        path = Path(__file__).parents[1] / "trainer" / "tiny_training.py"
        spec = importlib.util.spec_from_file_location("tiny_training", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["tiny_training"] = module
        spec.loader.exec_module(module)
    return sys.modules["tiny_training"]


POISONED = 3  # the step whose loss is not a number


def poison(training: Any) -> None:
    """Make the loss of one step NaN, as a broken row of data would."""
    forward, state = training.module.forward, training.state

    def poisoned(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        if training.module.training and state.step == POISONED - 1 and torch.is_grad_enabled():
            output.nll.data.mul_(float("nan")) if output.nll.is_leaf else output.nll.register_hook(
                lambda g: g * float("nan")
            )
        return output

    training.module.forward = poisoned


def train_act(folder: Path) -> None:
    """Six steps with validation, averages, a step that is skipped, asynchronous saves after every step, pruning."""
    from lichen.trainer.runtime import Runtime

    module = tiny()
    recipe = module.recipe(
        checkpoint={"every": 1, "keep_last": 2, "asynchronous": True}, averages={"enabled": True, "decay": 0.9}
    )
    run = Run(folder)
    runtime = Runtime.start("fp32", timeout=20, device="cpu")
    with FolderLock(folder, "training") if runtime.is_master else contextlib.nullcontext():
        resuming = bool(runtime.broadcast(bool(run.checkpoint_folders())))
        fingerprint = module.assembly.fingerprint_of(recipe, module.data(recipe), module.tokenizer())
        checkpoint = module.assembly.find_checkpoint(run, fingerprint, runtime) if resuming else None
        training = module.training(folder, recipe, checkpoint, runtime)
        if not training.state.finished:
            poison(training)
            training.run()
            finite = all(p.isfinite().all() for p in training.module.parameters())
            assert finite, "the poison has reached the weights"
            assert training.state.skipped == 1, "the poisoned step was to be skipped"
        if runtime.is_master:
            acknowledge(run, training.state.step)
        runtime.barrier()
    runtime.close()


TRAINING = ("trainer/", "core/folders.py", "core/disk.py", "core/runs.py", "metrics/records.py", "dataset/loader.py")
TRAIN = Scenario("train", save_prepare, train_act, run_promise, run_outcome, TRAINING)

SCENARIOS = {scenario.name: scenario for scenario in (SAVE, PRUNE, PREPARE, TRAIN)}
