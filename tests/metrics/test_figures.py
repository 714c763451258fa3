"""Figures: labels any font can draw."""

import pytest

from lichen.config.errors import UsageError
from lichen.metrics import figures


def test_labels_have_no_formulas_and_no_characters_without_a_font():
    assert figures.label("a_b ÄÖ € $5") == r"a_b ÄÖ € \$5"
    assert figures.label("\x07\ue123") == "U+0007U+E123"


def test_an_unknown_kind_of_picture_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="nearest: png"):
        figures.save(figures.new_figure(1, 1), tmp_path / "x.pngg")
    assert not list(tmp_path.iterdir())
