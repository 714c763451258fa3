"""``lichen plot RUN… --output curves.png``: draw the curves of one or several runs over each other.

>>> default_output([Path("runs/a")]).as_posix(), default_output([Path("runs/a"), Path("runs/b")]).as_posix()
('runs/a/plots/curves.png', 'curves.png')
"""

from pathlib import Path
from typing import Literal

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError
from lichen.scripts.command_line import run_module

SUMMARY = "draw the curves of one or several runs"


class PlotCommand(Config):
    """Draw the curves of one or several runs: lichen plot RUN RUN --output curves.png."""

    output: Path | None = None
    """The picture, .png, .svg or .pdf; unless given, plots/curves.png of a single run, else curves.png."""
    over: Literal["step", "tokens"] = "step"
    """What the curves are drawn over: steps, or tokens seen."""
    title: str = ""
    """Written above the curves."""


def run(argv: list[str]) -> int:
    """Draw; 0."""
    arguments = flags.parse(argv, PlotCommand, "lichen plot")
    command = load(PlotCommand, flags=arguments.settings)
    if not arguments.positionals:
        raise UsageError("no run to plot; for example: lichen plot runs/NAME")
    runs = [find_run(text) for text in arguments.positionals]
    output = command.output or default_output(runs)

    from lichen.metrics.plots import plot_runs

    plot_runs(runs, output, command.over, command.title)
    print(output)
    return 0


def find_run(text: str) -> Path:
    """A run's folder or metrics file as it is, or the run of that name below runs/."""
    path = Path(text)
    if path.exists():
        return path
    from lichen.core.runs import Run

    return Run.open(text).folder


def default_output(runs: list[Path]) -> Path:
    """Into the folder of a single run; of several, into the working folder."""
    return runs[0] / "plots" / "curves.png" if len(runs) == 1 and not runs[0].suffix else Path("curves.png")


if __name__ == "__main__":
    run_module(run, __file__)
