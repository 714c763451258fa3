"""Fixtures of the trainer's tests."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny(load_beside: Callable[[str, str], ModuleType]) -> ModuleType:
    """Makes trainings small enough for tests; see tiny_training.py."""
    return load_beside(__file__, "tiny_training")
