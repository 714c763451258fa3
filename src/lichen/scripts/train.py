"""``lichen train``: recipes become a run; a run is continued.

    lichen train RECIPE... --optim.lr 1e-3     start a run from recipes, merged from left to right, and flags
    lichen train RUN          (--resume RUN)   continue it exactly where its latest checkpoint stands
    lichen train RUN/run.yaml                  start anew with the same settings
    lichen train RECIPE... --init-from RUN     start with the weights of another run's checkpoint
    torchrun --nproc_per_node 2 -m lichen.scripts.train RECIPE...      the same on several ranks

The exit status is 0 when the training is done, 1 after a fault, 2 for a wrong request, 130 after Ctrl-C and 143 after
SIGTERM; after these two ``lichen train RUN`` goes on.

>>> TrainRecipe.from_data({"train": {"steps": 10}}).optim.lr
0.0005
>>> take_options(["a.yaml", "--config", "b.yaml", "--resume_from=runs/x", "--lr", "1"])
(['a.yaml', 'b.yaml', '--lr', '1'], 'runs/x')
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config import base
from lichen.config.base import Config
from lichen.config.data import DataConfig
from lichen.config.errors import UsageError
from lichen.config.flags import existing_files, parse
from lichen.config.model import ModelConfig
from lichen.config.training import (
    AveragesConfig,
    BankConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)


class TrainRecipe(Config):
    """Everything about one training."""

    run: RunConfig = RunConfig()
    """Where it is written."""
    init_from: str | None = None
    """Checkpoint (RUN, RUN@best, a folder) whose weights to start with."""
    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig = DataConfig()
    """What it reads."""
    knowledge: BankConfig = BankConfig()
    """The facts of its readable memory, if it has one."""
    optim: OptimConfig = OptimConfig()
    """How it learns."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate goes."""
    train: TrainConfig = TrainConfig()
    """How long, and how much at once."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """When it is validated."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When it is saved."""
    averages: AveragesConfig = AveragesConfig()
    """Averaged weights."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When it gives up."""
    log: LogConfig = LogConfig()
    """What is written down."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    recipe: TrainRecipe
    resume: Path | None
    """The run to continue, or None to start one."""


def run(argv: list[str]) -> int:
    """Train as ``argv`` asks for; the exit status."""
    request = read_request(argv)
    from lichen.core.environment import prepare_forking
    from lichen.trainer.runtime import Runtime

    prepare_forking()
    recipe = request.recipe
    runtime = Runtime.start(recipe.train.precision, recipe.train.timeout)
    try:
        status = _train(request, runtime)
    except Exception as error:
        if runtime.world_size == 1:
            raise
        runtime.abandon(error)
    runtime.close()
    return status


def read_request(argv: list[str]) -> Request:
    """Read recipes, environment and flags. Raises UsageError or ConfigError for whatever is wrong with them."""
    words, resume = take_options(argv)
    arguments = parse(words, TrainRecipe, "lichen train", {"init_from": "init_from"})
    positionals = list(arguments.positionals)
    if resume is None and len(positionals) == 1 and not positionals[0].endswith((".yaml", ".yml")):
        resume = positionals.pop()
    if resume is None:
        recipes = existing_files(positionals, "recipe")
        return Request(base.load(TrainRecipe, recipes, flags=arguments.settings), None)
    if positionals:
        raise UsageError(f"{positionals[0]}: a run is continued with its own run.yaml; give changes as flags")
    folder = run_folder(resume)
    recipe = base.load(TrainRecipe, [folder / "run.yaml"], flags=arguments.settings)
    return Request(recipe, folder)


def take_options(argv: list[str]) -> tuple[list[str], str | None]:
    """Take ``--resume`` (``--resume-from``) out of ``argv``, and let ``--config FILE`` name a recipe like a plain word."""
    words: list[str] = []
    resume = None
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name.replace("_", "-") not in ("--resume", "--resume-from", "--config"):
            words.append(word)
            continue
        if not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        if name == "--config":
            words.append(value)
        else:
            resume = value
    return words, resume


def run_folder(name: str) -> Path:
    """The folder of the run called ``name``: a run, or its latest checkpoint's folder."""
    from lichen.core.runs import Run

    path = Path(name.removesuffix("@latest"))
    if path.parent.name == "checkpoints":
        found = Run.open(path.parent.parent)
        if (found.checkpoint_folders() or [None])[-1] != path:
            raise UsageError(f"{path}: a run is continued from its latest checkpoint; branch with --init-from {path}")
        return found.folder
    if "@" in path.name:
        raise UsageError(f"{name}: a run is continued from its latest checkpoint; branch with --init-from {name}")
    return Run.open(path).folder


def _train(request: Request, runtime: Any) -> int:
    """Open data and run folder, assemble the training, and let it go."""
    from lichen.core import device as devices
    from lichen.core.logs import get_logger
    from lichen.core.runs import Run
    from lichen.dataset.opening import open_data
    from lichen.dataset.tokenizer import Tokenizer
    from lichen.trainer import assembly, memory
    from lichen.trainer.interruption import Interruption
    from lichen.trainer.saving import Saver

    recipe = request.recipe
    devices.configure(runtime.device, recipe.train.threads, recipe.train.precision)
    devices.seed_everything(recipe.train.seed)
    data = open_data(recipe.data, recipe.train.seed, verify=runtime.is_master)
    runtime.meet()  # rank 0 has read every byte
    tokenizer = Tokenizer.load(data.tokenizer_folder)
    assembly.check(recipe, data, tokenizer, runtime)
    log = get_logger("training")
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        folder = stack.enter_context(_open_run(request, tokenizer.vocab_size, runtime))
        found = Run(folder)
        if runtime.is_master:
            memory.keep_bank(recipe, data, found)
        runtime.meet()
        fingerprint = assembly.fingerprint_of(recipe, data, tokenizer, memory.bank_hash(recipe, found))
        checkpoint = assembly.find_checkpoint(found, fingerprint, runtime) if request.resume is not None else None
        total = assembly.total_steps(recipe.train, data)
        if checkpoint is not None and assembly.is_done(checkpoint, total, recipe):
            if runtime.is_master:  # a run killed while it pruned for the last time
                Saver(found, keep_last=recipe.checkpoint.keep_last).settle(checkpoint.folder, checkpoint.state)
            log.info(f"{folder}: {_nothing_to_do(checkpoint.state, total)}")
            return 0
        training = assembly.assemble(recipe, data, tokenizer, runtime, found, checkpoint, interruption, fingerprint)
        if runtime.is_master:
            write_records(found, recipe, data.sampling, runtime)
        log.info(_opening_words(folder, training, data, runtime))
        reason = training.run()
        log.info(f"{reason} at step {training.state.step}: {folder}")
        return 0 if reason != "interrupted" else interruption.exit_code or 143


def _nothing_to_do(state: Any, total: int) -> str:
    if state.step >= total:
        return f"finished at step {state.step}; nothing to do (more --train.steps would extend it)"
    return (
        f"stopped early at step {state.step}; nothing to do (--early_stopping.enabled false would go on to step {total}, "
        "another --early_stopping.patience with new patience)"
    )


@contextlib.contextmanager
def _open_run(request: Request, vocab_size: int, runtime: Any) -> Iterator[Path]:
    """The run's folder, made on rank 0, locked there as long as it is in use, with logging into it."""
    from lichen.core import logs
    from lichen.core.disk import check_writable
    from lichen.core.locks import FolderLock
    from lichen.core.runs import Run

    with contextlib.ExitStack() as stack:
        folder = request.resume
        if runtime.is_master:
            if folder is None:
                recipe = request.recipe
                check_writable(recipe.run.root)
                folder = Run.create(recipe.run.root, recipe.run.name or automatic_name(recipe, vocab_size)).folder
            stack.enter_context(FolderLock(folder, "training"))
            Run(folder).make_folders()
            logs.start(folder / "logs", "train")
            stack.push(logs.stop_after)
        yield Path(runtime.broadcast(str(folder)))


def automatic_name(recipe: TrainRecipe, vocab_size: int) -> str:
    """Model, size, variant, batch, learning rate, date."""
    from lichen.core.runs import run_name
    from lichen.model.size import count

    parameters = count(recipe.model.with_vocabulary(vocab_size)).total
    return run_name("lichen", parameters, recipe.model.feed_forward.kind, recipe.train.batch_size, recipe.optim.lr)


def write_records(run: Any, recipe: TrainRecipe, sampling: dict[str, Any], runtime: Any) -> None:
    """``run.yaml`` and ``environment.json``; of a continued run, every sitting's environment."""
    from lichen.core import device as devices
    from lichen.core import environment
    from lichen.core.folders import write_file

    write_file(run.run_yaml, recipe.to_yaml())
    record = environment.record(
        device=devices.describe(runtime.device), precision=str(runtime.dtype), seed=recipe.train.seed, sampling=sampling
    )
    sittings: list[Any] = []
    if run.environment_json.exists():
        with contextlib.suppress(ValueError, KeyError):
            before = json.loads(run.environment_json.read_text(encoding="utf-8"))
            sittings = [*before.pop("earlier_sittings", []), before]
    write_file(run.environment_json, json.dumps({**record, "earlier_sittings": sittings}, indent=1, default=str) + "\n")


def _opening_words(folder: Path, training: Any, data: Any, runtime: Any) -> str:
    parameters = sum(parameter.numel() for parameter in training.module.parameters())
    precision = "fp32" if runtime.dtype is None else str(runtime.dtype).removeprefix("torch.")
    start = f"from step {training.state.step} " if training.state.step else ""
    rows = data.rows.rows_in_epoch(0)
    epochs = training.total * training.train.batch_size / rows
    return (
        f"{folder}: {parameters:,} parameters, {start}to step {training.total} "
        f"({epochs:.2f} epochs of {rows:,} rows, {math.ceil(rows / training.train.batch_size):,} steps each), "
        f"{precision} on {runtime.device}, {runtime.world_size} rank{'s' if runtime.world_size > 1 else ''}"
    )


if __name__ == "__main__":
    from lichen.scripts.command_line import run_module

    run_module(run, __file__)
