"""The pictures show every arm and group, in colours and shapes that differ."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lichen.evaluation import comparison_plot
from lichen.evaluation.comparison_scores import ArmFound, Compared, SizeFound
from lichen.metrics import figures


def run(bits: str) -> dict[str, Any]:
    one = {"wording": "trained", "facts": list("abcdefgh"), "chosen": bits, "written": bits}
    empty = {"wording": "trained", "facts": [], "chosen": "", "written": "", "task": "relation"}
    scores = [{**one, "task": "object"}, empty, {**one, "task": "verification"}]
    return {"groups": [{"name": name, "scores": scores} for name in ("seen", "added")]}


@pytest.fixture
def found() -> Compared:
    arms = [ArmFound(f"arm {n}", knowledge=[run("11110000"), run("10000000")][: 1 + n % 2]) for n in range(10)]
    return Compared([SizeFound(told, arms=arms) for told in (100, 1000)], "arm 0")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved meanwhile."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, output: kept.append(figure))
    return kept


def test_every_arm_stands_in_every_panel_of_what_could_be_asked(found: Compared, drawn: list[Figure]) -> None:
    comparison_plot.plot(found, Path("x.png"))
    [figure] = drawn
    assert len(figure.axes) == 4  # two sizes, two tasks
    for panel in figure.axes:
        assert len(panel.containers) == 20  # ten arms, two groups
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == "arm 0" and labels[-1] == "subject only"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["seen", "added"]
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles[0].startswith("100 facts: object") and titles[3].startswith("1,000 facts: fact verification")


def test_sizes_have_a_line_for_every_arm_that_can_be_told_from_others(found: Compared, drawn: list[Figure]) -> None:
    comparison_plot.plot_sizes(found, Path("x.png"))
    [figure] = drawn
    assert len(figure.axes) == 4  # two groups, two tasks
    lines = [container.lines[0] for container in figure.axes[0].containers]  # pyright: ignore[reportAttributeAccessIssue]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) == 10
    assert list(lines[0].get_ydata()) == [50.0, 50.0]


def test_nothing_examined_is_an_empty_picture(drawn: list[Figure]) -> None:
    comparison_plot.plot(Compared([SizeFound(5, arms=[ArmFound("a")])], "a"), Path("x.png"))
    assert len(drawn) == 1
