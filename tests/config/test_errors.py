"""Errors name the remedy."""

import pytest

from lichen.config.errors import MissingDependency, UsageError, nearest, require


def test_a_missing_package_names_the_line_that_installs_it() -> None:
    with pytest.raises(MissingDependency, match=r'nosuchpackage is not installed: pip install "lichen\[extra\]"'):
        require("nosuchpackage", "extra")


def test_nearest_is_silent_where_nothing_is_near() -> None:
    assert nearest("zzz", ["lr"]) == " (available: lr)"
    assert nearest("zzz", []) == " (there are none)"


def test_usage_errors_end_with_two() -> None:
    assert UsageError.exit_status == 2
