"""Fixtures of the evaluation's tests."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def small(load_beside: Callable[[str, str], ModuleType]) -> ModuleType:
    """A world small enough to examine a model in; see small_world.py."""
    return load_beside(__file__, "small_world")
