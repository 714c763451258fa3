"""The loop. `Training.run` is the page to read: one step after another, and what is due between two steps.

Everything a step depends on is a function of ``state.step``: the batch, the learning rate, random draws. What a checkpoint
holds beside weights and moments is `State`; so a training stopped anywhere and continued ends with the same bits. All ranks
run this loop in step; whatever depends on a clock, a signal or a disk is agreed on before anyone acts.

>>> is_due(500, every=500), is_due(0, every=500), is_due(7, every=0)
(True, False, False)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from lichen.config.errors import LichenError
from lichen.config.training import (
    CheckpointConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from lichen.core.batch import Batch
from lichen.metrics.meters import MovingMean, TimeSplit
from lichen.trainer import schedules
from lichen.trainer.averages import Averages
from lichen.trainer.interruption import Interruption
from lichen.trainer.memory import Watch
from lichen.trainer.objectives import Objective
from lichen.trainer.observers import Observer, Step, ranges
from lichen.trainer.optimizers import Optimizer
from lichen.trainer.runtime import RankLost, Runtime
from lichen.trainer.saving import SavingFailed
from lichen.trainer.state import State
from lichen.trainer.step import OutOfMemory, Result, Totals, UpdateFailed, train_step
from lichen.trainer.validation import Portion, Validation, Weights, validate

FINISHED, EARLY, INTERRUPTED = "finished", "stopped early", "interrupted"
_SPIKES_AFTER = 20  # steps before a loss can be called a spike


class Batches(Protocol):
    """Training data: this rank's share of every global batch."""

    def batches(self, start: int) -> Generator[Batch]:
        """Batches from step ``start`` on."""
        ...

    def epoch(self, rows: int) -> float:
        """Passes over the data after ``rows`` rows."""
        ...


class Saving(Protocol):
    """Where checkpoints go."""

    def save(self, reason: str, final: bool = False) -> None:
        """Write the state as it is now; ``final`` waits for it."""
        ...

    def rollback(self) -> State | None:
        """Take weights, moments and averages back from the latest checkpoint; its state, or None where there is none."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the last save failed on this rank."""
        ...

    def wait(self) -> None:
        """Until everything is written."""
        ...


@dataclass(kw_only=True)
class Training:
    """All parts of one training, and the loop over them."""

    module: nn.Module
    """The plain model; shares its parameters with ``model``."""
    model: nn.Module
    """What is called: compiled and wrapped as the runtime prepared it."""
    objective: Objective
    optimizer: Optimizer
    averages: Averages | None
    data: Batches
    validation: Iterable[Portion] | None
    state: State
    total: int
    """Steps of the training."""
    runtime: Runtime
    interruption: Interruption
    saver: Saving
    observers: list[Observer]
    times: TimeSplit
    train: TrainConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    early_stopping: EarlyStoppingConfig
    memory: Watch = field(default_factory=Watch)
    """Looks at what the model reads; changes nothing."""
    loss_mean: MovingMean = field(default_factory=MovingMean)
    saved_step: int = -1
    """Step of the last checkpoint."""

    def __post_init__(self) -> None:
        self.own_schedule = schedules.find_function(self.schedule)
        self.parts = self.train.accumulation

    # ------------------------------------------------------------------ the page

    def run(self) -> str:
        """Train to the end; says why it ended: ``finished``, ``stopped early`` or ``interrupted``."""
        self.restore_meters()
        self.state.finished = False
        try:
            self.memory.check()
            reason = self.between_steps()  # what a training stopped at this step still owes
            with contextlib.closing(self.data.batches(self.state.step)) as batches:
                while reason is None:
                    start = time.perf_counter()
                    with self.times.part("data"):
                        batch = next(batches)
                    totals, stop = self.count(batch)
                    if stop:
                        reason = INTERRUPTED
                    else:
                        result = self.step(batch, totals)
                        self.take_note(batch, totals, result, time.perf_counter() - start)
                        reason = self.between_steps()
            self.state.finished = reason != INTERRUPTED
            if not self.is_saved(reason):
                self.save(reason, final=True)
            return reason
        except LichenError as error:
            self.rescue(error)
            raise
        finally:
            self.saver.wait()
            for observer in self.observers:
                observer.close()

    def count(self, batch: Batch) -> tuple[Totals, bool]:
        """What the step consists of over all ranks, and whether any of them was asked to stop."""
        local = [self.objective.weight(batch), batch.num_tokens, batch.num_targets, float(self.interruption.requested)]
        with self.times.part("communication"):
            weight, tokens, targets, stop = self.runtime.sum(local)
        return Totals(weight, tokens, targets), stop > 0

    def step(self, batch: Batch, totals: Totals) -> Result:
        """One update; where asked, out of memory splits the batch further and repeats it."""
        while True:
            try:
                with self.times.part("data"):
                    parts = [part.to(self.runtime.device, non_blocking=True) for part in batch.split(self.parts)]
                self.memory.begin(self.state.step + 1)
                return train_step(
                    self.model,
                    self.optimizer,
                    self.objective,
                    parts,
                    totals,
                    self.lr(),
                    self.runtime,
                    self.train,
                    self.times,
                    self.memory.look,
                )
            except OutOfMemory as error:
                if not self.can_halve(batch.rows):
                    raise
                self.parts *= 2
                self.event("out of memory", f"{error}; going on with {self.parts} micro-batches")

    def between_steps(self) -> str | None:
        """Validate, save, stop: whatever is due at this step. The reason to end, if there is one."""
        step = self.state.step
        stopping = None
        if self.validation_due():
            if not self.validate():
                return INTERRUPTED
            if self.state.patience_left == 0:
                stopping = EARLY
                patience, best = self.early_stopping.patience, self.state.best_step
                self.event("early stop", f"no improvement in {patience} validations; best was step {best}")
        if step >= self.total:
            return FINISHED
        if stopping is None and step > self.saved_step and self.save_due():
            self.save("due")
        return stopping

    # ------------------------------------------------------------------ a step

    def lr(self) -> float:
        """The learning rate of the next update: steps that were skipped do not move the schedule."""
        updates = self.state.step - self.state.skipped
        return self.optim.lr * schedules.multiplier(self.schedule, updates, self.total, self.own_schedule)

    def take_note(self, batch: Batch, totals: Totals, result: Result, seconds: float = 0.0) -> None:
        """Advance the state and tell the observers."""
        lr = self.lr()
        state = self.state
        state.step += 1
        state.rows += self.train.batch_size
        state.tokens += int(totals.tokens)
        epoch = self.data.epoch(state.rows)
        state.epoch = int(epoch)
        if result.applied:
            self.applied(result, totals)
        else:
            self.skipped(batch, result)
        record = Step(
            step=state.step,
            total=self.total,
            epoch=epoch,
            loss=result.loss,
            loss_mean=self.loss_mean.value,
            lr=lr,
            gradient_norm=result.gradient_norm,
            applied=result.applied,
            targets=int(totals.targets),
            tokens=int(totals.tokens),
            tokens_seen=state.tokens,
            skipped=state.skipped,
            seconds=seconds,
            aux=result.aux,
            memory=self.memory.meters(state.step),
        )
        if self.memory.problem is not None:
            self.event("disagreement", self.memory.problem)
        for observer in self.observers:
            observer.on_step(record)

    def applied(self, result: Result, totals: Totals) -> None:
        """After an update: average, learn from the loss what is normal."""
        state = self.state
        state.targets += int(totals.targets)
        state.skipped_in_a_row = 0
        if self.averages is not None:
            self.averages.update()
        mean = self.loss_mean.value
        spike = state.step - state.skipped > _SPIKES_AFTER and result.loss > self.train.spike_factor * mean
        self.loss_mean.update(result.loss)
        if spike:
            self.spiked(result.loss, mean)

    def skipped(self, batch: Batch, result: Result) -> None:
        """After a step that was not taken: count it, name its rows, give up after too many in a row."""
        state = self.state
        state.skipped += 1
        state.skipped_in_a_row += 1
        rows = [number for numbers in self.runtime.gather(list(batch.row_numbers)) for number in numbers]
        what = f"loss {result.loss}, gradient norm {result.gradient_norm}"
        text = f"not finite ({what}); step not taken; rows {ranges(rows)}"
        self.event("skip", text)
        if state.skipped_in_a_row >= self.train.max_consecutive_skips:
            raise LichenError(
                f"step {state.step}: {state.skipped_in_a_row} steps in a row were {text}; the weights are as of the last "
                "good step: lower --optim.lr, use --train.precision fp32, or look at these rows of the data"
            )

    def spiked(self, loss: float, mean: float) -> None:
        """A loss far above its mean: say so, and go back if asked to."""
        self.event("spike", f"loss {loss:.4f} is {loss / mean:.1f} times its mean {mean:.4f}")
        if self.state.rollbacks < self.train.spike_rollbacks:
            saved = self.saver.rollback()
            if saved is None:
                self.event("rollback", "there is no checkpoint to go back to yet; going on")
                return
            self.state.rollbacks += 1
            self.state.skipped = self.state.step - (saved.step - saved.skipped)  # the updates left are the checkpoint's
            self.event("rollback", f"weights of step {saved.step} again; the rows since then are passed over")

    def can_halve(self, rows: int) -> bool:
        """Whether micro-batches can be halved: asked for, one rank (others would wait), an even number of rows."""
        return self.train.halve_on_out_of_memory and self.runtime.world_size == 1 and rows % (2 * self.parts) == 0

    # ------------------------------------------------------------------ between steps

    def validation_due(self) -> bool:
        """Every so many steps and at the last one, once."""
        every, step = self.evaluation.every, self.state.step
        done = self.state.moving_means.get("validation", {}).get("step", 0)
        return (
            self.validation is not None and done < step and (is_due(step, every) or (every > 0 and step >= self.total))
        )

    def validate(self) -> bool:
        """Validate the weights, and the averaged ones where there are; False if interrupted."""
        looks = [self.look("current")]
        if self.averages is not None:
            with self.averages.swapped_in():
                looks.append(self.look("averaged"))
        whole = [look for look in looks if look is not None]
        if len(whole) < len(looks):
            return False
        for found in whole:
            for observer in self.observers:
                observer.on_validation(found)
        self.state.moving_means["validation"] = {"step": self.state.step}
        self.state.judge("loss", whole[0].loss, self.early_stopping)  # of the weights that a checkpoint is loaded with
        self.saved_step = -1  # what is on the disk of this step does not know of it
        return True

    def look(self, weights: Weights) -> Validation | None:
        """One validation."""
        assert self.validation is not None
        interrupted = lambda: self.interruption.requested  # noqa: E731
        batches, step = self.validation, self.state.step
        return validate(self.model, self.objective, batches, step, self.runtime, interrupted, weights, self.parts)

    def save_due(self) -> bool:
        """With a validation, or on its own count."""
        step = self.state.step
        with_validation = self.evaluation.save_with_evaluation and is_due(step, self.evaluation.every)
        return with_validation or is_due(step, self.checkpoint.every)

    def save(self, reason: str, final: bool = False) -> None:
        """Write a checkpoint. The other ranks wait for what rank 0 does at the disk, however long it takes."""
        self.state.reason = reason
        self.keep_meters()
        with self.times.part("other"):
            self.saver.wait()
            self.runtime.meet()
            self.memory.settle()
            self.saver.save(reason, final)
            self.runtime.meet()
        self.saved_step = self.state.step

    def is_saved(self, reason: str) -> bool:
        """Whether a whole checkpoint of this step says that it ended for ``reason``; the ranks agree."""
        self.saver.wait()
        failed = any(self.runtime.gather(self.saver.failed, patient=True))
        return self.saved_step == self.state.step and self.state.reason == reason and not failed

    def rescue(self, error: LichenError) -> None:
        """A last checkpoint after a fault that left weights and state whole. Each rank is alone with its fault here."""
        lost = isinstance(error, (RankLost, SavingFailed, UpdateFailed)) or self.state.step == 0
        if not lost and self.saved_step != self.state.step:
            self.state.reason = f"fault: {error}"
            self.keep_meters()
            with contextlib.suppress(LichenError):  # the first error is the one to tell
                self.saver.save(self.state.reason, final=True)

    def event(self, word: str, text: str) -> None:
        """Tell the observers."""
        for observer in self.observers:
            observer.on_event(self.state.step, word, text)

    # ------------------------------------------------------------------ what the state holds of the meters

    def keep_meters(self) -> None:
        """Put the meters' numbers into the state."""
        self.state.moving_means["loss"] = self.loss_mean.state_dict()
        self.state.moving_means["observers"] = {type(o).__name__: o.state_dict() for o in self.observers}
        if self.runtime.scale is not None:
            self.state.scaler = {"value": self.runtime.scale.value, "good_steps": self.runtime.scale.good_steps}

    def restore_meters(self) -> None:
        """Take them out of it again."""
        means = self.state.moving_means
        if "loss" in means:
            self.loss_mean.load_state_dict(means["loss"])
        for observer in self.observers:
            if saved := means.get("observers", {}).get(type(observer).__name__):
                observer.load_state_dict(saved)
        if self.runtime.scale is not None and self.state.scaler:
            self.runtime.scale.value = self.state.scaler["value"]
            self.runtime.scale.good_steps = self.state.scaler["good_steps"]


def is_due(step: int, every: int) -> bool:
    """Whether ``step`` updates are a whole number of intervals; an interval of 0 is never due."""
    return every > 0 and step > 0 and step % every == 0


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
