"""Pictures of trainings, drawn from ``metrics.jsonl`` alone.

``plot_runs`` puts six panels on a page (loss, bits per byte, learning rate, gradient norm, speed, where the time goes)
and lays several runs over each other; ``plot_bars`` compares numbers. A line that jumps is drawn faint behind its
moving mean. Loss and gradient norm have logarithmic axes, on which equal factors are equally far apart.

>>> import tempfile
>>> from lichen.metrics.records import Records
>>> with tempfile.TemporaryDirectory() as folder:
...     with Records(Path(folder) / "metrics.jsonl") as records:
...         for step in range(1, 4):
...             records.append("train", step, loss=4.0 / step, lr=1e-3)
...     plot_runs([Path(folder)], Path(folder) / "curves.png")
...     (Path(folder) / "curves.png").read_bytes()[1:4]
b'PNG'
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lichen.config.errors import UsageError, nearest
from lichen.metrics import figures, records
from lichen.metrics.meters import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Horizontal = Literal["step", "tokens"]
PART_COLORS = dict(zip(PARTS, (figures.ORANGE, figures.BLUE, figures.GREEN, figures.PURPLE, "#999999"), strict=True))


@dataclass(frozen=True)
class Curves:
    """The rows of one run."""

    name: str
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]

    @classmethod
    def read(cls, run: Path) -> Curves:
        """Of a run folder or a metrics file. Raises UsageError where there is none or nothing was measured yet."""
        file = run / "metrics.jsonl" if run.is_dir() else run
        if not file.is_file():
            near = [p.parent.name for p in run.parent.glob("*/metrics.jsonl")] if run.parent.is_dir() else []
            raise UsageError(f"{run}: no metrics.jsonl here{nearest(run.name, near)}")
        rows = records.read(file)
        train = [row for row in rows if row["type"] == "train"]
        validation = [row for row in rows if row["type"] == "validation"]
        if not train and not validation:
            raise UsageError(f"{file}: nothing was measured yet; wait for the first statistics")
        return cls(run.name if run.is_dir() else file.parent.name, train, validation)

    def column(self, rows: list[dict[str, Any]], name: str, horizontal: Horizontal) -> tuple[list[float], list[float]]:
        """The places and values of a field, over steps or over the tokens seen by then."""
        import numpy as np

        steps, values = records.column(rows, name)
        known, tokens = records.column(self.train, "tokens")
        if horizontal == "step" or not known:
            return [float(step) for step in steps], values
        return np.interp(steps, [0, *known], [0.0, *tokens]).tolist(), values


def plot_runs(runs: Sequence[Path], output: Path, horizontal: Horizontal = "step", title: str = "") -> None:
    """One A4 page of curves of all ``runs`` (run folders or metrics files) as .png, .svg or .pdf."""
    if not runs:
        raise UsageError("no run given to plot")
    curves = [Curves.read(Path(run)) for run in runs]
    names = [figures.label(name) for name in figures.common_shortening([curve.name for curve in curves])]
    with figures.drawing():
        figure = figures.new_figure(*figures.A4_PORTRAIT)
        axes = figure.subplots(3, 2).ravel()
        _loss(axes[0], curves, horizontal)
        _values(axes[1], curves, horizontal, "bits_per_byte", "validation bits per byte", marker="o")
        _values(axes[2], curves, horizontal, "lr", "learning rate")
        _values(axes[3], curves, horizontal, "gradient_norm", "gradient norm before clipping", smooth=True, log=True)
        _values(axes[4], curves, horizontal, "tokens_per_second", "tokens per second", smooth=True)
        _time(axes[5], curves, names, horizontal)
        for panel in axes[:5]:
            panel.set_xlabel("tokens seen" if horizontal == "tokens" else "step")
        _legend(figure, names)
        figure.suptitle(figures.label(title or "Training curves"), fontsize=12)
        figures.save(figure, output)


def plot_bars(
    values: Mapping[str, float], output: Path, title: str, unit: str, highlighted: Sequence[str] = ()
) -> None:
    """Horizontal bars with their numbers, in the given order; ``highlighted`` ones are coloured, all if none is named.

    >>> plot_bars({}, Path("x.png"), "empty", "s")
    Traceback (most recent call last):
        ...
    lichen.config.errors.UsageError: empty: no values to draw
    """
    if not values:
        raise UsageError(f"{title}: no values to draw")
    with figures.drawing():
        figure = figures.new_figure(figures.A4_PORTRAIT[0], 1.2 + 0.34 * len(values))
        panel = figure.subplots()
        colors = [figures.BLUE if name in highlighted or not highlighted else "#999999" for name in values]
        bars = panel.barh([figures.label(name) for name in values], list(values.values()), color=colors, height=0.7)
        panel.bar_label(bars, fmt="%.4g", padding=4)
        panel.margins(x=0.12)
        panel.invert_yaxis()
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel(figures.label(unit))
        panel.set_title(figures.label(title), loc="left")
        figures.save(figure, output)


def _loss(panel: Axes, curves: Sequence[Curves], horizontal: Horizontal) -> None:
    """Training loss faint, its moving mean strong, validation as dots."""
    panel.set_title("loss in nats per token (● validation)", loc="left")
    drawn: list[float] = []
    for number, curve in enumerate(curves):
        color, dashes = figures.style(number)
        places, losses = curve.column(curve.train, "loss", horizontal)
        panel.plot(places, losses, color=color, alpha=0.25, linewidth=0.8)
        panel.plot(*_smooth(places, losses), color=color, linestyle=dashes, linewidth=1.4)
        current = [row for row in curve.validation if row.get("weights", "current") == "current"]
        places, checked = curve.column(current, "loss", horizontal)
        panel.plot(places, checked, color=color, marker="o", markersize=3.5, linewidth=0.8, linestyle=":")
        drawn += [*losses, *checked]
    _log_if_wide(panel, drawn)
    _say_if_empty(panel, drawn)


def _values(
    panel: Axes,
    curves: Sequence[Curves],
    horizontal: Horizontal,
    name: str,
    title: str,
    smooth: bool = False,
    log: bool = False,
    marker: str = "",
) -> None:
    panel.set_title(title, loc="left")
    drawn: list[float] = []
    for number, curve in enumerate(curves):
        color, dashes = figures.style(number)
        rows = curve.validation if name == "bits_per_byte" else curve.train
        rows = [row for row in rows if row.get("weights", "current") == "current"]
        places, values = curve.column(rows, name, horizontal)
        drawn += values
        if smooth:
            panel.plot(places, values, color=color, alpha=0.25, linewidth=0.8)
            places, values = _smooth(places, values)
        width = 1.4 + (len(curves) - 1 - number if name == "lr" else 0)  # equal schedules stay visible
        panel.plot(places, values, color=color, linestyle=dashes, linewidth=width, marker=marker, markersize=3.5)
    if log:
        _log_if_wide(panel, drawn)
    else:
        _plain_numbers(panel, from_zero=name in ("lr", "tokens_per_second"))
    _say_if_empty(panel, drawn)


def _time(panel: Axes, curves: Sequence[Curves], names: Sequence[str], horizontal: Horizontal) -> None:
    """One run: shares of the time along the training. Several: one stacked bar each."""
    panel.set_title("where the time goes, in %", loc="left")
    panel.grid(visible=False)
    shares = [_shares(curve) for curve in curves]
    if len(curves) == 1 and len(shares[0]) > 1:
        places, _ = curves[0].column(_timed(curves[0]), "time_other", horizontal)
        layers = list(zip(*shares[0], strict=True))
        panel.stackplot(
            places,
            *layers,
            labels=[part.replace("_", " + ") for part in PARTS],
            colors=PART_COLORS.values(),
            linewidth=0,
        )
        panel.set_xlim(places[0], places[-1])
        panel.set_ylim(0, 100)
        panel.set_xlabel("tokens seen" if horizontal == "tokens" else "step")
    else:
        _time_bars(panel, shares, names)
    if any(shares):
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8, handlelength=1)
    _say_if_empty(panel, [1.0] * any(shares))


def _time_bars(panel: Axes, shares: Sequence[list[tuple[float, ...]]], names: Sequence[str]) -> None:
    left = [0.0] * len(shares)
    for number, part in enumerate(PARTS):
        widths = [sum(row[number] for row in rows) / len(rows) if rows else 0.0 for rows in shares]
        panel.barh(
            range(len(shares)), widths, left=left, color=PART_COLORS[part], label=part.replace("_", " + "), height=0.5
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, name in enumerate(names):
        panel.text(0, place - 0.28, name if len(name) <= 44 else name[:43] + "…", fontsize=8, va="bottom")
    panel.set_yticks([])
    panel.set_ylim(len(names) - 0.5, -0.7)
    panel.set_xlim(0, 100)


def _timed(curve: Curves) -> list[dict[str, Any]]:
    fields = [f"time_{part}" for part in PARTS]
    return [row for row in curve.train if all(isinstance(row.get(field), int | float) for field in fields)]


def _shares(curve: Curves) -> list[tuple[float, ...]]:
    """Per row the percentages of all parts."""
    rows = [tuple(float(row[f"time_{part}"]) for part in PARTS) for row in _timed(curve)]
    return [tuple(100 * part / (sum(row) or 1.0) for part in row) for row in rows]


def _smooth(
    places: Sequence[float], values: Sequence[float], reach: int | None = None
) -> tuple[list[float], list[float]]:
    """A moving mean over about a twenty-fifth of the curve, to both sides alike, so that it does not lag behind.

    >>> _smooth([1, 2, 3], [0.0, 3.0, 9.0], reach=1)
    ([1, 2, 3], [0.0, 4.0, 9.0])
    """
    sums = [0.0, *itertools.accumulate(values)]
    reach = len(values) // 50 if reach is None else reach
    means = []
    for place in range(len(values)):
        side = min(reach, place, len(values) - 1 - place)
        means.append((sums[place + side + 1] - sums[place - side]) / (2 * side + 1))
    return list(places), means


def _log_if_wide(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, where the values are positive and span a factor of two."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    positive = [value for value in values if value > 0]
    if not positive or len(positive) < len(values) or max(positive) < 2 * min(positive):
        return
    panel.set_yscale("log")
    wide = max(positive) > 30 * min(positive)
    subs = (
        (1.0,)
        if max(positive) > 1e4 * min(positive)
        else (1.0, 3.0)
        if wide
        else (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    )
    panel.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())


def _plain_numbers(panel: Axes, from_zero: bool) -> None:
    from matplotlib.ticker import EngFormatter, ScalarFormatter

    if from_zero:
        panel.set_ylim(bottom=0)
    if panel.get_ylim()[1] >= 10_000:
        panel.yaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        formatter = ScalarFormatter(useMathText=True)
        formatter.set_powerlimits((-2, 4))
        panel.yaxis.set_major_formatter(formatter)


def _say_if_empty(panel: Axes, values: Sequence[float]) -> None:
    if not values:
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", color="#777777")
        panel.set_xticks([])
        panel.set_yticks([])


def _legend(figure: Any, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    lines = []
    for number in range(len(names)):
        color, dashes = figures.style(number)
        lines.append(Line2D([], [], color=color, linestyle=dashes, linewidth=2))
    longest = max(len(name) for name in names)
    columns = max(1, min(len(names), 110 // (longest + 8)))
    figure.legend(lines, names, loc="outside lower center", ncols=columns, fontsize=9)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
