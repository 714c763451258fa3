"""The learning rate as a pure function of the step: nothing ticks, so nothing is to be saved or to drift.

A multiplier of the maximum learning rate rises as ``(step + 1) / warm-up steps``, falls from 1 to ``floor`` in the chosen
shape over the rest, and is held at ``floor`` afterwards. A shape is a function of the progress in [0, 1). A schedule of
one's own is named by import path (``schedule.function: "package.module:function"``) and gets ``(step, total, schedule)``.

>>> config = ScheduleConfig(warmup=0.1)
>>> [round(multiplier(config, step, total=20), 3) for step in (0, 1, 2, 11, 20, 99)]
[0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lichen.config.training import ScheduleConfig
from lichen.core import importing

Function = Callable[[int, int, ScheduleConfig], float]


def multiplier(schedule: ScheduleConfig, step: int, total: int, function: Function | None = None) -> float:
    """The factor of the maximum learning rate for the update after ``step`` updates, of ``total`` in the training.

    ``function`` is the schedule of one's own, if there is one, as ``find_function`` returns it.
    """
    total = schedule.length or total
    if function is not None:
        return float(function(step, total, schedule))
    warmup = warmup_steps(schedule, total)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "constant":
        return 1.0
    if step >= total:
        return schedule.floor
    if schedule.name in ("warmup_stable_decay", "wsd"):
        return _between(schedule.floor, min(1.0, (total - step) / (schedule.decay * total)))
    return _between(schedule.floor, _shape(schedule, (step - warmup) / (total - warmup)))


def warmup_steps(schedule: ScheduleConfig, total: int) -> int:
    """Steps of the warm-up: as given, or the share of all steps, rounded."""
    return round(schedule.warmup * total) if schedule.warmup_steps is None else schedule.warmup_steps


def find_function(schedule: ScheduleConfig) -> Function | None:
    """Import the schedule of one's own. Raises UsageError naming what is missing.

    >>> find_function(ScheduleConfig(function="lichen.trainer.schedules:none"))
    Traceback (most recent call last):
        ...
    lichen.config.errors.UsageError: schedule.function = lichen.trainer.schedules:none: ...
    """
    if schedule.function is None:
        return None
    return importing.find_function(schedule.function, "schedule.function")


def _between(floor: float, share: float) -> float:
    return floor + (1 - floor) * share


def _shape(schedule: ScheduleConfig, progress: float) -> float:
    """What of the way from the floor to 1 is left at ``progress`` in [0, 1) of the steps after the warm-up."""
    match schedule.name:
        case "linear":
            return 1 - progress
        case "polynomial":
            return (1 - progress) ** schedule.power
        case _:
            return 0.5 * (1 + math.cos(math.pi * progress))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
