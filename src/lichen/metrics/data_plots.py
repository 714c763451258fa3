"""Pictures of a data set: document lengths, why documents were dropped, how often tokens occur.

The input is the content of a ``statistics.json``; nothing here knows where it came from.

>>> sorted(PLOTS)
['drops', 'lengths', 'token_frequency']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def draw_data_plots(statistics: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every plot into ``folder`` as PNG files named after `PLOTS`; returns them.

    The figures are drawn without a display; matplotlib is imported here and only here.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in PLOTS.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot(), statistics)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        paths.append(path)
    return paths


def _lengths(axes: Any, statistics: Mapping[str, Any]) -> None:
    bins = statistics["length_histogram"]
    axes.bar(range(len(bins)), [bin["documents"] for bin in bins], width=0.92, color="#4c8055")
    axes.set_xticks(range(len(bins)), [_span(bin["from"], bin["to"]) for bin in bins], rotation=30, ha="right")
    axes.set(title="Document lengths", xlabel="tokens, end token counted", ylabel="documents")
    if median := statistics.get("lengths", {}).get("median"):
        axes.set_title(f"median {median:,}, longest {statistics['lengths']['longest']:,}", loc="right", fontsize=9)


def _drops(axes: Any, statistics: Mapping[str, Any]) -> None:
    cleaning = statistics["cleaning"]
    drops = {name: count for name, count in cleaning["dropped"].items() if count}
    names = sorted(drops, key=lambda name: drops[name])
    bars = axes.barh(names or ["nothing"], [drops[name] for name in names] or [0], color="#b0703c")
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.set(title="Dropped, by reason", xlabel="documents")
    axes.set_title(f"kept {cleaning['kept']:,} of {cleaning['read']:,}", loc="right", fontsize=9)


def _token_frequency(axes: Any, statistics: Mapping[str, Any]) -> None:
    vocabulary = statistics["vocabulary"]
    points = vocabulary["frequency_by_rank"]
    axes.plot([rank for rank, _ in points], [count for _, count in points], color="#3b6ea5", marker=".", linewidth=1.5)
    if points:
        axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.set(title="Token frequency", xlabel="rank", ylabel="occurrences")
    axes.set_title(f"{vocabulary['used']:,} of {vocabulary['size']:,} tokens used", loc="right", fontsize=9)


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


PLOTS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "lengths": _lengths,
    "drops": _drops,
    "token_frequency": _token_frequency,
}
"""File name → what it draws."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
