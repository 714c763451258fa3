"""Who watches a training: each observer gets a record of every step, and can change nothing.

`Recorder` writes metrics.jsonl, `Progress` the line on the terminal, `Samples` continues texts into samples.md; all on rank 0.
What a resumed training must repeat (moving means, counts of an interval) an observer gives out as ``state_dict``; times and
memory are measurements and are never part of it. The names of metrics are those of `lichen.metrics.records`.

>>> duration(59), duration(3723)
('0:59', '1:02:03')
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lichen.config.errors import LichenError
from lichen.config.training import LogConfig, TrainConfig
from lichen.core import logs
from lichen.core.folders import write_file
from lichen.metrics import meters
from lichen.metrics.records import Records, RowType
from lichen.trainer.validation import Validation

_log = logs.get_logger("training")
_MOST_WAITING = 10_000


@dataclass(frozen=True)
class Step:
    """What happened in one step; plain numbers, equal on all ranks."""

    step: int
    """Steps taken so far, this one included."""
    total: int
    epoch: float
    """Passes over the data so far."""
    loss: float
    loss_mean: float
    """Moving mean."""
    lr: float
    gradient_norm: float
    applied: bool
    """Whether the weights were updated."""
    targets: int
    tokens: int
    """Tokens of this step that are not padding."""
    tokens_seen: int
    skipped: int
    """Steps not applied so far."""
    seconds: float = 0.0
    """Wall clock of the step; validation and saving are not part of it."""
    aux: Mapping[str, float] = field(default_factory=dict)
    """Mean of each auxiliary loss."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """At statistics steps, how the model's memory fares: ``knowledge_router_gradient_norm`` (before clipping),
    ``knowledge_linked`` (entries that the text of late speaks of) and ``knowledge_dead`` (the share of them that is not found),
    ``knowledge_usage_entropy`` (of reads, over ln N), ``knowledge_drift``, ``knowledge_refreshed`` (the update of the index
    searched) and, with several ranks, ``knowledge_ranks_agree``."""


class Observer:
    """Watches; every method does nothing unless overridden."""

    def on_step(self, step: Step) -> None:
        """A step was taken, or skipped."""

    def on_validation(self, validation: Validation) -> None:
        """The training was validated."""

    def on_event(self, step: int, event: str, text: str) -> None:
        """Something worth a line happened; ``event`` is a word."""

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that a resumed training needs to go on exactly."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""

    def close(self) -> None:
        """The training ended, however."""


class _Interval:
    """Sums over the steps since the last row."""

    def __init__(self, clip: float):
        self.clip = meters.ClipMeter(clip or None)
        self.reset()

    def reset(self) -> None:
        self.clip.reset()
        self.loss = self.weight = self.norms = 0.0
        self.tokens = self.seconds = 0.0

    def update(self, step: Step) -> None:
        self.clip.update(step.gradient_norm)
        self.tokens += step.tokens
        self.seconds += step.seconds
        self.norms += step.gradient_norm if math.isfinite(step.gradient_norm) else 0.0
        if step.applied:
            self.loss += step.loss * step.targets
            self.weight += step.targets

    def row(self) -> dict[str, float]:
        return {
            "clip_rate": self.clip.clip_rate,
            "clip_ratio": self.clip.mean_clip_ratio,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else math.nan,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "weight": self.weight, "norms": self.norms, "clip": self.clip.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loss, self.weight, self.norms = state["loss"], state["weight"], state["norms"]
        self.clip.load_state_dict(state["clip"])


class Recorder(Observer):
    """Rows of metrics.jsonl: every ``log.every`` steps, at the last step, at the end of every epoch, and for events."""

    def __init__(
        self,
        records: Records,
        log: LogConfig,
        train: TrainConfig,
        times: meters.TimeSplit,
        device: torch.device | None = None,
    ):
        self._records, self._log, self._times, self._device = records, log, times, device
        self._interval, self._epoch = _Interval(train.clip), _Interval(train.clip)
        self._epochs = 0
        self._seconds = dict.fromkeys(("row", "epoch"), dict.fromkeys(meters.PARTS, 0.0))
        self._waiting: list[tuple[RowType, int, dict[str, Any]]] = []

    def on_step(self, step: Step) -> None:
        """Write the rows that are due."""
        self._interval.update(step)
        self._epoch.update(step)
        if step.step % self._log.every == 0 or step.step == step.total:
            statistics = step.step % self._log.statistics_every == 0 or step.step == step.total
            self._write("train", step.step, self._row(step) | (self._statistics("row") if statistics else {}))
            self._interval.reset()
        if int(step.epoch) > self._epochs:
            self._epochs = int(step.epoch)
            self._write("epoch", step.step, self._epoch_row(step) | self._statistics("epoch"))
            self._epoch.reset()

    def _epoch_row(self, step: Step) -> dict[str, Any]:
        sums = self._epoch
        loss = sums.loss / sums.weight if sums.weight else math.nan
        return {
            "epoch": self._epochs,
            "loss": loss,
            "perplexity": meters.perplexity(loss),
            "lr": step.lr,
            "gradient_norm": sums.norms / sums.clip.applied if sums.clip.applied else math.nan,
            "tokens": step.tokens_seen,
            "skipped": step.skipped,
            **sums.row(),
        }

    def _row(self, step: Step) -> dict[str, Any]:
        return {
            "loss": step.loss,
            "loss_mean": step.loss_mean,
            "perplexity": meters.perplexity(step.loss),
            "lr": step.lr,
            "gradient_norm": step.gradient_norm,
            "tokens": step.tokens_seen,
            "epoch": step.epoch,
            "skipped": step.skipped,
            **{f"aux_{name}": value for name, value in step.aux.items()},
            **step.memory,
            **self._interval.row(),
        }

    def _statistics(self, which: str) -> dict[str, float]:
        """The time split since the last ``row`` that had one, or in this ``epoch``, and the memory."""
        new = self._times.report()
        self._seconds = {name: {part: had[part] + new[part] for part in had} for name, had in self._seconds.items()}
        seconds = {f"time_{part}": value for part, value in self._seconds[which].items()}
        self._seconds[which] = dict.fromkeys(meters.PARTS, 0.0)
        return seconds | meters.memory(self._device)

    def on_validation(self, validation: Validation) -> None:
        """One row."""
        names = ("loss", "perplexity", "bits_per_byte", "targets", "weights")
        self._write("validation", validation.step, {name: getattr(validation, name) for name in names})

    def on_event(self, step: int, event: str, text: str) -> None:
        """One row."""
        self._write("event", step, {"event": event, "text": text})

    def _write(self, kind: RowType, step: int, row: dict[str, Any]) -> None:
        """Append the row; on a full disk the training goes on, and rows wait for the next try."""
        self._waiting.append((kind, step, row))
        try:
            while self._waiting:
                kind, step, row = self._waiting[0]
                self._records.append(kind, step, **row)
                del self._waiting[0]
        except LichenError as error:
            _log.error(f"{len(self._waiting)} rows wait to be written: {error}")
            del self._waiting[:-_MOST_WAITING]

    def state_dict(self) -> dict[str, Any]:
        """Sums of the interval and of the epoch in progress."""
        return {
            "interval": self._interval.state_dict(),
            "epoch": self._epoch.state_dict(),
            "epochs": self._epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an interval."""
        self._interval.load_state_dict(state["interval"])
        self._epoch.load_state_dict(state["epoch"])
        self._epochs = state["epochs"]

    def close(self) -> None:
        """Close the file."""
        self._records.close()


class Progress(Observer):
    """One line that rewrites itself on a terminal; elsewhere a line of the log every ten seconds, the first and the last step."""

    def __init__(self, every: int = 10, seconds: float = 10.0):
        self._every, self._seconds = every, seconds
        self._terminal = sys.stderr.isatty()
        self._start = self._shown = time.perf_counter()
        self._first: int | None = None
        self._tokens = self._computing = 0.0

    def on_step(self, step: Step) -> None:
        """Show the line if it is due."""
        now = time.perf_counter()
        if self._first is None:
            self._first = step.step - 1
        self._tokens += step.tokens
        self._computing += step.seconds
        last = step.step == step.total
        if self._terminal and (step.step % self._every == 0 or last):
            print(f"\r{self._line(step, now)}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        elif not self._terminal and (last or step.step == self._first + 1 or now - self._shown >= self._seconds):
            _log.info(self._line(step, now))
            self._shown = now

    def _line(self, step: Step, now: float) -> str:
        elapsed = max(now - self._start, 1e-9)
        left = elapsed / max(1, step.step - (self._first or 0)) * (step.total - step.step)
        return (
            f"step {step.step}/{step.total} {_bar(step.step / step.total)} epoch {step.epoch:.2f} "
            f"loss {step.loss:.4f} (mean {step.loss_mean:.4f}) lr {step.lr:.2e} norm {step.gradient_norm:.2f} "
            f"{self._tokens / max(self._computing, 1e-9):,.0f} tokens/s ETA {duration(left)}"
        )

    def on_validation(self, validation: Validation) -> None:
        """Say how it went."""
        self._break()
        name = "validation" if validation.weights == "current" else "validation of averaged weights"
        _log.info(
            f"step {validation.step}: {name} loss {validation.loss:.4f}, perplexity {validation.perplexity:.2f}, "
            f"{validation.bits_per_byte:.4f} bits per byte over {validation.targets:,.0f} targets"
        )

    def on_event(self, step: int, event: str, text: str) -> None:
        """Warn."""
        self._break()
        _log.warning(f"step {step}: {text}")

    def _break(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


class Samples(Observer):
    """Continues the prompts with the weights as they are at every validation, into samples.md."""

    def __init__(self, path: Path, prompts: Sequence[str], complete: Callable[[Sequence[str]], list[str]]):
        self._path, self._prompts, self._complete = path, prompts, complete

    def on_validation(self, validation: Validation) -> None:
        """One section per validation of the current weights; a training does not end because its samples can not be made."""
        if validation.weights != "current" or not self._prompts:
            return
        try:
            self._add_section(validation)
        except (LichenError, OSError, UnicodeError, torch.OutOfMemoryError) as error:
            _log.error(f"step {validation.step}: no samples: {error}")

    def _add_section(self, validation: Validation) -> None:
        """Written anew if a resumed training comes by again."""
        title = f"## Step {validation.step}\n"
        before = self._path.read_text(encoding="utf-8") if self._path.exists() else "# Samples\n"
        before = before.partition("\n" + title)[0].rstrip("\n") + "\n"
        answers = zip(self._prompts, self._complete(self._prompts), strict=True)
        texts = [f"\n> {_one_line(prompt)}\n\n{_indent(answer)}\n" for prompt, answer in answers]
        write_file(self._path, before + "\n" + title + "".join(texts))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _indent(text: str) -> str:
    """As a code block: whatever the model writes stays text."""
    return "\n".join("    " + line for line in logs.escape_control(text).splitlines() or [""])


def _bar(share: float, width: int = 20) -> str:
    filled = int(share * width)
    return "█" * filled + "░" * (width - filled)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as text with consecutive ones as a range.

    >>> ranges([4, 5, 6, 9])
    '4-6, 9'
    """
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def duration(seconds: float) -> str:
    """Hours, minutes, seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
