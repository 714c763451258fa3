"""Every plot is drawn, also of a data set without drops or documents, and twice the same."""

from pathlib import Path
from typing import Any

import pytest

from lichen.metrics.data_plots import PLOTS, draw_data_plots

STATISTICS: dict[str, Any] = {
    "lengths": {"median": 5, "longest": 900},
    "length_histogram": [{"from": 1, "to": 1, "documents": 3}, {"from": 512, "to": 1023, "documents": 2}],
    "cleaning": {"read": 12, "kept": 5, "dropped": {"near_duplicate": 4, "rejected": 3, "empty": 0}},
    "vocabulary": {"size": 400, "used": 3, "frequency_by_rank": [[1, 20], [2, 10], [3, 1]]},
}
NOTHING: dict[str, Any] = {
    "lengths": {},
    "length_histogram": [],
    "cleaning": {"read": 0, "kept": 0, "dropped": {}},
    "vocabulary": {"size": 400, "used": 0, "frequency_by_rank": []},
}


@pytest.mark.parametrize("statistics", [STATISTICS, NOTHING], ids=["data", "nothing"])
def test_plots_are_drawn_and_repeatable(tmp_path: Path, statistics: dict[str, Any]) -> None:
    paths = draw_data_plots(statistics, tmp_path / "a")
    assert [path.name for path in paths] == [f"{name}.png" for name in PLOTS]
    again = draw_data_plots(statistics, tmp_path / "b")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert all(path.stat().st_size > 5000 for path in paths)
