"""Two models on the same facts: differences in pairs, out of the ``knowledge.json`` of their examinations.

Several files of one side are its seeds. Examinations with equal seeds ask equal questions; what is compared must be about the
same facts, and where some could not be asked of everybody (another limit, other groups) those that all were asked count.

>>> def run(bits): return {"groups": [{"name": "added", "scores": [
...     {"task": "object", "wording": "trained", "facts": ["a", "b", "c", "d"], "chosen": bits, "written": bits}]}]}
>>> which = Which("added", "object", "trained")
>>> print(difference([run("1111"), run("1110")], [run("0100"), run("0100")], which).short())
62.5 % [12.5, 100.0]
>>> print(over_seeds([run("1111"), run("1110")], which).value)
0.875
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lichen.config.errors import LichenError
from lichen.evaluation import intervals
from lichen.evaluation.intervals import Score


@dataclass(frozen=True)
class Which:
    """Which outcomes are meant."""

    group: str
    task: str
    wording: str
    way: Literal["chosen", "written"] = "written"


def outcomes(data: Mapping[str, Any], which: Which) -> dict[str, bool]:
    """Fact id → whether it was right. Raises LichenError where this was not examined."""
    for group in data["groups"]:
        for scored in group["scores"]:
            if (group["name"], scored["task"], scored["wording"]) == (which.group, which.task, which.wording):
                bits = scored[which.way]
                if bits is not None:
                    return {id: bit == "1" for id, bit in zip(scored["facts"], bits, strict=True)}
    place = data.get("checkpoint", "this examination")
    raise LichenError(
        f"{place}: {which.group}, {which.task}, {which.wording}, {which.way} was not examined; do it again"
    )


def difference(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], which: Which, seed: int = 0
) -> Score:
    """The mean of ours − theirs over seeds × facts with its paired interval. Raises LichenError without a common fact."""
    found = [[outcomes(data, which) for data in side] for side in (ours, theirs)]
    every = [run for side in found for run in side]
    common = [id for id in every[0] if all(id in run for run in every)] if every else []
    if not common:
        raise LichenError(
            f"{which.group}, {which.task}, {which.wording}: no fact was asked of all; use one seed and limit"
        )
    sides = [np.array([[run[id] for id in common] for run in side], float) for side in found]
    return intervals.paired_difference(*sides, seed=seed)


def over_seeds(runs: Sequence[Mapping[str, Any]], which: Which) -> Score:
    """The mean of the runs' scores, one per seed, with Student's interval."""
    return intervals.mean([float(np.mean(list(outcomes(data, which).values()))) for data in runs], unit="%")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
