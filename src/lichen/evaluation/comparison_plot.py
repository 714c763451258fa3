"""The pictures of a comparison.

``plot``: a row of panels per size, one panel per task; every arm is a line of points, one per group of facts, with intervals;
yardsticks stand below, hollow. ``plot_sizes``: the same scores against the number of examples, a line per arm.

>>> import tempfile
>>> scores = [{"task": "object", "wording": "trained", "facts": ["a", "b"], "chosen": "10", "written": "11"}]
>>> runs = [{"groups": [{"name": "added", "scores": scores}]}]
>>> found = Compared([SizeFound(told, arms=[ArmFound("dense", knowledge=runs)]) for told in (10, 20)], "dense")
>>> folder = Path(tempfile.mkdtemp())
>>> plot(found, folder / "a.png"); plot_sizes(found, folder / "b.png")
>>> [path.read_bytes()[1:4] for path in sorted(folder.iterdir())]
[b'PNG', b'PNG']
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.evaluation.comparison_scores import (
    WAYS,
    ArmFound,
    Compared,
    SizeFound,
    accuracy,
    asked,
    groups,
    in_group,
    questions,
    title_of,
    yardstick,
)
from lichen.evaluation.knowledge_questions import CHANCE
from lichen.evaluation.yardsticks import YARDSTICKS
from lichen.metrics import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lichen.evaluation.comparison import Which
    from lichen.evaluation.intervals import Score

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_ROW = 0.34  # inches of an arm
_APART = 1.015  # factor between the places of two arms at one size, so that their intervals can be told apart


def plot(found: Compared, output: Path, title: str = "") -> None:
    """Scores by arm and group, a row of panels per size."""
    sizes = [size for size in found.sizes if size.runs]
    panels = [_first_wording(size) for size in sizes]
    columns = max(map(len, panels), default=1)
    lines = [len(size.arms) + len(YARDSTICKS) for size in sizes] or [1]
    with figures.drawing():
        figure = figures.new_figure(figures.A4_LANDSCAPE[0], 1.1 + sum(0.6 + _ROW * count for count in lines))
        axes = figure.subplots(len(lines), columns, squeeze=False, sharex=True, gridspec_kw={"height_ratios": lines})
        handles: dict[str, Any] = {}
        for row, (size, tasks) in enumerate(zip(sizes, panels, strict=True)):
            for column, which in enumerate(tasks):
                handles |= _arms_panel(axes[row, column], size, which, names=column == 0)
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=9)
        figure.suptitle(figures.label(title or "Arms compared"), fontsize=12)
        figures.save(figure, output)


def plot_sizes(found: Compared, output: Path, title: str = "") -> None:
    """Scores against the number of examples: a row per group, a column per task, a line per arm."""
    sizes = [size for size in found.sizes if size.runs]
    tasks = _first_wording(sizes[0]) if sizes else []
    names = groups(sizes[0]) if sizes else []
    with figures.drawing():
        figure = figures.new_figure(figures.A4_LANDSCAPE[0], 1.3 + 2.4 * max(1, len(names)))
        axes = figure.subplots(max(1, len(names)), max(1, len(tasks)), squeeze=False, sharex=True, sharey=True)
        handles: dict[str, Any] = {}
        for row, group in enumerate(names):
            for column, which in enumerate(tasks):
                panel = axes[row, column]
                handles |= _sizes_panel(panel, sizes, in_group(which, group))
                panel.set_title(figures.label(f"{title_of(which, wordings=False)}: {group}"), loc="left")
                if row == len(names) - 1:
                    panel.set_xlabel("facts told")
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=9)
        figure.suptitle(figures.label(title or "Number of examples"), fontsize=12)
        figures.save(figure, output)


def _first_wording(size: SizeFound) -> list[Which]:
    """One question per task that could be asked, in the wording asked first."""
    found: dict[str, Which] = {}
    for which in questions(size):
        if asked(size, which):
            found.setdefault(which.task, which)
    return [found[task] for task in WAYS if task in found]


def _arms_panel(panel: Axes, size: SizeFound, which: Which, names: bool) -> dict[str, Any]:
    """One task at one size; the handles of the legend by group."""
    names_of_groups = groups(size)
    rows: list[tuple[str, Mapping[str, Score], bool]] = [
        (arm.name, {group: accuracy(arm.knowledge, in_group(which, group)) for group in names_of_groups}, False)
        for arm in size.arms
    ]
    rows += [
        (name, {group: yardstick(size, name, in_group(which, group)) for group in names_of_groups}, True)
        for name in YARDSTICKS
    ]
    handles = {}
    for number, group in enumerate(names_of_groups):
        shift = 0.5 * ((number + 0.5) / len(names_of_groups) - 0.5)
        for place, (_, scores, hollow) in enumerate(rows):
            if scores[group].n:
                drawn = _point(panel, scores[group], place + shift, number, hollow)
                handles.setdefault(group, drawn)
    panel.axvline(100 * _chance(which), color="#777777", linestyle=":", linewidth=1)
    panel.axhline(len(size.arms) - 0.5, color="#777777", linewidth=0.8)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_yticks(range(len(rows)), [figures.label(name) for name, _, _ in rows] if names else [""] * len(rows))
    panel.set_xlim(-2, 102)
    panel.tick_params(labelbottom=True)
    panel.set_title(figures.label(f"{size.told:,} facts: {title_of(which, wordings=False)} (%)"), loc="left")
    return handles


def _point(panel: Axes, score: Score, height: float, number: int, hollow: bool) -> Any:
    color, _ = figures.style(number)
    below, above = _reach(score)
    return panel.errorbar(
        100 * score.value,
        height,
        xerr=[[below], [above]],
        fmt=MARKERS[number % len(MARKERS)],
        color=color,
        markerfacecolor="white" if hollow else color,
        markersize=4.5,
        capsize=1.5,
        linewidth=1.0,
    )


def _sizes_panel(panel: Axes, sizes: list[SizeFound], which: Which) -> dict[str, Any]:
    """One task in one group; the handles of the legend by arm."""
    handles = {}
    names = list(dict.fromkeys(arm.name for size in sizes for arm in size.arms))
    for number, name in enumerate(names):
        arms: list[ArmFound] = [size.arm(name) for size in sizes]
        points = [(size.told, accuracy(arm.knowledge, which)) for size, arm in zip(sizes, arms, strict=True)]
        points = [(told, score) for told, score in points if score.n]
        if not points:
            continue
        color, dashes = figures.style(number)
        reaches = [_reach(score) for _, score in points]
        handles[figures.label(name)] = panel.errorbar(
            [told * _APART ** (number - (len(names) - 1) / 2) for told, _ in points],
            [100 * score.value for _, score in points],
            yerr=list(zip(*reaches, strict=True)),
            color=color,
            linestyle=dashes,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            capsize=1.5,
            linewidth=1.2,
            elinewidth=0.6,
        )
    told = [size.told for size in sizes]
    panel.set_xscale("log")
    panel.set_xticks(told, [f"{number:,}" for number in told])
    panel.set_xticks([], minor=True)
    panel.axhline(100 * _chance(which), color="#777777", linestyle=":", linewidth=1)
    panel.set_ylim(-3, 103)
    return handles


def _chance(which: Which) -> float:
    return CHANCE[which.task][0 if which.way == "chosen" else 1]  # type: ignore[index]


def _reach(score: Score) -> tuple[float, float]:
    """How far the interval goes below and above the value, in hundredths; nowhere where there is none."""
    below, above = 100 * (score.value - score.low), 100 * (score.high - score.value)
    return (max(0.0, below), max(0.0, above)) if below == below and above == above else (0.0, 0.0)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
