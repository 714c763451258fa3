"""``lichen doctor RECIPE``: would this training run here? Checks first, then twenty real steps in a throw-away folder.

Every check says what it looked at; what is wrong comes with its remedy. The trial uses the recipe's own data, model and
precision, and ends with the speed and an estimate for the whole. Exit status 0 if everything holds, 1 if not.

>>> print(Check("data", False, "x: not found; run lichen prepare").line())
  FAIL  data: x: not found; run lichen prepare
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import LichenError, UsageError
from lichen.scripts.command_line import run_module

if TYPE_CHECKING:
    from lichen.scripts.train import TrainRecipe


class DoctorCommand(Config):
    """Check the recipe, this machine and the paths, then train a few steps in a throw-away folder."""

    trial_steps: int = Field(default=20, ge=0)
    """Steps of the trial; 0 leaves it out."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    words: str

    def line(self) -> str:
        """For the terminal."""
        return f"  {'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.words}"


def run(argv: list[str]) -> int:
    """Check everything, then try it."""
    from lichen.scripts.train import TrainRecipe

    own = [word for word in argv if word.startswith("--trial") or word in ("-h", "--help")]
    command, rest = _take_own(argv) if own else (DoctorCommand(), argv)
    arguments = flags.parse(rest, TrainRecipe, "lichen doctor")
    if not arguments.positionals:
        raise UsageError("lichen doctor needs a recipe: lichen doctor RECIPE.yaml [--setting VALUE …]")
    recipe = load(TrainRecipe, flags.existing_files(arguments.positionals, "recipe"), flags=arguments.settings)
    print(f"  ok    recipe: {', '.join(arguments.positionals)} holds together")
    failed = 0
    for check in checks(recipe):
        print(check.line(), flush=True)
        failed += not check.ok
    if failed:
        print(f"{failed} of these would stop the training; no trial was made")
        return 1
    return trial(rest, command.trial_steps, recipe) if command.trial_steps else 0


def _take_own(argv: list[str]) -> tuple[DoctorCommand, list[str]]:
    """Take ``--trial-steps N`` (and ``--help``) out of what is otherwise a training's command line."""
    words, own = [], []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            own.append(word)
        elif word.startswith("--trial"):
            own += [word] if "=" in word or not rest else [word, rest.pop(0)]
        else:
            words.append(word)
    arguments = flags.parse(own, DoctorCommand, "lichen doctor")
    return load(DoctorCommand, flags=arguments.settings, environment={}), words


def checks(recipe: TrainRecipe) -> Iterator[Check]:
    """Everything that can be told without training, in the order in which a training would meet it."""
    yield _checked("device", _device, recipe)
    yield _checked("run folder", _writable, recipe)
    yield _checked("trackers", _trackers, recipe)
    data = _checked("data", _data, recipe)
    yield data
    if data.ok:  # the vocabulary, and so the model's size, come with the data
        yield _checked("model and memory", _memory, recipe)
        yield _checked("room on the disk", _disk, recipe)


def _checked(name: str, look: Callable[[TrainRecipe], str], recipe: TrainRecipe) -> Check:
    try:
        return Check(name, True, look(recipe))
    except (LichenError, OSError) as error:
        return Check(name, False, " ".join(str(error).split()))


def _device(recipe: TrainRecipe) -> str:
    from lichen.core import device

    best = device.get_best_device()
    dtype = device.autocast_dtype(best, recipe.train.precision)
    return f"{device.describe(best)} ({best}), {'fp32' if dtype is None else str(dtype).removeprefix('torch.')}"


def _data(recipe: TrainRecipe) -> str:
    from lichen.dataset.opening import open_data

    data = open_data(recipe.data, recipe.train.seed, verify=True)
    rows = data.rows.rows_in_epoch(0)
    held_out = "no validation data" if data.validation is None else "validation data present"
    return f"whole; {rows:,} rows of {recipe.data.sequence_length} tokens in an epoch, {held_out}"


def _writable(recipe: TrainRecipe) -> str:
    root = recipe.run.root
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    with tempfile.TemporaryDirectory(dir=existing, prefix=".lichen-doctor-"):
        return f"{root} can be written"


def _model(recipe: TrainRecipe):
    from lichen.dataset.opening import open_data
    from lichen.dataset.tokenizer import Tokenizer

    folder = open_data(recipe.data, recipe.train.seed, verify=False).tokenizer_folder
    return recipe.model.with_vocabulary(Tokenizer.load(folder).vocab_size)


def _memory(recipe: TrainRecipe) -> str:
    import psutil

    from lichen.core import device
    from lichen.model.size import training_memory
    from lichen.scripts.inspection import gibibytes

    rows = max(1, recipe.train.batch_size // recipe.train.accumulation)
    needed = training_memory(_model(recipe), rows=rows, length=recipe.data.sequence_length).total
    if device.get_device_type() == "cuda":
        import torch

        available = torch.cuda.mem_get_info()[0]
    else:
        available = psutil.virtual_memory().available
    words = f"about {gibibytes(needed)} of {gibibytes(available)} available"
    if needed > available:
        raise LichenError(f"{words}; raise --train.accumulation, or lower --train.batch-size or the model's size")
    return words


def _disk(recipe: TrainRecipe) -> str:
    from lichen.model.size import count
    from lichen.scripts.inspection import gibibytes

    copies = recipe.checkpoint.keep_last + 2  # the best one, and the one that is being written
    needed = copies * count(_model(recipe)).total * (16 if recipe.averages.enabled else 12)
    root = recipe.run.root.absolute()
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    words = f"{copies} checkpoints take {gibibytes(needed)} of {gibibytes(free)} free"
    if needed > free:
        raise LichenError(f"{words}; lower --checkpoint.keep-last or name another --run.root")
    return words


def _trackers(recipe: TrainRecipe) -> str:
    return ", ".join({"jsonl": "metrics.jsonl, needs nothing"}[name] for name in recipe.log.trackers) or "none"


def trial(argv: list[str], steps: int, recipe: TrainRecipe) -> int:
    """Train ``steps`` steps as the recipe says, into a folder that is thrown away; the exit status."""
    from lichen.metrics import records
    from lichen.scripts import train

    with tempfile.TemporaryDirectory(prefix="lichen-doctor-") as folder:
        words = [
            *argv,
            "--run.root",
            folder,
            "--run.name",
            "trial",
            "--train.steps",
            str(steps),
            "--train.epochs",
            "null",
        ]
        quiet = ["--evaluation.every", "0", "--log.every", "1"]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            status = train.run([*words, *quiet])
        rows = records.read(Path(folder) / "trial" / "metrics.jsonl", ["train"])
    speeds = [row["tokens_per_second"] for row in rows[len(rows) // 2 :] if row.get("tokens_per_second")]
    if status or not speeds:
        print(Check("trial", False, f"the training ended with status {status}").line())
        return 1
    speed = sum(speeds) / len(speeds)
    words_said = f"{steps} steps, loss {rows[0]['loss']:.3f} → {rows[-1]['loss']:.3f}, {speed:,.0f} tokens/s"
    print(Check("trial", True, words_said + _whole(recipe, speed)).line())
    return 0


def _whole(recipe: TrainRecipe, speed: float) -> str:
    """How long the whole would take at ``speed`` tokens per second."""
    from lichen.dataset.opening import open_data
    from lichen.trainer.assembly import total_steps

    steps = total_steps(recipe.train, open_data(recipe.data, recipe.train.seed, verify=False))
    hours = steps * recipe.train.batch_size * recipe.data.sequence_length / speed / 3600
    return f"; the whole training of {steps:,} steps would take about {hours:.2g} hours"


if __name__ == "__main__":
    run_module(run, __file__)
