"""From a recipe to a `Training`: builds the parts in the order in which they need each other, and restores them when resuming.

What must agree for a resumed training to be the same one is its fingerprint: the whole recipe, the data and the tokenizer.
Of the recipe, ``HARMLESS`` settings may differ: they change what is logged, kept or how long it goes on, not what a step does.

>>> isinstance(EpochClock(rows_in_epoch=lambda epoch: 4, rows_before=lambda epoch: 4 * epoch).at(6), float)
True
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lichen.config.base import Config
from lichen.config.data import DataConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.config.training import (
    AveragesConfig,
    BankConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    LogConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from lichen.core import device as devices
from lichen.core.batch import Batch
from lichen.core.logs import get_logger
from lichen.core.runs import Run, resolve_checkpoint, size_name
from lichen.dataset.loader import Loader, ValidationBatches
from lichen.dataset.opening import Data
from lichen.dataset.plan import steps_for_epochs
from lichen.dataset.rebinding import Rebinder
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import encode_prompt
from lichen.inference.memory import KNOWLEDGE, give_bank
from lichen.metrics.meters import MovingMean, TimeSplit
from lichen.metrics.records import Records, truncate_after
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import read_model, to_hf_config
from lichen.trainer.averages import Averages
from lichen.trainer.checkpoints import Checkpoint, clear_leftovers, compare_for_resume
from lichen.trainer.interruption import Interruption
from lichen.trainer.keeping import Keeper, agreed_checkpoint, checkpoint_files
from lichen.trainer.loop import EARLY, Training
from lichen.trainer.memory import check_bank, make_rebinder, make_watch
from lichen.trainer.objectives import NextToken
from lichen.trainer.observers import Observer, Progress, Recorder, Samples
from lichen.trainer.optimizers import make_optimizer
from lichen.trainer.runtime import Runtime
from lichen.trainer.saving import Saver
from lichen.trainer.state import State

HARMLESS = (
    "config.run",
    "config.log",
    "config.checkpoint",
    "config.early_stopping",
    "config.evaluation.every",
    "config.evaluation.save_with_evaluation",
    "config.init_from",
    "config.train.steps",
    "config.train.epochs",
    "config.train.accumulation",
    "config.train.compile",
    "config.train.halve_on_out_of_memory",
    "config.train.max_consecutive_skips",
    "config.train.spike_factor",
    "config.train.spike_rollbacks",
    "config.train.threads",
    "config.train.timeout",
    "config.data.path",
    "config.data.sources.*.path",
    "config.data.validation",
    "config.data.workers",
    "config.data.prefetch",
    "config.data.worker_timeout",
    "config.knowledge",
)
"""Settings that may change when a run is continued. (Paths may, because the data itself is compared.)"""

_log = get_logger("training")


class Recipe(Protocol):
    """The sections a training is assembled from."""

    init_from: str | None
    model: ModelConfig
    data: DataConfig
    knowledge: BankConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    averages: AveragesConfig
    early_stopping: EarlyStoppingConfig
    log: LogConfig


@dataclass
class EpochClock:
    """Which pass over the data a row belongs to."""

    rows_in_epoch: Callable[[int], int]
    rows_before: Callable[[int], int]
    _epoch: int = 0
    _start: int = 0
    _rows: int = 0

    def at(self, rows: int) -> float:
        """Passes after ``rows`` rows; asks the plan once per epoch only, as counting its rows takes a moment."""
        if not self._rows or rows < self._start:
            self._epoch, self._start, self._rows = 0, 0, self.rows_in_epoch(0)
        while rows >= self._start + self._rows:
            self._epoch += 1
            self._start = self.rows_before(self._epoch)
            self._rows = self.rows_in_epoch(self._epoch)
        return self._epoch + (rows - self._start) / self._rows


class TrainingData:
    """The loader, and how far in the data it is."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self._clock = EpochClock(loader.source.rows_in_epoch, loader.source.rows_before)

    def batches(self, start: int) -> Generator[Batch]:
        """Batches from step ``start`` on."""
        yield from self._loader.batches(start)

    def epoch(self, rows: int) -> float:
        """Passes over the data after ``rows`` rows."""
        return self._clock.at(rows)


def build_model(config: ModelConfig, seed: int, init_from: str | None, tokenizer: Tokenizer) -> LanguageModel:
    """The model with its initial weights, or with those of another checkpoint. Raises UsageError if that does not fit."""
    if init_from is None:
        return initialise(LanguageModel(config), seed)
    folder = resolve_checkpoint(init_from)
    if (folder / "tokenizer.json").is_file() and Tokenizer.load(folder).fingerprint != tokenizer.fingerprint:
        raise UsageError(f"{folder}: another tokenizer than the data's; prepare the data with tokenizer {folder}")
    model = read_model(folder)
    wanted, found = to_hf_config(config), to_hf_config(model.config)
    if differing := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise UsageError(
            f"{folder}: the recipe describes another model ({', '.join(differing)} differ); use its settings"
        )
    return model.train()


def total_steps(train: TrainConfig, data: Data) -> int:
    """Steps of the training, given as such or as passes over the data."""
    if train.steps is not None:
        return train.steps
    assert train.epochs is not None
    return steps_for_epochs(data.rows, train.epochs, train.batch_size)


def fingerprint_of(recipe: Config, data: Data, tokenizer: Tokenizer, bank: str | None = None) -> dict[str, Any]:
    """What must agree when a run is continued; ``bank`` is the hash of the facts it reads."""
    found = {"config": recipe.to_data(), "data": data.fingerprint, "tokenizer": tokenizer.fingerprint}
    return found if bank is None else {**found, "bank": bank}


def find_checkpoint(run: Run, fingerprint: Mapping[str, Any], runtime: Runtime) -> Checkpoint | None:
    """The checkpoint to continue ``run`` from, the same on all ranks; None if it was stopped before its first.

    Raises LichenError when all are damaged or gone, UsageError when the recipe differs in what matters; what differs
    harmlessly is said.
    """
    if runtime.is_master:
        clear_leftovers(run)  # where folders can not be exchanged, a crash leaves the only one under another name
    checkpoint = agreed_checkpoint(run, runtime)
    if checkpoint is None:
        if run.best_json.exists():
            raise LichenError(
                f"{run.best_json} names a checkpoint and none is left: restore one, or start anew with {run.run_yaml}"
            )
        _log.warning(f"{run.folder} has no checkpoint yet: starting at step 0")
        return None
    for difference in compare_for_resume(checkpoint.fingerprint, fingerprint, HARMLESS):
        _log.info(f"differs from the checkpoint, harmlessly: {difference}")
    return checkpoint


def is_done(checkpoint: Checkpoint, total: int, recipe: Recipe) -> bool:
    """Whether nothing is left to do: at the last step, or stopped early by the rule that still holds."""
    state = checkpoint.state
    return state.finished and (
        state.step >= total or (state.reason == EARLY and not _has_new_patience(checkpoint, recipe))
    )


def _has_new_patience(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    return checkpoint.fingerprint["config"].get("early_stopping") != recipe.early_stopping.to_data()


def check(recipe: Recipe, data: Data, tokenizer: Tokenizer, runtime: Runtime) -> None:
    """Refuse, before a folder is made, what would fail later. Raises UsageError with the remedy."""
    make_loader(recipe, data, tokenizer, runtime)
    check_bank(recipe, data)
    length, positions = recipe.data.sequence_length, recipe.model.max_position_embeddings
    if length > positions:
        raise UsageError(
            f"data.sequence_length = {length}: the model has {positions} positions; lower it to that, or raise "
            "model.max_position_embeddings"
        )
    for prompt in recipe.log.prompts:
        ids = encode_prompt(tokenizer, prompt)
        if len(ids) >= positions:
            raise UsageError(
                f"log.prompts: {prompt[:40]!r}… has {len(ids)} tokens, the model {positions} positions; shorten it"
            )


def assemble(
    recipe: Recipe,
    data: Data,
    tokenizer: Tokenizer,
    runtime: Runtime,
    run: Run,
    checkpoint: Checkpoint | None,
    interruption: Interruption,
    fingerprint: dict[str, Any],
) -> Training:
    """All parts, in the state of ``checkpoint`` or at the beginning."""
    config = recipe.model.with_vocabulary(tokenizer.vocab_size)
    init_from = recipe.init_from if checkpoint is None else None
    module = build_model(config, recipe.train.seed, init_from, tokenizer)
    cache = recipe.knowledge.cluster_cache_path
    give_bank(module, run.folder / KNOWLEDGE, tokenizer, "the recipe's model", cache)
    rebinder = make_rebinder(recipe, data, tokenizer, module)
    model = runtime.prepare(module, recipe.train.compile)
    keeper = _keeper(recipe, run, module, runtime, checkpoint, fingerprint, checkpoint_files(config, tokenizer))
    times = TimeSplit()
    records, total = keeper.records, total_steps(recipe.train, data)
    return Training(
        module=module,
        model=model,
        objective=NextToken(),
        optimizer=keeper.optimizer,
        averages=keeper.averages,
        data=TrainingData(make_loader(recipe, data, tokenizer, runtime, rebinder)),
        validation=_validation(recipe, data, tokenizer, runtime, rebinder),
        state=keeper.state,
        total=total,
        runtime=runtime,
        interruption=interruption,
        saver=keeper,
        observers=[] if records is None else _observers(recipe, run, records, times, module, tokenizer, runtime),
        times=times,
        train=recipe.train,
        optim=recipe.optim,
        schedule=recipe.schedule,
        evaluation=recipe.evaluation,
        checkpoint=recipe.checkpoint,
        early_stopping=recipe.early_stopping,
        memory=make_watch(recipe, module, runtime, total),
        loss_mean=MovingMean(1 - 1 / recipe.log.window),
        saved_step=-1 if checkpoint is None else checkpoint.state.step,
    )


def _keeper(
    recipe: Recipe,
    run: Run,
    module: LanguageModel,
    runtime: Runtime,
    checkpoint: Checkpoint | None,
    fingerprint: dict[str, Any],
    files: Mapping[str, bytes],
) -> Keeper:
    """What is kept in checkpoints, as ``checkpoint`` has it; what an interrupted save or a later step left is cleared away."""
    averages = Averages(module, recipe.averages.decay, recipe.averages.warm_up) if recipe.averages.enabled else None
    keeper = Keeper(
        module=module,
        optimizer=make_optimizer(module, recipe.optim),
        averages=averages,
        state=State() if checkpoint is None else checkpoint.state,
        saver=_saver(recipe, run, module) if runtime.is_master else None,
        runtime=runtime,
        run=run,
        fingerprint=fingerprint,
        files=files,
        records=Records(run.metrics) if runtime.is_master else None,
    )
    if checkpoint is not None:
        keeper.restore(checkpoint)
        runtime.meet()  # all have read before anything is cleared away
        if _has_new_patience(checkpoint, recipe):
            keeper.state.patience_score = keeper.state.patience_left = None
    if keeper.saver is not None and checkpoint is not None:
        keeper.saver.settle(checkpoint.folder, checkpoint.state)
    if runtime.is_master:
        truncate_after(run.metrics, keeper.state.step)
    return keeper


def make_loader(
    recipe: Recipe, data: Data, tokenizer: Tokenizer, runtime: Runtime, rebinder: Rebinder | None = None
) -> Loader:
    """This rank's loader. Raises UsageError if the batch cannot be shared out evenly."""
    workers = recipe.data.workers
    return Loader(
        data.rows,
        recipe.train.batch_size,
        tokenizer.pad_id,
        rank=runtime.rank,
        world_size=runtime.world_size,
        accumulation=recipe.train.accumulation,
        workers=devices.default_workers(runtime.device) if workers is None else workers,
        prefetch=recipe.data.prefetch,
        timeout=recipe.data.worker_timeout,
        pin=devices.pin_memory(runtime.device),
        rebinder=rebinder,
    )


def _validation(
    recipe: Recipe, data: Data, tokenizer: Tokenizer, runtime: Runtime, rebinder: Rebinder | None
) -> ValidationBatches | None:
    if data.validation is None or recipe.evaluation.every == 0:
        return None
    return ValidationBatches(
        data.validation,
        recipe.train.batch_size,
        tokenizer.pad_id,
        max_batches=recipe.evaluation.max_batches,
        rank=runtime.rank,
        world_size=runtime.world_size,
        rebinder=rebinder,
    )


def _saver(recipe: Recipe, run: Run, module: LanguageModel) -> Saver:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    checkpoint = recipe.checkpoint
    return Saver(
        run,
        prefix=f"lichen-{size_name(parameters)}_{recipe.model.feed_forward.kind}",
        keep_last=checkpoint.keep_last,
        asynchronous=checkpoint.asynchronous,
        max_failures=checkpoint.max_failures,
    )


def _observers(
    recipe: Recipe,
    run: Run,
    records: Records,
    times: TimeSplit,
    module: LanguageModel,
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> list[Observer]:
    observers: list[Observer] = [
        Recorder(records, recipe.log, recipe.train, times, runtime.device),
        Progress(recipe.log.every),
    ]
    if recipe.log.prompts:
        observers.append(
            Samples(run.samples, recipe.log.prompts, completion(module, tokenizer, recipe.log.sample_tokens))
        )
    return observers


def completion(module: LanguageModel, tokenizer: Tokenizer, num_tokens: int) -> Callable[[Sequence[str]], list[str]]:
    """A function that continues texts greedily with the weights as they are when it is called."""

    def continued(prompts: Sequence[str]) -> list[str]:
        from lichen.config.generation import SamplingConfig
        from lichen.inference.completion import complete
        from lichen.inference.engine import Engine

        config = SamplingConfig(temperature=0.0, max_new_tokens=num_tokens)
        return [answer.text for answer in complete(Engine(module, tokenizer.stop_ids), tokenizer, prompts, config)]

    return continued


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
