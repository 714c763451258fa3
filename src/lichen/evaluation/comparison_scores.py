"""What a comparison of models measured: scores of arms at several numbers of examples, out of the files of their examinations.

Shares of right answers, and the lead of one arm over another in pairs, have bootstrap intervals over seeds × facts; a single seed
has Wilson's over its facts. Measures of language have Student's over seeds, a single seed that of its examination.

>>> def run(bits):
...     scores = [{"task": "object", "wording": "trained", "facts": list("abcd"), "chosen": bits, "written": bits}]
...     return {"groups": [{"name": "added", "scores": scores}]}
>>> arms = [ArmFound("dense", knowledge=[run("0100")]), ArmFound("moe", knowledge=[run("1111"), run("1110")])]
>>> size = SizeFound(100, arms=arms)
>>> which = in_group(questions(size)[0], "added")
>>> print(accuracy(size.arm("dense").knowledge, which)); print(lead(size, "moe", "dense", which))
25.0 % [4.6, 69.9], n 4
62.5 % [12.5, 100.0], n 4
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lichen.evaluation import intervals, resampling
from lichen.evaluation.comparison import Which, difference, outcomes
from lichen.evaluation.intervals import NOTHING, Score
from lichen.evaluation.knowledge_report import TASK_NAMES

Run = Mapping[str, Any]
WAYS = {"object": "written", "relation": "chosen", "verification": "chosen"}
"""How each task is judged: the object by what the model writes, the others by the likelihood of options."""
_SHARES = ("distinct_2", "repetition")


@dataclass(frozen=True)
class ArmFound:
    """One arm at one size."""

    name: str
    about: Mapping[str, Any] = field(default_factory=dict)
    """What it is: texts and numbers, by heading."""
    measures: Mapping[str, int] = field(default_factory=dict)
    """``trainable``, ``active``, ``flops_per_token``, ``bank_bytes``."""
    knowledge: Sequence[Run] = ()
    """The data of the examinations of knowledge, one per seed."""
    language: Sequence[Run] = ()
    """Of language."""


@dataclass(frozen=True)
class SizeFound:
    """All arms at one number of examples."""

    told: int
    about: Mapping[str, Any] = field(default_factory=dict)
    """Counts, by heading."""
    arms: Sequence[ArmFound] = ()

    def arm(self, name: str) -> ArmFound:
        """The arm of that name; an empty one where there is none."""
        return next((arm for arm in self.arms if arm.name == name), ArmFound(name))

    @property
    def runs(self) -> list[Run]:
        """All examinations of knowledge."""
        return [run for arm in self.arms for run in arm.knowledge]


@dataclass(frozen=True)
class Compared:
    """A whole comparison."""

    sizes: Sequence[SizeFound]
    reference: str
    against: Sequence[str] = ()
    layers_of: Sequence[str] = ()
    """Arms whose layers are shown beside each other."""


def groups(size: SizeFound) -> list[str]:
    """The groups that were asked for, in order."""
    return list(dict.fromkeys(group["name"] for run in size.runs for group in run["groups"]))


def questions(size: SizeFound) -> list[Which]:
    """Task, wording and way of everything that was to be asked, each once; the group is left empty."""
    found: dict[Which, None] = {}
    for run in size.runs:
        for one in (one for group in run["groups"] for one in group["scores"]):
            way = "chosen" if one.get("written") is None else WAYS[one["task"]]
            found.setdefault(Which("", one["task"], one["wording"], way))  # type: ignore[arg-type]
    return sorted(found, key=lambda which: (list(WAYS).index(which.task), which.wording))


def asked(size: SizeFound, which: Which) -> bool:
    """Whether there was a fact that could be asked for in this way."""
    return any(_was_asked(run, in_group(which, group)) for run in size.runs for group in groups(size))


def excluded(size: SizeFound, which: Which) -> dict[str, int]:
    """Why facts could not be asked for, with the largest number of a run and group."""
    found: dict[str, int] = {}
    for run in size.runs:
        for one in (one for group in groups(size) for one in scored(run, in_group(which, group))):
            for reason, count in one.get("excluded", {}).items():
                found[reason] = max(found.get(reason, 0), count)
    return found


def in_group(which: Which, group: str) -> Which:
    """The same question in ``group``."""
    return Which(group, which.task, which.wording, which.way)


def title_of(which: Which, wordings: bool = True) -> str:
    """What was asked, in words.

    >>> title_of(Which("", "relation", "trained", "chosen"))
    'relation reasoning, options, trained wording'
    """
    how = "written" if which.way == "written" else "options"
    return f"{TASK_NAMES[which.task]}, {how}{f', {which.wording} wording' if wordings else ''}"


def accuracy(runs: Sequence[Run], which: Which) -> Score:
    """The share of right answers with its interval over seeds × facts; nothing where it was not asked."""
    found = [outcomes(run, which) for run in runs if _was_asked(run, which)]
    common = [id for id in found[0] if all(id in one for one in found)] if found else []
    right = np.array([[one[id] for id in common] for one in found], float)
    if len(found) < 2 or len(np.unique(right)) < 2:  # one seed, or nothing to draw from: the interval of one share
        return intervals.share(right[0].tolist()) if found else NOTHING
    return intervals.paired_difference(right, np.zeros_like(right), purpose="accuracy")


def lead(size: SizeFound, ours: str, theirs: str, which: Which) -> Score:
    """How far one arm is ahead of another, over seeds × facts; nothing where one of them was not asked."""
    sides = [[run for run in size.arm(name).knowledge if _was_asked(run, which)] for name in (ours, theirs)]
    return difference(sides[0], sides[1], which) if all(sides) else NOTHING


def excludes_zero(score: Score) -> bool:
    """Whether the interval lies on one side of 0."""
    return bool(score.n) and (score.low > 0 or score.high < 0)


def yardstick(size: SizeFound, name: str, which: Which) -> Score:
    """What a yardstick reached on the same questions."""
    for run in size.runs:
        for one in scored(run, which):
            data = one.get("yardsticks", {}).get(name, {}).get(which.way)
            if data and data["n"]:
                return _score(data, "%")
    return NOTHING


def language(runs: Sequence[Run], name: str) -> Score:
    """A measure of language over seeds; nothing where it was not measured."""
    unit = "%" if name in _SHARES else ""
    found = [run[name] for run in runs if (run.get(name) or {}).get("value") is not None]
    if len(found) < 2:
        return _score(found[0], unit) if found else NOTHING
    return intervals.mean([data["value"] for data in found], unit)


def bits_against(ours: Sequence[Run], theirs: Sequence[Run]) -> Score:
    """By which share our bits per byte are above theirs, on the same documents; each side's costs are means over its seeds."""
    sides = [[run["per_document"]["nats"] for run in runs if "per_document" in run] for runs in (ours, theirs)]
    if not all(sides) or len({len(nats) for side in sides for nats in side}) != 1:
        return NOTHING
    found = resampling.ratio(np.mean(sides[0], 0), np.mean(sides[1], 0), seed=0, purpose="bits against", unit="%")
    return Score(found.value - 1, found.low - 1, found.high - 1, found.n, "%")


def scored(run: Run, which: Which) -> Iterator[Mapping[str, Any]]:
    """What an examination has about a question."""
    for group in run["groups"]:
        for one in group["scores"]:
            if (group["name"], one["task"], one["wording"]) == (which.group, which.task, which.wording):
                yield one


def _was_asked(run: Run, which: Which) -> bool:
    return any(one.get(which.way) for one in scored(run, which))


def _score(data: Mapping[str, Any], unit: str) -> Score:
    value, low, high = (math.nan if data[name] is None else data[name] for name in ("value", "low", "high"))
    return Score(value, low, high, data["n"], unit)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
